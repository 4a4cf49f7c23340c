"""A generator against a judge, one number each: who learns from what, from which step on, after a restart.

The generator g makes x = g; the judge's verdict is d * x.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.api import Adversary, Optim, Phase
from models.errors import InvalidSettings
from pipelines.dataset.sampler import Corpus
from pipelines.errors import UserError
from pipelines.train import loop
from pipelines.train.job import Job
from pipelines.train.state import State, best_name, published
from pipelines.train.worker import train
from storage.checkpoints import StepCheckpoints
from storage.files import Store

RATE = Optim(lr=0.1)
JUDGED = Adversary(
    train=("judge",), optim=Optim(lr=0.01), losses={"verdict": 1.0}, fools={"fool": 2.0}, alone=2
)


class Number(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))


class Duel:
    def __init__(self, judged: bool) -> None:
        self.net = nn.ModuleDict({"maker": Number(1.0)} | ({"judge": Number(3.0)} if judged else {}))

    def use(self, nets: Any) -> None: ...

    def labels(self) -> dict[str, str]:
        return {}

    def describe(self) -> dict[str, Any]:
        return {"model": "duel"}

    def draw(self, rng: np.random.Generator, clip: Any, training: bool) -> dict[str, np.ndarray]:
        return {"wanted": np.float32(rng.random())}

    def terms(self, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        made = self.net["maker"].value
        return {
            "pixel": lambda: (made - batch["wanted"]).square().mean(),
            "fool": lambda: (1 - self.net["judge"].value.detach() * made) ** 2,
            "verdict": lambda: (self.net["judge"].value * made.detach()) ** 2,
        }


class Frames:
    """Two clips of four frames each."""

    def frames_of(self, key: str) -> int:
        return 4


def job(folder: Any, phase: Phase, judged: bool = True) -> Job:
    corpus = Corpus(Frames(), {}, (("a",), ("b",)))
    return Job(
        node="train.duel.toy", phase=phase, build=partial(Duel, judged), nets=dict, landmarks=None,
        train=corpus, held_out=None, seed=0, precision="fp32", scratch=str(folder), log_every=1,
        checkpoint_every=2, threads=1,
    )  # fmt: skip


def phase(steps: int, adversary: Adversary | None = JUDGED, **more: Any) -> Phase:
    values = {"name": "toy", "batch": 2, "train": ("maker",), "optim": RATE, "losses": {"pixel": 1.0}}
    return Phase(steps=steps, adversary=adversary, **(values | more))


def trained(folder: Any, phase: Phase, begin: Any = None) -> tuple[State, list[dict[str, float]]]:
    state = State(job(folder, phase, phase.adversary is not None), torch.device("cpu"))
    if begin is not None:
        begin(state)
    figures = [state.figures.mean(1) for _ in loop.steps(state.job, state, torch.device("cpu"), 0, 1)]
    return state, figures


def value(state: State, part: str) -> float:
    return float(state.net.state_dict()[f"{part}.value"])


def test_while_the_judge_is_alone_the_generator_learns_as_without_one(tmp_path):
    with_judge, _ = trained(tmp_path, phase(2))
    without, _ = trained(tmp_path, phase(2, adversary=None))
    assert value(with_judge, "maker") == value(without, "maker")


def test_from_the_next_step_on_the_generator_sees_it(tmp_path):
    _, figures = trained(tmp_path, phase(4))
    assert ["loss/fool" in one for one in figures] == [False, False, True, True]


def test_the_judge_learns_from_its_own_terms_from_the_first_step(tmp_path):
    state, figures = trained(tmp_path, phase(1))
    assert figures[0]["loss/verdict"] == pytest.approx(9.0)
    assert value(state, "judge") == pytest.approx(3.0 - 0.01)  # Adam's first step is its rate, downhill


def test_a_judge_that_moves_at_every_third_step_only(tmp_path):
    at = [value(trained(tmp_path, phase(n, replace(JUDGED, every=3)))[0], "judge") for n in (1, 2, 3, 5, 6)]
    assert at[:2] == [3.0, 3.0]
    assert at[2] == pytest.approx(3.0 - 0.01)  # on the gradient of the third step alone: Adam's first step
    assert at[3] == at[2] > at[4]


def test_a_judge_that_has_not_moved_yet_resumes(tmp_path):
    rarely = replace(JUDGED, every=4)
    straight, _ = trained(tmp_path, phase(6, rarely))
    tensors, about = trained(tmp_path, phase(2, rarely))[0].saved()
    resumed, _ = trained(tmp_path, phase(6, rarely), lambda state: state._restore(tensors, about))
    assert resumed.net.state_dict() == straight.net.state_dict()


class Spoilt(Duel):
    """From the third step on, the judge's own term is a number whose gradient is none."""

    def __init__(self, judged: bool) -> None:
        super().__init__(judged)
        self.steps = 0

    def terms(self, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        self.steps += 1
        spoilt = {"verdict": lambda: (self.net["judge"].value * 0).sqrt()}
        return super().terms(batch) | (spoilt if self.steps >= 3 else {})


def test_a_gradient_of_the_judge_that_is_no_number_stops_before_either_side_moves(tmp_path):
    asked = replace(job(tmp_path, phase(4)), build=partial(Spoilt, True), checkpoint_every=1)
    told = r"step 3: the discriminator's gradient is nan \(.*verdict 0\); clips of the batch: [ab]"
    with pytest.raises(FloatingPointError, match=told):
        train(asked, torch.device("cpu"))
    files = StepCheckpoints(str(tmp_path))
    assert files.newest(4) == 2
    assert all(tensor.isfinite().all() for tensor in files.load(2)[0].values())


def test_neither_side_has_moved_at_such_a_step(tmp_path):
    state = State(replace(job(tmp_path, phase(4)), build=partial(Spoilt, True)), torch.device("cpu"))
    with pytest.raises(FloatingPointError):
        list(loop.steps(state.job, state, torch.device("cpu"), 0, 1))
    assert state.step == 2
    assert all(float(state.judges_adam.state[p]["step"]) == 2 for p in state.judging.values())
    assert all(float(state.adam.state[p]["step"]) == 2 for p in state.parameters.values())


def test_the_total_is_the_generators(tmp_path):
    _, figures = trained(tmp_path, phase(3))
    assert figures[0]["loss/total"] == pytest.approx(figures[0]["loss/pixel"])
    expected = figures[2]["loss/pixel"] + 2 * figures[2]["loss/fool"]
    assert figures[2]["loss/total"] == pytest.approx(expected)


def test_both_optimisers_resume(tmp_path):
    straight, _ = trained(tmp_path, phase(6))
    half, _ = trained(tmp_path, phase(3))
    tensors, about = half.saved()
    resumed, _ = trained(tmp_path, phase(6), lambda state: state._restore(tensors, about))
    assert resumed.net.state_dict() == straight.net.state_dict()


def test_carry_goes_on_with_the_moments_of_the_phase_before(tmp_path):
    straight, _ = trained(tmp_path, phase(4, adversary=None))
    first, _ = trained(tmp_path, phase(2, adversary=None))
    tensors, about = first.saved()

    def begin(state: State) -> None:
        state._begin({name: tensor.clone() for name, tensor in tensors.items()}, about)
        state.step = 2  # the same samples as in one go

    carried, _ = trained(tmp_path, phase(4, adversary=None, start_from="first", carry=True), begin)
    assert value(carried, "maker") == value(straight, "maker")


def test_carry_brings_the_moments_of_judges_that_judged_before(tmp_path):
    straight, _ = trained(tmp_path, phase(8))
    tensors, about = trained(tmp_path, phase(5))[0].saved()

    def begin(state: State) -> None:
        state._begin({name: tensor.clone() for name, tensor in tensors.items()}, about)
        state.step = 5  # the same samples as in one go

    carried, _ = trained(tmp_path, phase(8, start_from="first", carry=True), begin)
    assert carried.net.state_dict() == straight.net.state_dict()


def test_moments_that_judges_brought_outlive_a_checkpoint_before_their_first_step(tmp_path):
    tensors, about = trained(tmp_path, phase(2))[0].saved()
    rarely = phase(6, replace(JUDGED, every=4), start_from="first", carry=True)

    def begin(state: State) -> None:
        state._begin({name: tensor.clone() for name, tensor in tensors.items()}, about)

    straight, _ = trained(tmp_path, rarely, begin)
    half = trained(tmp_path, replace(rarely, steps=3), begin)[0].saved()
    resumed, _ = trained(tmp_path, rarely, lambda state: state._restore(*half))
    assert resumed.net.state_dict() == straight.net.state_dict()


def test_the_clock_of_the_rate_goes_on_through_phases_and_restarts(tmp_path):
    """With fewer or more steps before, it shows fewer or more; the judge's is the generator's."""
    falling = Optim(lr=0.1, warmup=3, decay=0.5, decay_steps=4, start=None)
    judged = replace(JUDGED, optim=falling)
    _, straight = trained(tmp_path, phase(8, None, optim=falling))
    tensors, about = trained(tmp_path, phase(2, None, optim=falling))[0].saved()

    def begin(state: State) -> None:
        state._begin({name: tensor.clone() for name, tensor in tensors.items()}, about)

    later = phase(6, judged, optim=falling, start_from="first", carry=True)
    _, carried = trained(tmp_path, later, begin)
    half = trained(tmp_path, replace(later, steps=3), begin)[0].saved()
    resumed, again = trained(tmp_path, later, lambda state: state._restore(*half))
    rates = [[one["learning_rate"] for one in figures] for figures in (straight, carried, again)]
    assert rates[1] == rates[0][2:]
    assert rates[2] == rates[0][5:]
    assert resumed.judges_adam.param_groups[0]["lr"] == pytest.approx(rates[0][-1])


def test_a_phase_with_a_judge_starts_from_one_without(tmp_path):
    first, _ = trained(tmp_path, phase(2, adversary=None))
    tensors, about = first.saved()
    begun = State(job(tmp_path, phase(1, start_from="first", carry=True)), torch.device("cpu"))
    begun._begin(tensors, about)
    assert (value(begun, "maker"), value(begun, "judge")) == (value(first, "maker"), 3.0)


def test_checkpoints_remember_what_was_as_published(tmp_path):
    """So that a later phase which does without does not say that nobody used it."""
    state = State(job(tmp_path, phase(1)), torch.device("cpu"))
    state.labels = {"vgg19": "", "tokens": "none"}
    tensors, about = state.saved()
    assert about["labels"] == {"tokens": "none"}
    later = State(job(tmp_path, phase(1, start_from="first")), torch.device("cpu"))
    later.labels = {"vgg19": "not used"}
    later._begin(published(tensors), about)
    assert later.saved()[1]["labels"] == {"tokens": "none"}


def test_a_part_cannot_both_learn_and_judge():
    with pytest.raises(ValueError, match=r"phase toy: \['judge'\] cannot both learn and judge"):
        phase(1, train=("maker", "judge"))


def test_carry_needs_a_phase():
    with pytest.raises(ValueError, match=r"carry needs a phase to start from, found weights\.released"):
        phase(1, start_from="weights.released", carry=True)


def test_the_best_weights_are_those_of_the_highest_psnr(tmp_path):
    from safetensors.torch import load_file

    state, _ = trained(tmp_path, phase(1))
    store = Store(str(tmp_path))
    for psnr, at in ((20.0, 1.0), (22.0, 2.0), (21.0, 3.0)):
        with torch.no_grad():
            state.parameters["maker.value"].fill_(at)
        state.step = int(at)
        state.keep_best(store, psnr)
    assert state.best == (22.0, 2)
    assert float(load_file(tmp_path / best_name(2))["maker.value"]) == 2.0
    assert state.saved()[1]["best"] == [22.0, 2]


def test_a_start_that_is_not_there_names_the_node_to_run(tmp_path):
    state = State(job(tmp_path, phase(1, start_from="first")), torch.device("cpu"))
    told = r"no weights of train\.duel\.first .*: `reenact run RUN\.yaml --only train\.duel\.first`"
    with pytest.raises(UserError, match=told):
        state.resume(StepCheckpoints(str(tmp_path)), None)


def test_frozen_parts_that_nothing_brings_are_refused(tmp_path):
    state = State(job(tmp_path, phase(1, adversary=None)), torch.device("cpu"))
    with pytest.raises(InvalidSettings, match=r"starts from nothing, but does not train \['judge'\]"):
        state.resume(StepCheckpoints(str(tmp_path)), None)
