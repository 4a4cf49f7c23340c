import pytest
import torch
from torch import nn

from models.api import Phase
from models.errors import InvalidSettings
from pipelines.train.objective import Objective, choose_parts, learn


def phase(losses: dict[str, float | None]) -> Phase:
    return Phase(name="toy", steps=1, batch=1, train=("a",), losses=losses)


class TwoLosses:
    def __init__(self) -> None:
        self.net = nn.ModuleDict(
            {"a": nn.Linear(1, 1), "b": nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1))}
        )
        self.called: list[str] = []

    def terms(self, batch):
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
    total, _, shown = Objective(task, phase({"first": 2.0, "third": 0.5}))({}, 1)
    assert total.item() == pytest.approx(2 * shown["first"].item() + 0.5 * shown["third"].item())


def test_weight_zero_is_logged_without_gradient_and_absent_is_not_computed():
    task = TwoLosses()
    total, _, shown = Objective(task, phase({"first": 1.0, "second": 0.0, "third": None}))({}, 1)
    assert task.called == ["first", "second"]
    assert torch.isnan(shown["second"])
    total.backward()
    assert torch.isfinite(task.net["a"].weight.grad).all()  # the NaN term left no trace


def test_a_name_the_task_does_not_know_is_an_error_naming_both():
    with pytest.raises(
        InvalidSettings,
        match=r"weighs losses \['pixle'\], but its task computes \['first', 'second', 'third'\]",
    ):
        Objective(TwoLosses(), phase({"pixle": 1.0}))({}, 1)


def test_a_term_of_weight_zero_that_the_task_cannot_compute_is_left_out():
    _, _, shown = Objective(TwoLosses(), phase({"first": 1.0, "perceptual": 0.0}))({}, 1)
    assert list(shown) == ["first"]


def test_only_named_parts_learn():
    net = TwoLosses().net
    parameters = choose_parts(net, ("a",))
    assert sorted(parameters) == ["a.bias", "a.weight"]
    assert not any(p.requires_grad for p in net["b"].parameters())
    learn(net, ("a",))
    assert net["a"].training
    assert not net["b"][0].training  # frozen BatchNorm keeps its statistics


def test_an_unknown_part_is_an_error_naming_the_parts():
    with pytest.raises(
        InvalidSettings, match=r"trains \['decodr'\], but the parts of the net are \['a', 'b'\]"
    ):
        choose_parts(TwoLosses().net, ("decodr",))
