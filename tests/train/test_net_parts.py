import pytest
from torch import nn

from models.errors import InvalidSettings
from pipelines.train.net_parts import freeze_other_parts, set_train_and_eval_modes


@pytest.fixture
def net() -> nn.ModuleDict:
    return nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1))})


def test_only_named_parts_learn(net):
    parameters = freeze_other_parts(net, ("a",))
    assert sorted(parameters) == ["a.bias", "a.weight"]
    assert not any(p.requires_grad for p in net["b"].parameters())
    set_train_and_eval_modes(net, ("a",))
    assert net["a"].training
    assert not net["b"][0].training  # frozen BatchNorm keeps its statistics


def test_an_unknown_part_is_an_error_naming_the_parts(net):
    with pytest.raises(
        InvalidSettings, match=r"trains \['decodr'\], but the parts of the net are \['a', 'b'\]"
    ):
        freeze_other_parts(net, ("decodr",))
