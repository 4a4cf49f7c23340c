from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from models.perception.head import deca
from pipelines.eval.deca_features import compute_deca_coefficients
from pipelines.eval.features import MESH_LANDMARKS_FEATURE
from tests.shape_files import saying

RUNTIME = SimpleNamespace(gpu_share=0, net_batch=0, net_compile=False)


@pytest.fixture(scope="module")
def net():
    """It sees one face everywhere: turned by 20 degrees, the jaw 0.1 rad open, expression n at n / 10."""
    code = np.zeros(236, np.float32)
    code[150:200] = np.arange(50) / 10
    code[200:203] = Rotation.from_euler("y", 20, degrees=True).as_rotvec()
    code[203:206] = [0.1, 0.2, 0.3]
    code[206] = 8
    encoder = saying(deca.DecaEncoder(), code)
    return deca.DecaNet(encoder, np.zeros(3), np.zeros((3, 150)), np.zeros(3))


def features(unit_samples, nets, mesh):
    inputs = {
        "generated": unit_samples([{"__key__": "p", "frames": np.zeros((2, 256, 256, 3), np.uint8)}]),
        MESH_LANDMARKS_FEATURE: unit_samples([{"__key__": "p", **mesh}]),
    }
    (found,) = compute_deca_coefficients(inputs, None, nets, RUNTIME)
    return found


def test_pose_and_the_12_coefficients_are_those_that_the_net_says(net, unit_samples):
    landmarks = np.random.default_rng(0).uniform(60, 200, (2, 68, 2)).astype(np.float32)
    landmarks[1] = np.nan
    found = features(unit_samples, {"deca": net}, {"landmarks": landmarks})
    assert found["angles"][0] == pytest.approx([0, 20, 0], abs=1e-3)
    assert found["exp_coeffs"][0] == pytest.approx([0.1, *np.arange(11) / 10], abs=1e-6)
    for name in ("angles", "exp_coeffs"):
        assert np.isnan(found[name][1]).all(), name


def test_a_clip_without_any_face_has_no_coefficients(net, unit_samples):
    found = features(unit_samples, {"deca": net}, {"landmarks": np.full((2, 68, 2), np.nan, np.float32)})
    assert np.isnan(found["angles"]).all()
    assert found["exp_coeffs"].shape == (2, 12)


def test_missing_weights_are_named_the_nets_first(net, unit_samples):
    mesh = {"needs": {"weights": "mp_iris"}}
    assert features(unit_samples, {}, mesh)["needs"] == {"weights": "deca"}
    assert features(unit_samples, {"deca": net}, mesh)["needs"] == {"weights": "mp_iris"}
