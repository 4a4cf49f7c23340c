import pytest
import torch

from storage import checkpoints
from storage.checkpoints import StepCheckpoints
from storage.errors import DamagedFile, InvalidInput

TENSORS = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor(3, dtype=torch.int64)}
ABOUT = {"step": 4, "provenance": {"z": "1", "a": "2"}, "sizes": [1, 2]}


def test_what_is_saved_comes_back(tmp_path):
    checkpoints.save_checkpoint(tmp_path / "x", TENSORS, ABOUT)
    tensors, about = checkpoints.load_checkpoint(tmp_path / "x")
    assert about == ABOUT
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_bytes_do_not_depend_on_order_or_memory_format(tmp_path):
    image = torch.rand(2, 3, 4, 4)
    last = image.contiguous(memory_format=torch.channels_last)
    checkpoints.save_checkpoint(tmp_path / "x", {**TENSORS, "i": image}, ABOUT)
    checkpoints.save_checkpoint(
        tmp_path / "y", {"i": last, **dict(reversed(TENSORS.items()))}, dict(reversed(ABOUT.items()))
    )
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_a_torn_or_foreign_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    checkpoints.save_checkpoint(tmp_path / "x", TENSORS, ABOUT)
    (tmp_path / "torn").write_bytes((tmp_path / "x").read_bytes()[:-3])
    with pytest.raises(DamagedFile, match="torn is not a whole safetensors file"):
        checkpoints.load_checkpoint(tmp_path / "torn")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(InvalidInput, match="was not written here"):
        checkpoints.load_checkpoint(tmp_path / "foreign")


def test_the_last_checkpoints_are_kept(tmp_path):
    files = StepCheckpoints(str(tmp_path / "work"), keep=2)
    assert files.latest_step_up_to(10) is None
    for step in (2, 4, 6):
        files.save(step, TENSORS, {"step": step})
    assert files.steps() == [4, 6]
    assert files.latest_step_up_to(10) == 6
    assert files.latest_step_up_to(5) == 4  # fewer steps asked for than are there
    assert files.load(4)[1] == {"step": 4}


def test_a_file_in_the_making_is_not_a_checkpoint(tmp_path):
    files = StepCheckpoints(str(tmp_path))
    (tmp_path / ".step-000000009.safetensors.1234").write_bytes(b"half")
    assert files.latest_step_up_to(10) is None
