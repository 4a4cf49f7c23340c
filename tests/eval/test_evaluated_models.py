"""Checkpoints that pairs are generated with: of a phase, and of released weights alone."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from msgspec import to_builtins
from safetensors.torch import save_file

from models.fsrt.config import FsrtConfig, TrainingSampleConfig, tiny_architecture
from models.fsrt.network import Fsrt
from models.fsrt.released import export_released_format
from models.reenactor import ClipFrames
from models.weights import find_third_party_weights
from pipelines.eval.evaluated_models import load_evaluated_model, publish_released_weights
from storage.errors import InvalidInput
from storage.files import Store
from storage.weight_files import import_weights


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Fsrt(tiny_architecture())


@pytest.fixture(scope="module")
def checkpoint(net, tmp_path_factory):
    """Of the tiny FSRT with initial weights."""
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    about = {
        "model": "fsrt",
        "architecture": to_builtins(tiny_architecture()),
        "provenance": {"kp_detector": "random"},
    }
    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    save_file(state, path, metadata={"reenact": json.dumps(about)})
    return path


class Clip:
    key, length = "ann#rec#0#9", 3

    def frames(self, indices):
        return np.full((len(indices), 64, 64, 3), 90, np.uint8)


def test_a_checkpoint_drives_a_clip(checkpoint):
    reenactor = load_evaluated_model({"renderer": checkpoint}).load_reenactor({}, "cpu")
    assert reenactor.drive(ClipFrames(Clip(), [0]), ClipFrames(Clip(), [1, 2])).shape == (2, 64, 64, 3)
    assert reenactor.provenance == {"kp_detector": "random"}


def test_a_model_is_loaded_once_a_worker(checkpoint):
    model = load_evaluated_model({"renderer": checkpoint})
    assert model.load_reenactor({}, "cpu") is model.load_reenactor({}, "cpu")


def test_a_model_is_handed_the_nets_that_it_needs_and_no_others(checkpoint, monkeypatch):
    received = []
    fake = SimpleNamespace(nets=("head",), set_frozen_nets=received.append)
    monkeypatch.setattr("models.loading.load_reenactor", lambda *args: fake)
    load_evaluated_model({"renderer": checkpoint}).load_reenactor({"head": 1, "dlib68": 2}, "cpu")
    assert received == [{"head": 1}]


# --- released weights ---------------------------------------------------------------------------------------
@pytest.fixture
def recordings_of_a_store(tmp_path):
    return SimpleNamespace(store=Store(str(tmp_path / "store")))


@pytest.mark.usefixtures("quick_imports")
def test_released_weights_are_published_as_a_checkpoint_that_drives(
    net, tmp_path, recordings_of_a_store, make_context
):
    about = {"model": "fsrt", "phase": "adversarial", "architecture": to_builtins(tiny_architecture())}
    detector, file = export_released_format(net.state_dict(), about, tmp_path)
    for weights, path in (("fsrt_kp", detector), ("fsrt_vox", file)):
        import_weights(recordings_of_a_store.store, find_third_party_weights(weights), path, accept=True)
    (tmp_path / "out").mkdir()
    config = SimpleNamespace(
        section=FsrtConfig(net=tiny_architecture(), sampling=TrainingSampleConfig(queries=64))
    )
    context = make_context(
        node="release.fsrt", config=config, inputs={"recordings": recordings_of_a_store}, out=tmp_path / "out"
    )
    publish_released_weights(context, "fsrt", "fsrt_vox")
    reenactor = load_evaluated_model({"renderer": tmp_path / "out" / "model.safetensors"}).load_reenactor(
        {}, "cpu"
    )
    assert reenactor.drive(ClipFrames(Clip(), [0]), ClipFrames(Clip(), [1])).shape == (1, 64, 64, 3)
    assert set(reenactor.provenance.values()) == {"from fsrt_vox", "from fsrt_kp"}


def test_released_weights_that_are_not_there_name_how_to_import_them(
    recordings_of_a_store, make_context, tmp_path
):
    inputs = {"recordings": recordings_of_a_store}
    context = make_context(node="release.fsrt", config=None, inputs=inputs, out=tmp_path)
    with pytest.raises(InvalidInput, match="reenact weights import fsrt_vox FILE"):
        publish_released_weights(context, "fsrt", "fsrt_vox")
