"""What a checkpoint's file must hold, and the net that its tensors fill."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.checkpoint import Checkpoint, read_checkpoint
from models.errors import InvalidFile

TENSORS = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
METADATA = {"model": "toy", "phase": "main"}


def toy(tensors=TENSORS, metadata=METADATA) -> Checkpoint:
    return Checkpoint(tensors=tensors, metadata=metadata, name="toy.safetensors")


def test_a_file_is_read_with_its_metadata(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path, metadata={"reenact": json.dumps(METADATA)})
    found = read_checkpoint(path)
    assert found.metadata == METADATA
    assert found.name == str(path)
    assert {name: tensor.tolist() for name, tensor in found.tensors.items()} == {
        name: tensor.tolist() for name, tensor in TENSORS.items()
    }


def test_half_precision_becomes_float32_and_counters_stay():
    class Counting(nn.Linear):
        def __init__(self):
            super().__init__(3, 2)
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    half = {name: tensor.half() for name, tensor in TENSORS.items()} | {"steps": torch.tensor(7)}
    net = toy(half).load_net(Counting)
    assert net.weight.dtype == torch.float32
    assert net.state_dict()["steps"].item() == 7


def test_parts_that_only_training_needs_are_left_out():
    more = TENSORS | {"discriminator.weight": torch.ones(1)}
    assert set(toy(more).load_net(lambda: nn.Linear(3, 2), ("discriminator.",)).state_dict()) == set(TENSORS)
    with pytest.raises(
        InvalidFile, match=r"toy.safetensors does not fit toy .* unknown: discriminator.weight"
    ):
        toy(more).load_net(lambda: nn.Linear(3, 2))


def test_a_net_of_another_shape_is_refused_before_anything_is_allocated():
    with pytest.raises(
        InvalidFile, match=r"does not fit toy as its metadata describes it: .*of another shape"
    ):
        toy().load_net(lambda: nn.Linear(10**7, 10**7))


@pytest.mark.parametrize("error", [TypeError("a"), KeyError("a"), InvalidFile("a"), OverflowError("a")])
def test_metadata_that_describes_no_net_is_refused(error):
    def fail(metadata):
        raise error

    with pytest.raises(
        InvalidFile, match=r"toy.safetensors: its metadata describes no net that is known here"
    ):
        toy().parse_metadata(fail)
