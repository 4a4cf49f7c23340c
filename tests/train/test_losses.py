"""Which terms are computed at a step, with which weights, and what they add up to."""

import pytest
import torch
from torch import nn

from models.api import Loss, Update
from models.errors import InvalidSettings
from models.task import StatelessTask, TrainStep
from pipelines.train.losses import PassLosses, compute_losses
from tests.models.one_pass import one_update, shared_pass


def pass_losses(task, losses: dict[str, Loss | None], step: int = 1) -> PassLosses:
    return shared_pass(task, one_update(parts=("a",), losses={"first": Loss(1.0)} | losses), {}, step)


class TwoLosses(StatelessTask):
    def __init__(self) -> None:
        self.net = nn.ModuleDict(
            {"a": nn.Linear(1, 1), "b": nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1))}
        )
        self.called: list[str] = []

    def losses(self, batch, step):
        def term(name, value):
            self.called.append(name)
            return value()

        x = torch.ones(2, 1)
        return {
            "first": lambda: term("first", lambda: self.net["a"](x).square().mean()),
            "second": lambda: term("second", lambda: torch.log(self.net["a"](x) - 1e9).mean()),  # NaN
            "third": lambda: term("third", lambda: self.net["b"](x).mean()),
        }


def test_total_is_the_weighted_sum():
    task = TwoLosses()
    found = pass_losses(task, {"first": Loss(2.0), "third": Loss(0.5)})
    expected = 2 * found.terms["first"].item() + 0.5 * found.terms["third"].item()
    assert found.loss.item() == found.totals["generator"].item() == pytest.approx(expected)


def test_weight_zero_is_logged_without_gradient_and_absent_is_not_computed():
    task = TwoLosses()
    found = pass_losses(task, {"second": Loss(0.0), "third": None})
    assert task.called == ["first", "second"]
    assert torch.isnan(found.terms["second"])
    found.loss.backward()
    assert torch.isfinite(task.net["a"].weight.grad).all()  # the NaN term left no trace


def test_a_name_the_task_does_not_know_is_an_error_naming_both():
    with pytest.raises(
        InvalidSettings,
        match=r"weighs losses \['pixle'\], but its task computes \['first', 'second', 'third'\]",
    ):
        pass_losses(TwoLosses(), {"pixle": Loss(1.0)})


def test_a_term_of_weight_zero_that_the_task_cannot_compute_is_left_out():
    found = pass_losses(TwoLosses(), {"perceptual": Loss(0.0)})
    assert list(found.terms) == ["first"]


@pytest.mark.parametrize(
    ("loss", "weights"),
    [
        (Loss(2.0, start=2), [None, None, 2.0, 2.0, 2.0, 2.0]),
        (Loss(2.0, every=3), [None, None, 2.0, None, None, 2.0]),
        (Loss(2.0, start=1, ramp=4), [None, 0.5, 1.0, 1.5, 2.0, 2.0]),
    ],
)
def test_a_term_sets_in_and_rises_by_steps(loss, weights):
    assert [loss.weight_at(step) for step in range(1, 7)] == weights


def test_a_term_that_is_not_due_is_not_computed():
    task = TwoLosses()
    pass_losses(task, {"third": Loss(1.0, every=4)}, step=3)
    assert task.called == ["first"]


def test_an_update_that_does_not_move_is_logged_without_gradient():
    task = TwoLosses()
    updates = {
        "g": Update(parts={"a": 1.0}, losses={"first": Loss(1.0)}),
        "d": Update(parts={"b": 1.0}, losses={"third": Loss(1.0)}, every=2),
    }
    found = compute_losses(task, {}, TrainStep(1, "", torch.Generator()), updates)
    assert set(found.terms) == {"first", "third"}
    found.loss.backward()
    assert all(p.grad is None for p in task.net["b"].parameters())
