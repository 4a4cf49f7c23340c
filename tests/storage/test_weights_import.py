"""A publisher's checkpoint as safetensors: tensors alone, and nothing in the file is run."""

import argparse
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.io import savemat

from models.weights import find_third_party_weights
from storage.errors import InvalidInput
from storage.weights_import import convert_checkpoint_to_safetensors
from tests.storage.weights_files import (
    SmallNet,
    equal_states,
    malicious_objects,
    onnx_model,
    onnx_tensor,
    save_malicious,
    save_torchscript,
)


@pytest.mark.parametrize("zipped", [True, False])
def test_numpys_numbers_in_a_checkpoint_are_left_behind(tmp_path, zipped):
    file = tmp_path / "model.pth.tar"
    scores = {"loss_val_best": np.float64(23.5), "it": np.int64(7), "worst": -np.inf, "run_id": None}
    torch.save({"a": torch.ones(2), **scores}, file, _use_new_zipfile_serialization=zipped)
    assert convert_checkpoint_to_safetensors(file, tmp_path / "out")["tensors"] == 1
    assert list(load_file(tmp_path / "out")) == ["a"]


def test_numpys_own_functions_are_never_called(tmp_path):
    """A file may ask for a dtype of objects, or for an array of them: the one is not made, the other is
    refused."""
    torch.save({"a": torch.ones(2), "b": np.dtype("O")}, tmp_path / "dtype.pt")
    assert convert_checkpoint_to_safetensors(tmp_path / "dtype.pt", tmp_path / "out")["tensors"] == 1
    torch.save({"a": torch.ones(2), "b": np.array([{}], object)}, tmp_path / "array.pt")
    with pytest.raises(InvalidInput, match=r"tensors alone: an array of 'O8', expected numbers"):
        convert_checkpoint_to_safetensors(tmp_path / "array.pt", tmp_path / "out")


@pytest.mark.parametrize("zipped", [True, False])
def test_numpys_arrays_and_argparses_settings_in_a_checkpoint_do_not_stop_the_import(tmp_path, zipped):
    """The arrays come in, the settings stay behind."""
    opts = argparse.Namespace(lr=1e-4, path="/data", device=None)
    value = {"latent_avg": np.arange(6, dtype=np.float32).reshape(2, 3), "state_dict": {"w": torch.ones(2)}}
    torch.save(value | {"opts": opts}, tmp_path / "e4e.pt", _use_new_zipfile_serialization=zipped)
    assert convert_checkpoint_to_safetensors(tmp_path / "e4e.pt", tmp_path / "out")["tensors"] == 2
    found = load_file(tmp_path / "out")
    assert found["latent_avg"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["state_dict.w"].tolist() == [1, 1]


STATE = SmallNet().state_dict()


def save_state(path: Path) -> None:
    """STATE in the format that the suffix stands for."""
    arrays = {name: one.numpy() for name, one in STATE.items()}
    name = path.name
    if name.startswith("script"):
        save_torchscript(path, SmallNet())
    elif name.endswith(".safetensors"):
        save_file(dict(STATE), path)
    elif name.endswith(".npz"):
        np.savez(path, allow_pickle=False, **arrays)
    elif name.endswith(".pkl"):
        path.write_bytes(pickle.dumps(arrays))
    elif name.endswith(".onnx"):
        path.write_bytes(onnx_model(*(onnx_tensor(one, array) for one, array in arrays.items())))
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=not name.startswith("legacy"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("net.safetensors", "safetensors"), ("net.pth", "torch"), ("net.pth.tar", "torch"),
        ("legacy.model", "torch"), ("script.pt", "torchscript"),
        ("net.npz", "numpy"), ("net.pkl", "pickle"), ("net.onnx", "onnx"),
    ],
)  # fmt: skip
def test_the_same_tensors_come_out_of_every_format(tmp_path, name, kind):
    save_state(tmp_path / name)
    assert convert_checkpoint_to_safetensors(tmp_path / name, tmp_path / "out")["format"] == kind
    assert equal_states(load_file(tmp_path / "out"), STATE)


def test_matlabs_arrays_are_imported(tmp_path):
    savemat(tmp_path / "x.mat", {"shapePC": np.arange(6.0).reshape(2, 3)})
    assert convert_checkpoint_to_safetensors(tmp_path / "x.mat", tmp_path / "out")["format"] == "matlab"
    assert load_file(tmp_path / "out")["shapePC"].shape == (2, 3)


@pytest.mark.parametrize("saved", ["torch zip", "torch legacy"])
def test_torchs_own_files_are_known_by_content_where_they_are_called_pkl(tmp_path, saved):
    torch.save(STATE, tmp_path / "x.pkl", _use_new_zipfile_serialization=saved == "torch zip")
    assert convert_checkpoint_to_safetensors(tmp_path / "x.pkl", tmp_path / "out")["format"] == "torch"


def test_what_would_run_something_is_refused_in_every_format_and_runs_nothing(tmp_path):
    """Each by the process that imports weights, and where nothing runs no file appears."""
    marker = tmp_path / "ran"
    for name, value in malicious_objects(marker).items():
        folder = tmp_path / name
        folder.mkdir()
        for kind, file in save_malicious(folder, value).items():
            with pytest.raises(InvalidInput, match=r"^not a [^\n]*$"):
                convert_checkpoint_to_safetensors(file, folder / "out")
            assert not marker.exists(), (name, kind)
            assert not (folder / "out").exists(), (name, kind)


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, left out or put in."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at, some = int(rng.integers(len(out))), rng.bytes(int(rng.integers(1, 5)))
        out[at : at + int(rng.integers(0, 9))] = some
    return bytes(out)


@pytest.mark.parametrize("name", ["script.pt", "net.npz", "net.pkl", "net.onnx"])
def test_a_damaged_file_is_read_or_refused_and_nothing_else_is_raised(tmp_path, name):
    save_state(tmp_path / name)
    whole, rng = (tmp_path / name).read_bytes(), np.random.default_rng(0)
    for _ in range(100):
        (tmp_path / f"x{name}").write_bytes(damaged(whole, rng))
        with suppress(InvalidInput):
            convert_checkpoint_to_safetensors(tmp_path / f"x{name}", tmp_path / "out")


@pytest.mark.parametrize("kind", ["torch zip", "torch legacy", "pickle", "TorchScript"])
def test_what_a_file_calls_is_named(tmp_path, kind):
    file = save_malicious(tmp_path, malicious_objects(tmp_path / "ran")["os.system"])[kind]
    with pytest.raises(InvalidInput, match=r"alone: it calls posix\.system$"):
        convert_checkpoint_to_safetensors(file, tmp_path / "out")


def test_the_same_files_do_run_where_a_reader_trusts_them(tmp_path):
    """So that the test above tests something."""
    for name in malicious_objects(tmp_path):
        marker = tmp_path / f"ran_{name}"
        pickle.loads(pickle.dumps({"a": malicious_objects(marker)[name]}))
        assert marker.exists(), name


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
