"""A publisher's checkpoint as safetensors: tensors alone, and nothing in the file is run."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.weights import find_third_party_weights
from storage.errors import InvalidInput
from storage.weights_import import convert_checkpoint_to_safetensors


@pytest.mark.parametrize("zipped", [True, False])
def test_numpys_numbers_in_a_checkpoint_are_left_behind(tmp_path, zipped):
    file = tmp_path / "model.pth.tar"
    scores = {"loss_val_best": np.float64(23.5), "it": np.int64(7), "worst": -np.inf, "run_id": None}
    torch.save({"a": torch.ones(2), **scores}, file, _use_new_zipfile_serialization=zipped)
    assert convert_checkpoint_to_safetensors(file, tmp_path / "out")["tensors"] == 1
    assert list(load_file(tmp_path / "out")) == ["a"]


def test_numpys_own_functions_are_never_called(tmp_path):
    """A file may ask for a dtype of objects, or for an array: the one is not made, the other is refused."""
    torch.save({"a": torch.ones(2), "b": np.dtype("O")}, tmp_path / "dtype.pt")
    assert convert_checkpoint_to_safetensors(tmp_path / "dtype.pt", tmp_path / "out")["tensors"] == 1
    torch.save({"a": torch.ones(2), "b": np.ones(3)}, tmp_path / "array.pt")
    with pytest.raises(InvalidInput, match=r"not a file of tensors alone: it calls numpy\..*_reconstruct"):
        convert_checkpoint_to_safetensors(tmp_path / "array.pt", tmp_path / "out")


def test_what_no_net_of_ours_is_stays_behind(tmp_path):
    state = {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4)}}
    adam = {"state": state, "param_groups": [{"params": [0]}]}
    torch.save(
        {"encoder": {"w": torch.ones(2)}, "optimizer": adam, "optimizer_disc": adam}, tmp_path / "x.pt"
    )
    facts = convert_checkpoint_to_safetensors(
        tmp_path / "x.pt", tmp_path / "out", drop_prefixes=find_third_party_weights("fsrt_vox").drop_prefixes
    )
    assert facts["left"] == ["optimizer", "optimizer_disc"]
    assert list(load_file(tmp_path / "out")) == ["encoder.w"]


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", pickle.dumps([1, 2])])
def test_what_is_no_checkpoint_is_said_in_a_line(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"^not a file of tensors alone: it is cut off, or in no [^\n]*$"):
        convert_checkpoint_to_safetensors(tmp_path / "x.pt", tmp_path / "out")


def test_what_is_no_safetensors_file_is_said_in_a_line(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"<html>not found</html>")
    with pytest.raises(InvalidInput, match=r"^not a file of tensors alone: [^\n]*$"):
        convert_checkpoint_to_safetensors(tmp_path / "x.safetensors", tmp_path / "out")


def test_two_tensors_of_one_name_are_refused(tmp_path):
    torch.save({"a": {"b.c": torch.ones(1)}, "a.b": {"c": torch.zeros(1)}}, tmp_path / "x.pt")
    with pytest.raises(InvalidInput, match=r"two tensors would be called a\.b\.c"):
        convert_checkpoint_to_safetensors(tmp_path / "x.pt", tmp_path / "out")
