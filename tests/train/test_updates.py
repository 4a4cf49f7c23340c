"""Who learns from what, from which step on, and what a number that is none stops."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from msgspec.structs import replace

from pipelines.train import loop
from pipelines.train.state import TrainState
from pipelines.train.worker import run_training
from storage.checkpoints import StepCheckpoints
from tests.train.duel import CPU, DISCRIMINATOR, Duel, job, phase, trained, value


def test_while_the_discriminator_is_alone_the_generator_learns_as_without_one(tmp_path):
    with_discriminator, _ = trained(tmp_path, phase(2))
    without, _ = trained(tmp_path, phase(2, None))
    assert value(with_discriminator, "maker") == value(without, "maker")


def test_from_the_next_step_on_the_generator_sees_it(tmp_path):
    _, figures = trained(tmp_path, phase(4))
    assert ["loss/fool" in one for one in figures] == [False, False, True, True]


def test_the_discriminator_learns_from_its_own_terms_from_the_first_step(tmp_path):
    state, figures = trained(tmp_path, phase(1))
    assert figures[0]["loss/prediction"] == pytest.approx(9.0)
    assert value(state, "discriminator") == pytest.approx(
        3.0 - 0.01
    )  # Adam's first step is its rate, downhill


def test_a_discriminator_that_moves_at_every_third_step_only(tmp_path):
    at = [
        value(trained(tmp_path, phase(n, replace(DISCRIMINATOR, every=3)))[0], "discriminator")
        for n in (1, 2, 3, 5, 6)
    ]
    assert at[:2] == [3.0, 3.0]
    assert at[2] == pytest.approx(3.0 - 0.01)  # on the gradient of the third step alone: Adam's first step
    assert at[3] == at[2] > at[4]


def test_a_discriminator_that_has_not_moved_yet_resumes(tmp_path):
    rarely = replace(DISCRIMINATOR, every=4)
    straight, _ = trained(tmp_path, phase(6, rarely))
    tensors, about = trained(tmp_path, phase(2, rarely))[0].to_checkpoint()
    resumed, _ = trained(tmp_path, phase(6, rarely), lambda state: state._restore(tensors, about))
    assert resumed.net.state_dict() == straight.net.state_dict()


class Spoilt(Duel):
    """From the third step on, the discriminator's own term is a number whose gradient is none."""

    def __init__(self, both: bool) -> None:
        super().__init__(both)
        self.steps = 0

    def losses(self, batch: dict[str, torch.Tensor], step: Any) -> dict[str, Any]:
        self.steps += 1
        spoilt = {"prediction": lambda: (self.net["discriminator"].value * 0).sqrt()}
        return super().losses(batch, step) | (spoilt if self.steps >= 3 else {})


def test_a_gradient_of_the_discriminator_that_is_no_number_stops_before_either_side_moves(tmp_path):
    asked = replace(job(tmp_path, phase(4)), build=partial(Spoilt, True), checkpoint_every=1)
    message = r"step 3: the discriminator's gradient is nan \(.*prediction 0\); clips of the batch: [ab]"
    with pytest.raises(FloatingPointError, match=message):
        run_training(asked, torch.device("cpu"))
    files = StepCheckpoints(str(tmp_path))
    assert files.latest_step_up_to(4) == 2
    assert all(tensor.isfinite().all() for tensor in files.load(2)[0].values())


def test_neither_side_has_moved_at_such_a_step(tmp_path):
    state = TrainState(replace(job(tmp_path, phase(4)), build=partial(Spoilt, True)), torch.device("cpu"))
    with pytest.raises(FloatingPointError):
        list(loop.run_steps(state.job, state, CPU))
    assert state.step == 2
    saved = state.to_checkpoint()[0]
    assert {float(saved[f"optim.{part}.value.step"]) for part in ("maker", "discriminator")} == {2.0}


def test_the_total_is_the_generators(tmp_path):
    _, figures = trained(tmp_path, phase(3))
    assert figures[0]["loss/total"] == pytest.approx(figures[0]["loss/pixel"])
    expected = figures[2]["loss/pixel"] + 2 * figures[2]["loss/fool"]
    assert figures[2]["loss/total"] == pytest.approx(expected)
