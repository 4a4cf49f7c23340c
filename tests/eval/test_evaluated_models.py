"""Checkpoints that pairs are generated with: of a phase, and of released weights alone."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.fsrt.config import tiny
from models.fsrt.network import Fsrt
from models.reenactor import ClipFrames
from pipelines.eval.evaluated_models import load


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Fsrt(tiny())


@pytest.fixture(scope="module")
def checkpoint(net, tmp_path_factory):
    """Of the tiny FSRT with initial weights."""
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    about = {"model": "fsrt", "architecture": asdict(tiny()), "labels": {"kp_detector": "random"}}
    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    save_file(state, path, metadata={"reenact": json.dumps(about)})
    return path


class Clip:
    key, length = "ann#rec#0#9", 3

    def frames(self, indices):
        return np.full((len(indices), 64, 64, 3), 90, np.uint8)


def test_a_checkpoint_drives_a_clip(checkpoint):
    reenactor = load({"renderer": checkpoint}).ready({}, "cpu")
    assert reenactor.drive(ClipFrames(Clip(), [0]), ClipFrames(Clip(), [1, 2])).shape == (2, 64, 64, 3)
    assert reenactor.labels == {"kp_detector": "random"}


def test_a_model_is_loaded_once_a_worker(checkpoint):
    model = load({"renderer": checkpoint})
    assert model.ready({}, "cpu") is model.ready({}, "cpu")


def test_a_model_is_handed_the_nets_that_it_needs_and_no_others(checkpoint, monkeypatch):
    received = []
    fake = SimpleNamespace(needs=("head",), use=received.append)
    monkeypatch.setattr("models.checkpoint.load_reenactor", lambda *args: fake)
    load({"renderer": checkpoint}).ready({"head": 1, "dlib68": 2}, "cpu")
    assert received == [{"head": 1}]
