"""Sources by part: what a phase may begin with, checked against the nets of the run's phases."""

from __future__ import annotations

from typing import Any

import pytest

from models.api import Ema, Loss, Optimizer, Phase, Released, Update
from models.errors import InvalidSettings
from models.phase_checks import Starts, check


def phase(name: str, parts: tuple[str, ...], **more: Any) -> Phase:
    update = Update(parts=dict.fromkeys(parts, 1.0), losses={"l1": Loss(1.0)})
    return Phase(
        name=name, steps=1, batch=1, optimizers={"g": Optimizer()}, updates={"generator": update}, **more
    )


SYNTHESIS = phase("synthesis", ("generator",), ema={"generator": Ema(decay=0.9)})
PARTS = {"synthesis": ("generator",), "audio": ("listener",), "joint": ("encoder", "generator", "listener")}
RELEASED = {"ears": Released("module:read", ("ears",), ("listener",))}


def checked(**init: str) -> None:
    joint = phase("joint", ("encoder",), init=init)
    phases = {"synthesis": SYNTHESIS, "audio": phase("audio", ("listener",)), "joint": joint}
    check(joint, Starts("toy", phases, PARTS, RELEASED))


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
        check(wrong, Starts("toy", {"audio": wrong}, PARTS, {}))


def test_a_checkpoint_that_a_phase_uses_must_be_there():
    using = phase("audio", ("listener",), uses={"teacher": "nobody"})
    with pytest.raises(InvalidSettings, match="uses 'nobody', which this run does not have; it has nothing"):
        check(using, Starts("toy", {"audio": using}, PARTS, {}))


def test_a_phase_uses_released_weights():
    using = phase("audio", ("listener",), uses={"teacher": "weights.ears"})
    check(using, Starts("toy", {"audio": using}, PARTS, RELEASED))


@pytest.mark.parametrize("reads", [{"init": "joint"}, {"init": "audio"}, {"uses": {"teacher": "joint"}}])
def test_a_phase_reads_no_checkpoint_of_itself_or_of_a_later_one(reads):
    audio, joint = phase("audio", ("listener",), **reads), phase("joint", ("encoder",))
    phases = {"synthesis": SYNTHESIS, "audio": audio, "joint": joint}
    with pytest.raises(
        InvalidSettings, match=r"which is not trained before it; before it there is synthesis \("
    ):
        check(audio, Starts("toy", phases, PARTS, {}))
