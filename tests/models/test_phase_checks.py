"""Sources by part: what a phase may begin with, checked against the nets of the run's phases."""

from __future__ import annotations

from typing import Any

import pytest

from models.api import EmaSettings, Loss, Optimizer, Phase, ReleasedWeightsInit, Update
from models.errors import InvalidSettings
from models.phase_checks import PhaseSources, check_phase_sources


def phase(name: str, parts: tuple[str, ...], **more: Any) -> Phase:
    update = Update(parts=dict.fromkeys(parts, 1.0), losses={"l1": Loss(1.0)})
    return Phase(
        name=name,
        steps=1,
        batch=1,
        optimizers={"g": Optimizer()},
        updates={"generator": update},
        **more,
    )


SYNTHESIS = phase("synthesis", ("generator",), ema={"generator": EmaSettings(decay=0.9)})
PARTS = {"synthesis": ("generator",), "audio": ("listener",), "joint": ("encoder", "generator", "listener")}
RELEASED = {"ears": ReleasedWeightsInit("module:read", ("ears",), ("listener",))}


def checked(**init: str) -> None:
    joint = phase("joint", ("encoder",), init=init)
    phases = {"synthesis": SYNTHESIS, "audio": phase("audio", ("listener",)), "joint": joint}
    check_phase_sources(joint, PhaseSources("toy", phases, PARTS, RELEASED))


@pytest.mark.parametrize("source", ["audio", "weights.ears"])
def test_parts_come_from_several_sources_raw_or_as_running_means(source):
    checked(generator="synthesis.generator_ema", listener=source)
    checked(generator="synthesis", listener=source)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ({"generator": "synthesis"}, "train.toy.joint does not train listener and starts from synthesis"),
        ({"generator": "audio", "listener": "audio"}, "from audio, which has no part generator"),
        ({"generator": "audio.listener_ema", "listener": "audio"}, "which has no part listener_ema"),
        ({"ear": "audio"}, r"toy.phases.joint.init names ear, but the parts of its net are \['encoder', "),
        ({"generator": "first"}, "joint starts from 'first', which this run does not have; it has "),
    ],
)  # fmt: skip
def test_a_part_that_nobody_brings_is_refused(init, message):
    with pytest.raises(InvalidSettings, match=message):
        checked(**init)


def test_an_update_over_a_part_that_does_not_exist_is_refused():
    wrong = phase("audio", ("listner",))
    with pytest.raises(
        InvalidSettings, match=r"trains \['listner'\], but the parts of its net are \['listener'\]"
    ):
        check_phase_sources(wrong, PhaseSources("toy", {"audio": wrong}, PARTS, {}))


def test_a_checkpoint_that_a_phase_uses_must_be_there():
    using = phase("audio", ("listener",), uses={"teacher": "nobody"})
    with pytest.raises(InvalidSettings, match="uses 'nobody', which this run does not have; it has nothing"):
        check_phase_sources(using, PhaseSources("toy", {"audio": using}, PARTS, {}))


def test_a_phase_uses_released_weights():
    using = phase("audio", ("listener",), uses={"teacher": "weights.ears"})
    check_phase_sources(using, PhaseSources("toy", {"audio": using}, PARTS, RELEASED))


@pytest.mark.parametrize("reads", [{"init": "joint"}, {"init": "audio"}, {"uses": {"teacher": "joint"}}])
def test_a_phase_reads_no_checkpoint_of_itself_or_of_a_later_one(reads):
    audio, joint = phase("audio", ("listener",), **reads), phase("joint", ("encoder",))
    phases = {"synthesis": SYNTHESIS, "audio": audio, "joint": joint}
    with pytest.raises(
        InvalidSettings, match=r"which is not trained before it; before it there is synthesis \("
    ):
        check_phase_sources(audio, PhaseSources("toy", phases, PARTS, {}))


# --- other models of the run --------------------------------------------------------------------------------
OTHERS = {"gan": {"adapt": ("generator", "generator_ema")}, "audio_only": {}}


def checked_with_others(**more: Any) -> None:
    joint = phase("joint", ("encoder",), **more)
    phases = {"synthesis": SYNTHESIS, "joint": joint}
    parts = {"synthesis": ("generator",), "joint": ("encoder", "generator")}
    check_phase_sources(joint, PhaseSources("toy", phases, parts, RELEASED, OTHERS))


def test_a_part_begins_with_that_of_another_models_phase():
    checked_with_others(init={"generator": "gan.adapt.generator_ema"}, uses={"teacher": "gan.adapt"})
    checked_with_others(init="gan.adapt")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"uses": {"g": "gun.adapt"}},
            "uses 'gun.adapt', but the models of this run are toy, gan, audio_only",
        ),
        ({"uses": {"g": "gan.tune"}}, "uses 'gan.tune', but gan trains no phase tune; its phases are adapt$"),
        ({"uses": {"g": "toy.synthesis"}}, "uses 'toy.synthesis', its own model's; write synthesis$"),
        (
            {"init": "synthesis.generator"},
            r"add synthesis to models, or write init: {generator: synthesis.generator} for a part$",
        ),
        (
            {"init": {"generator": "gan.adapt"}},
            "'gan.adapt', which is a model of this run, not a phase of toy; name its phase too, as gan",
        ),
        (
            {"init": {"generator": "gan.adapt.mapping"}},
            "takes generator from gan.adapt, which has no part map",
        ),
    ],
)
def test_a_checkpoint_that_no_other_model_has_is_refused(more, message):
    with pytest.raises(InvalidSettings, match=message):
        checked_with_others(**({"init": "synthesis"} | more))


def test_the_checkpoints_of_a_model_hold_its_parts_and_their_running_means():
    starts = PhaseSources("toy", {"synthesis": SYNTHESIS, "audio": None}, PARTS, {})
    assert starts.checkpoint_parts_by_phase == {"synthesis": {"generator", "generator_ema"}}
