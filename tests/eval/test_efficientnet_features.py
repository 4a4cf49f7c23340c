from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.data import astronaut

from models.perception.efficientnet_lite0 import load_efficientnet_lite0
from models.weights import find_third_party_weights
from pipelines.eval import efficientnet_features as efficientnet
from pipelines.eval.efficientnet_features import compute_efficientnet_features, efficientnet_features
from storage.weight_files import find_packaged_file

FACE = astronaut()[20:276, 96:352]
RUNTIME = SimpleNamespace(gpu_share=0, net_batch=0, net_compile=False)


@pytest.fixture(scope="module")
def net():
    weights = find_third_party_weights("efficientnet_lite0")
    return load_efficientnet_lite0({"efficientnet_lite0": find_packaged_file(weights)})


def blurred(sigma):
    return gaussian_filter(FACE.astype(np.float64), (sigma, sigma, 0)).round().astype(np.uint8)


def test_a_frame_is_no_distance_from_itself_and_further_from_blurrier_ones(net):
    frames = np.stack([FACE, *(blurred(sigma) for sigma in (0.5, 1, 2))])
    distance = efficientnet_features(net, frames, np.repeat(FACE[None], 4, axis=0))["map_distance"]
    assert distance[0] == 0
    assert (np.diff(distance) > 0).all()
    assert 0.05 < distance[2] < 0.2  # .099 in the mean over 16 real frames


def test_a_single_picture_is_compared_with_every_frame_of_the_truth(net, monkeypatch):
    monkeypatch.setattr(efficientnet, "FRAMES_PER_BATCH", 2)
    truth = np.stack([FACE[::-1], FACE[:, ::-1], blurred(1)])
    found = efficientnet_features(net, FACE[None], truth)
    assert (found["head_features"].shape, found["map_distance"].shape) == ((1, 1280), (3,))
    every = efficientnet_features(net, np.repeat(FACE[None], 3, axis=0), truth)["map_distance"]
    assert found["map_distance"] == pytest.approx(every, abs=1e-6)


def test_features_of_frames_of_any_size_are_means_over_positions_of_the_maps_of_256_px(net):
    found = efficientnet_features(net, FACE[None, ::4, ::4], None)
    assert set(found) == {"head_features", "block_features"}
    assert found["head_features"].min() >= 0  # after a ReLU6
    assert found["head_features"].max() <= 6
    assert found["block_features"].min() < 0 < found["block_features"].max()


def test_the_stage_gives_a_distance_where_there_is_a_truth(net, unit_samples):
    pair = {"__key__": "p", "frames": FACE[None]}
    inputs = {"generated": unit_samples([pair])}
    (alone,) = compute_efficientnet_features(inputs, None, {"efficientnet_lite0": net}, RUNTIME)
    assert set(alone) == {"__key__", "head_features", "block_features"}
    inputs["truth"] = unit_samples([{"__key__": "p", "frames": FACE[None]}])
    (both,) = compute_efficientnet_features(inputs, None, {"efficientnet_lite0": net}, RUNTIME)
    assert both["map_distance"] == pytest.approx(np.zeros(1), abs=1e-9)


def test_without_the_net_its_weights_are_named(unit_samples):
    inputs = {"generated": unit_samples([{"__key__": "p", "frames": FACE[None]}])}
    (found,) = compute_efficientnet_features(inputs, None, {}, RUNTIME)
    assert found == {"__key__": "p", "needs": {"weights": "efficientnet_lite0"}}
