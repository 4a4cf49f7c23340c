"""What a checkpoint holds: a restart, and a phase that starts from another, go on from it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from msgspec.structs import replace

from models.api import BestCriterion, Schedule
from models.errors import InvalidSettings
from pipelines.errors import UserError
from pipelines.train.state import TrainState, best_file_name
from storage.checkpoints import StepCheckpoints
from storage.files import Store
from tests.train.duel import DISCRIMINATOR, RATE, Duel, job, phase, trained, value


def test_both_optimizers_resume(tmp_path):
    straight, _ = trained(tmp_path, phase(6))
    half, _ = trained(tmp_path, phase(3))
    tensors, about = half.to_checkpoint()
    resumed, _ = trained(tmp_path, phase(6), lambda state: state._restore(tensors, about))
    assert resumed.net.state_dict() == straight.net.state_dict()


def test_resumed_optimizers_go_on_as_one_training(tmp_path):
    straight, _ = trained(tmp_path, phase(4, None))
    first, _ = trained(tmp_path, phase(2, None))
    tensors, about = first.to_checkpoint()

    def begin(state: TrainState) -> None:
        state._begin({name: tensor.clone() for name, tensor in tensors.items()}, about)
        state.step = 2  # the same samples as in one go

    carried, _ = trained(tmp_path, phase(4, None, init="first", resume_optimizers=True), begin)
    assert value(carried, "maker") == value(straight, "maker")


def test_the_discriminators_optimizer_is_resumed_too(tmp_path):
    straight, _ = trained(tmp_path, phase(8))
    tensors, about = trained(tmp_path, phase(5))[0].to_checkpoint()

    def begin(state: TrainState) -> None:
        state._begin({name: tensor.clone() for name, tensor in tensors.items()}, about)
        state.step = 5  # the same samples as in one go

    carried, _ = trained(tmp_path, phase(8, init="first", resume_optimizers=True), begin)
    assert carried.net.state_dict() == straight.net.state_dict()


def test_resumed_moments_outlive_a_checkpoint_before_their_first_step(tmp_path):
    tensors, about = trained(tmp_path, phase(2))[0].to_checkpoint()
    rarely = phase(6, replace(DISCRIMINATOR, every=4), init="first", resume_optimizers=True)

    def begin(state: TrainState) -> None:
        state._begin({name: tensor.clone() for name, tensor in tensors.items()}, about)

    straight, _ = trained(tmp_path, rarely, begin)
    half = trained(tmp_path, replace(rarely, steps=3), begin)[0].to_checkpoint()
    resumed, _ = trained(tmp_path, rarely, lambda state: state._restore(*half))
    assert resumed.net.state_dict() == straight.net.state_dict()


def test_the_clock_of_the_rate_goes_on_through_phases_and_restarts(tmp_path):
    """With fewer or more steps before, it shows fewer or more; the discriminator's is the generator's."""
    falling = replace(RATE, schedule=Schedule(warmup=3, decay=0.5, decay_steps=4, step_offset=None))
    _, straight = trained(tmp_path, phase(8, None, optimizers={"g": falling, "d": falling}))
    tensors, about = trained(tmp_path, phase(2, None, optimizers={"g": falling, "d": falling}))[
        0
    ].to_checkpoint()

    def begin(state: TrainState) -> None:
        state._begin({name: tensor.clone() for name, tensor in tensors.items()}, about)

    later = phase(6, optimizers={"g": falling, "d": falling}, init="first", resume_optimizers=True)
    _, carried = trained(tmp_path, later, begin)
    half = trained(tmp_path, replace(later, steps=3), begin)[0].to_checkpoint()
    resumed, again = trained(tmp_path, later, lambda state: state._restore(*half))
    rates = [[one["learning_rate"] for one in figures] for figures in (straight, carried, again)]
    assert rates[1] == rates[0][2:]
    assert rates[2] == rates[0][5:]
    assert resumed.optimizers["d"].torch.param_groups[0]["lr"] == pytest.approx(rates[0][-1])


def test_a_phase_with_a_discriminator_starts_from_one_without(tmp_path):
    first, _ = trained(tmp_path, phase(2, None))
    tensors, about = first.to_checkpoint()
    begun = TrainState(job(tmp_path, phase(1, init="first", resume_optimizers=True)), torch.device("cpu"))
    begun._begin(tensors, about)
    assert (value(begun, "maker"), value(begun, "discriminator")) == (value(first, "maker"), 3.0)


def test_checkpoints_remember_what_was_as_published(tmp_path):
    """So that a later phase which does without does not say that nobody used it."""
    state = TrainState(job(tmp_path, phase(1)), torch.device("cpu"))
    state.provenance = {"vgg19": "", "tokens": "none"}
    tensors, about = state.to_checkpoint()
    assert about["provenance"] == {"tokens": "none"}
    later = TrainState(job(tmp_path, phase(1, init="first")), torch.device("cpu"))
    later.provenance = {"vgg19": "not used"}
    later._begin(tensors, about)
    assert later.to_checkpoint()[1]["provenance"] == {"tokens": "none"}


def test_the_best_weights_are_those_of_the_highest_psnr(tmp_path):
    from safetensors.torch import load_file

    state, _ = trained(tmp_path, phase(1, best=BestCriterion()))
    store = Store(str(tmp_path))
    for psnr, at in ((20.0, 1.0), (22.0, 2.0), (21.0, 3.0)):
        with torch.no_grad():
            state.parameters["maker.value"].fill_(at)
        state.step = int(at)
        state.keep_best(store, psnr)
    assert state.best == (22.0, 2)
    assert float(load_file(tmp_path / best_file_name(2))["maker.value"]) == 2.0
    assert state.to_checkpoint()[1]["best"] == [22.0, 2]


def test_a_start_that_is_not_there_names_the_node_to_run(tmp_path):
    state = TrainState(job(tmp_path, phase(1, init="first")), torch.device("cpu"))
    message = r"no weights of train\.duel\.first .*: `reenact run RUN\.yaml --only train\.duel\.first`"
    with pytest.raises(UserError, match=message):
        state.resume(StepCheckpoints(str(tmp_path)), None)


def test_frozen_parts_that_nothing_brings_are_refused(tmp_path):
    both = replace(job(tmp_path, phase(1, None)), build=partial(Duel, True))
    state = TrainState(both, torch.device("cpu"))
    with pytest.raises(InvalidSettings, match=r"starts from nothing, but does not train \['discriminator'\]"):
        state.resume(StepCheckpoints(str(tmp_path)), None)
