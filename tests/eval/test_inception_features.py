from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.perception.inception_fid import InceptionFidLayers, load_inception_fid
from pipelines.eval import inception_features as inception
from pipelines.eval.inception_features import (
    compute_inception_features_clean,
    compute_inception_features_pt,
    inception_features,
)
from tests.shape_files import filled

RUNTIME = SimpleNamespace(gpu_share=0, net_batch=0, net_compile=False)
STAGES = {"pt": compute_inception_features_pt, "clean": compute_inception_features_clean}


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(filled(InceptionFidLayers(), "hash").state_dict(), path)
    return load_inception_fid({"inception_fid": path})


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def test_frames_of_any_size_have_2048_features_each_whatever_the_batch(net, frames, monkeypatch):
    found = inception_features(net, frames, "pt")
    assert (found.shape, found.dtype) == ((3, 2048), np.float32)
    monkeypatch.setitem(inception.FRAMES_PER_BATCH, "cpu", 1)
    np.testing.assert_allclose(inception_features(net, frames, "pt"), found, rtol=1e-4, atol=1e-5)


def test_each_stage_resizes_in_its_own_way(net, frames, unit_samples):
    inputs = {"generated": unit_samples([{"__key__": "p", "frames": frames[:1]}])}
    found = {}
    for resize, stage in STAGES.items():
        (sample,) = stage(inputs, None, {"inception_fid": net}, RUNTIME)
        assert set(sample) == {"__key__", "pool_features"}
        found[resize] = sample["pool_features"]
        np.testing.assert_allclose(found[resize], inception_features(net, frames[:1], resize))
    assert np.abs(found["pt"] - found["clean"]).max() > 1e-4


@pytest.mark.parametrize("stage", STAGES.values())
def test_without_the_net_its_weights_are_named(unit_samples, stage):
    inputs = {"generated": unit_samples([{"__key__": "p"}])}  # no frame is decoded for it
    (found,) = stage(inputs, None, {}, RUNTIME)
    assert found == {"__key__": "p", "needs": {"weights": "inception_fid"}}
