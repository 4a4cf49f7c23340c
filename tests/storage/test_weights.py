"""The weights registry: tensors only, pinned by digest, and clear about what is missing."""

import pickle

import pytest
import torch
from safetensors.torch import load_file

from storage import locations, weights
from storage.files import Store


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def test_a_nested_checkpoint_becomes_flat_safetensors(store, tmp_path):
    net = torch.nn.Linear(3, 2)
    file = tmp_path / "vox256.pt"
    torch.save({"encoder": net.state_dict(), "epoch_it": 3, "optimizer": {"state": {0: {"step": 1}}}}, file)
    record = weights.import_file(store, "fsrt_vox", file)
    loaded = load_file(weights.path_of(store, "fsrt_vox"))
    assert sorted(loaded) == ["encoder.bias", "encoder.weight"]
    assert torch.equal(loaded["encoder.weight"], net.weight)
    assert weights.pinned(store, "fsrt_vox") == record["sha256"]
    assert weights.verify(store, "fsrt_vox") == "ok"


def test_a_checkpoint_with_code_is_refused_and_not_run(store, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    file = tmp_path / "evil.pt"
    with file.open("wb") as stream:
        pickle.dump({"a": Evil()}, stream)
    with pytest.raises(ValueError, match="cannot be imported as fsrt_vox"):
        weights.import_file(store, "fsrt_vox", file)
    assert not (tmp_path / "ran").exists()


def test_another_file_under_the_same_id_is_refused(store, tmp_path):
    for i in (1, 2):
        torch.save({"a": torch.full((2,), float(i))}, tmp_path / f"{i}.pt")
    weights.import_file(store, "fsrt_kp", tmp_path / "1.pt")
    with pytest.raises(ValueError, match="pinned to a file with sha256"):
        weights.import_file(store, "fsrt_kp", tmp_path / "2.pt")


def test_a_changed_file_does_not_verify(store, tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "1.pt")
    weights.import_file(store, "fsrt_kp", tmp_path / "1.pt")
    store.write(locations.weights("fsrt_kp", "safetensors"), b"other")
    assert "expected" in weights.verify(store, "fsrt_kp")


def test_missing_weights_say_where_to_get_them(store):
    with pytest.raises(
        FileNotFoundError, match=r"get vox256.pt from andrerochow/fsrt, then `reenact weights import"
    ):
        weights.path_of(store, "fsrt_vox")


def test_unknown_ids_name_the_known(store):
    with pytest.raises(ValueError, match="no weights 'nope'; known: dlib_sp68"):
        weights.pinned(store, "nope")


def test_the_wheels_hold_what_the_registry_pins(store):
    for name in ("dlib_sp5", "dlib_mmod"):
        assert weights.verify(store, name) == "ok"
