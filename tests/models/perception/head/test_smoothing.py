from dataclasses import replace

import numpy as np
import pytest

from models.perception.head.landmark_fit import FaceFit, rotation_exp
from models.perception.head.pose import euler_to_rotation, rotation_to_euler
from models.perception.head.smoothing import gaussian_smooth_face_fit, one_euro_filter, rotation_log

T = 120


@pytest.fixture(scope="module")
def cameras():
    """A head turning slowly, and the same camera with a fit's jitter."""
    rng, t = np.random.default_rng(0), np.arange(T) / 25
    angles = np.stack([5 * np.sin(t), 25 * np.sin(1.3 * t), 4 * np.cos(t)], axis=1)
    scale, place = 60 + 3 * np.sin(t), np.stack([128 + 10 * np.sin(t), 120 + 0 * t, 0 * t], axis=1)
    nothing = np.zeros((T, 2), np.float32)

    def fit(angles, scale, place):
        parts = (scale, euler_to_rotation(*angles.T), place)
        scale, rotation, place = (part.astype(np.float32) for part in parts)
        return FaceFit(nothing[0], nothing, scale, rotation, place, nothing[:, 0])

    noisy = fit(
        angles + rng.normal(size=(T, 3)),
        scale * np.exp(0.01 * rng.normal(size=T)),
        place + rng.normal(size=(T, 3)),
    )
    return fit(angles, scale, place), noisy


def jerk(fit):
    return np.abs(np.diff(rotation_to_euler(fit.rotation), n=2, axis=0)).mean()


def off(fit, truth):
    return np.abs(rotation_to_euler(fit.rotation) - rotation_to_euler(truth.rotation)).mean()


def test_the_logarithm_undoes_the_turn():
    rng = np.random.default_rng(0)
    axis = rng.uniform(-1.7, 1.7, (50, 3))
    axis[0] = 0
    np.testing.assert_allclose(rotation_log(rotation_exp(axis)), axis, atol=1e-9)


@pytest.mark.parametrize("name", ["gaussian", "one_euro"])
def test_jitter_falls_and_the_motion_stays(cameras, name):
    truth, noisy = cameras
    if name == "gaussian":
        smooth = gaussian_smooth_face_fit(noisy, 2.0, np.ones(T, bool))
    else:
        smooth = one_euro_filter(noisy, 2.0, 0.05)
    assert jerk(smooth) < 0.35 * jerk(noisy)
    assert off(smooth, truth) < 0.85 * off(noisy, truth)
    assert np.abs(smooth.scale - truth.scale).mean() < 0.85 * np.abs(noisy.scale - truth.scale).mean()
    np.testing.assert_allclose(np.linalg.det(smooth.rotation), 1, atol=1e-5)
    assert smooth.rotation.dtype == smooth.scale.dtype == smooth.translation.dtype == np.float32


def test_a_still_camera_stays_as_it_is(cameras):
    truth, _ = cameras
    still = replace(
        truth,
        rotation=truth.rotation[:1].repeat(T, 0),
        scale=truth.scale[:1].repeat(T),
        translation=truth.translation[:1].repeat(T, 0),
    )
    for smooth in (gaussian_smooth_face_fit(still, 2.0, np.ones(T, bool)), one_euro_filter(still, 1.0, 0.0)):
        np.testing.assert_allclose(smooth.rotation, still.rotation, atol=1e-5)
        np.testing.assert_allclose(smooth.scale, still.scale, rtol=1e-5)


def test_untrusted_frames_lend_no_weight(cameras):
    truth, _ = cameras
    wild = replace(truth, scale=truth.scale.copy(), rotation=truth.rotation.copy())
    wild.scale[40], wild.rotation[40] = 500, euler_to_rotation(0, 80, 0)
    trusted = np.arange(T) != 40
    smooth = gaussian_smooth_face_fit(wild, 1.5, trusted)
    clean = gaussian_smooth_face_fit(truth, 1.5, trusted)
    np.testing.assert_allclose(smooth.scale[trusted], clean.scale[trusted], rtol=1e-5)
    np.testing.assert_allclose(smooth.rotation[30:40], clean.rotation[30:40], atol=1e-5)


def test_a_frame_far_from_any_trusted_one_keeps_its_own(cameras):
    _, noisy = cameras
    trusted = np.zeros(T, bool)
    trusted[:5] = True
    np.testing.assert_allclose(
        gaussian_smooth_face_fit(noisy, 1.0, trusted).scale[60:], noisy.scale[60:], rtol=1e-6
    )


def test_one_frame_is_smooth_already(cameras):
    _, noisy = cameras
    one = FaceFit(
        noisy.id, noisy.exp[:1], noisy.scale[:1], noisy.rotation[:1], noisy.translation[:1], noisy.error[:1]
    )
    for smooth in (gaussian_smooth_face_fit(one, 1.0, np.ones(1, bool)), one_euro_filter(one, 1.0, 0.1)):
        np.testing.assert_allclose(smooth.rotation, one.rotation, atol=1e-6)
