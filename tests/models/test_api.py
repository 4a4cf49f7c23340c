"""A phase that contradicts itself is refused in one line when it is written."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from models.api import (
    BestCriterion,
    EmaSettings,
    Loss,
    Optimizer,
    Phase,
    Schedule,
    Update,
    WeightsSource,
)

G = Update(parts={"generator": 1.0}, losses={"gan": Loss(1.0)})
D = Update(parts={"discriminator": 1.0}, optimizer="d", losses={"logistic": Loss(1.0)})


def phase(**changes: Any) -> Phase:
    values: dict[str, Any] = {
        "name": "toy", "steps": 10, "batch": 4, "optimizers": {"g": Optimizer(), "d": Optimizer()},
        "updates": {"g": G, "d": D},
    }  # fmt: skip
    return Phase(**(values | changes))


DECAY = Optimizer(schedule=Schedule(constant_steps=6, linear_decay_steps=4, step_offset=5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "phase toy: steps 0: expected 1 or more"),
        ({"chunk": 3}, "phase toy: chunk 3 does not divide batch 4"),
        ({"updates": {"g": None}}, "phase toy: updates is empty"),
        ({"updates": {"g": replace(G, parts={"generator": None})}}, "update g learns no part; name at least"),
        ({"updates": {"g": replace(G, optimizer="x")}}, "update g moves optimizer 'x'; optimizers has g, d"),
        (
            {"updates": {"g": replace(G, losses={"gan": Loss(0)})}},
            "update g has no loss with a weight above 0",
        ),
        (
            {"updates": {"g": G, "d": replace(D, parts={"generator": 1.0})}},
            "part generator learns in update g on optimizer g and in update d on d; expected one optimizer",
        ),
        (
            {"updates": {"g": G, "p": replace(G, parts={"generator": 0.5}, own_forward=True)}},
            "part generator has rate factor 1.0 in update g and 0.5 in update p",
        ),
        ({"updates": {"g": G, "p": G}}, "learns in updates g and p from one pass; .* updates.p.own_forward"),
        ({"ema": {"decoder": EmaSettings(decay=0.9)}}, r"ema of \['decoder'\], which no update learns"),
        ({"resume_optimizers": True}, "resume_optimizers needs a phase to start from, found init None"),
        (
            {"resume_optimizers": True, "init": "weights.released"},
            "resume_optimizers needs a phase to start from, found init weights.released",
        ),
        (
            {"uses": {"teacher": "other.first.encoder"}},
            "uses.teacher 'other.first.encoder': expected a phase, model.phase or weights.<i",
        ),
        (
            {"init": "other.first.encoder"},
            "init 'other.first.encoder' names a part, .*; write init: {encoder: other.first.encoder}",
        ),
        (
            {"optimizers": {"g": DECAY, "d": Optimizer()}, "steps": 6},
            "rate of optimizer g is 0 after step 5",
        ),
    ],
)
def test_a_phase_that_cannot_be_trained_is_refused(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        phase(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule(warmup=0.1), "schedule.warmup 0.1: expected a whole number of steps, not a share"),
        (lambda: Schedule(constant_steps=-1), "schedule.constant_steps -1: expected 0 or more"),
        (lambda: Schedule(linear_decay_steps=5, step_offset=None), "step_offset null with linear"),
        (lambda: Loss(1.0, start=0.5), "loss.start 0.5: expected a whole number of steps"),
        (lambda: Loss(1.0, every=0), "loss.every 0: expected 1 or more"),
        (lambda: Optimizer(betas=(0.9, 1.0)), r"betas \(0.9, 1.0\)"),
        (lambda: Optimizer(clip=0), "clip 0: expected a positive number"),
        (lambda: EmaSettings(), "expected one of decay, half_life_steps and half_life_images"),
        (lambda: EmaSettings(decay=0.9, ramp=0.1), "ramp goes with a half-life"),
    ],
)  # fmt: skip
def test_impossible_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_several_updates_share_an_optimizer_and_a_part():
    regulariser = replace(D, losses={"r1": Loss(5.0)}, every=16, own_forward=True)
    made = phase(updates={"g": G, "d": D, "r1": regulariser})
    assert made.trainable_parts == ("generator", "discriminator")
    assert made.loss_weights == {"gan": 1.0, "logistic": 1.0, "r1": 5.0}


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("warmup", WeightsSource("warmup", None, None)),
        ("warmup.decoder", WeightsSource("warmup", None, "decoder")),
        ("weights.fsrt_vox", WeightsSource(None, "fsrt_vox", None)),
        ("weights.fsrt_vox.decoder", WeightsSource(None, "fsrt_vox", "decoder")),
        ("fsrt_b.warmup.decoder", WeightsSource("warmup", None, "decoder", "fsrt_b")),
    ],
)
def test_a_source_is_a_phase_or_a_released_file_and_maybe_a_part(text, source):
    assert WeightsSource.parse(text) == source


def test_sources_by_part_name_every_phase_and_file_once():
    made = phase(
        init={"generator": "a.generator_ema", "discriminator": "a", "encoder": "b", "teacher": "weights.x"},
        uses={"synthesis": "c"},
    )
    assert made.required_phases == ("a", "b", "c")
    assert made.required_weights == ("x",)
    assert phase(uses={"synthesis": "weights.y"}).required_weights == ("y",)


def test_an_update_moves_at_its_interval_after_its_start():
    update = replace(G, every=3, start=4)
    assert [step for step in range(1, 13) if update.is_due(step)] == [6, 9, 12]


def test_the_best_is_the_highest_or_the_lowest():
    assert BestCriterion().is_better(2.0, than=1.0)
    assert BestCriterion(figure="l1", highest=False).is_better(1.0, than=2.0)
    assert not BestCriterion().is_better(1.0, than=1.0)  # the first of two equals
