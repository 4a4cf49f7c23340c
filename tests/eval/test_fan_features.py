from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.eval.fan_features import FAN_NET_WEIGHTS, compute_fan_landmarks

RUNTIME = SimpleNamespace(gpu_share=0, net_batch=0, net_compile=False)


def features(unit_samples, frames, nets):
    inputs = {"generated": unit_samples([{"__key__": "p", "frames": frames}])}
    (found,) = compute_fan_landmarks(inputs, None, nets, RUNTIME)
    return found


def test_landmarks_are_nan_where_the_detector_finds_no_face(bright_faces, unit_samples):
    frames = np.stack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 200, np.uint8)])
    bright_faces.darkest = 1.0
    found = features(unit_samples, frames, {"s3fd": bright_faces, "fan2d": bright_faces})
    assert np.isfinite(found["landmarks"]).all(axis=(1, 2)).tolist() == [False, True]
    assert (found["landmarks"].shape, found["__key__"]) == ((2, 68, 2), "p")


@pytest.mark.parametrize("missing", FAN_NET_WEIGHTS)
def test_a_net_whose_weights_are_missing_is_named(bright_faces, unit_samples, missing):
    nets = {name: bright_faces for name in FAN_NET_WEIGHTS if name != missing}
    found = features(unit_samples, np.zeros((1, 8, 8, 3), np.uint8), nets)
    assert found == {"__key__": "p", "needs": {"weights": FAN_NET_WEIGHTS[missing]}}
