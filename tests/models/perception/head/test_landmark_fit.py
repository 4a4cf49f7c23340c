from dataclasses import replace

import numpy as np
import pytest

from models.perception.head.default_head import get_analytic_head
from models.perception.head.landmark_fit import (
    LandmarkFitOptions,
    fit_affine_camera,
    fit_landmarks,
    interpolate_fit,
    neutral_fit,
    rotation_exp,
)
from models.perception.head.pose import euler_to_rotation, project, rotation_to_euler

OPTIONS = LandmarkFitOptions()


def made_up(frames=60, noise=0.0, seed=0):
    """Landmarks of one random person talking and turning, and what they were made from."""
    rng = np.random.default_rng(seed)
    model = get_analytic_head()
    t = np.linspace(0, 2 * np.pi, frames)
    angles = np.stack([8 * np.sin(t), 20 * np.sin(2 * t + 1), 6 * np.cos(t)], axis=1)
    exp = np.zeros((frames, model.n_exp))
    exp[:, 0] = 1.2 + np.sin(5 * t)
    exp[:, 1] = 0.8 * np.cos(3 * t)
    id = rng.normal(size=model.n_id) * 0.7
    scale = 60 + 4 * np.sin(t)
    translation = np.stack([128 + 10 * np.cos(t), 120 + 5 * np.sin(t), 0 * t], axis=1)
    mean, id_basis, exp_basis = model.landmark_model()
    shape = mean + id_basis @ id + np.einsum("ncj,tj->tnc", exp_basis, exp)
    points = project(shape, scale, euler_to_rotation(*angles.T), translation)[..., :2]
    points += rng.normal(size=points.shape) * noise
    return points.astype(np.float32), {
        "angles": angles,
        "exp": exp,
        "scale": scale,
        "translation": translation,
    }


@pytest.fixture(scope="module")
def exact():
    points, truth = made_up()
    return fit_landmarks(get_analytic_head(), points, OPTIONS), truth


def test_pose_is_recovered_from_exact_landmarks(exact):
    fit, truth = exact
    assert np.abs(rotation_to_euler(fit.rotation) - truth["angles"]).mean(0).max() < 1.5
    assert np.abs(fit.scale / truth["scale"] - 1).max() < 0.06
    assert fit.error.mean() < 0.5


def test_jaw_opening_is_recovered_from_noisy_landmarks():
    points, truth = made_up(noise=1.0)
    fit = fit_landmarks(get_analytic_head(), points, OPTIONS)
    assert np.corrcoef(fit.exp[:, 0], truth["exp"][:, 0])[0, 1] > 0.97
    assert np.abs(rotation_to_euler(fit.rotation) - truth["angles"]).mean(0).max() < 3


def test_rotations_are_rotations_and_arrays_float32(exact):
    fit, _ = exact
    np.testing.assert_allclose(
        fit.rotation @ fit.rotation.transpose(0, 2, 1), np.tile(np.eye(3), (60, 1, 1)), atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.det(fit.rotation), 1, atol=1e-5)
    parts = (fit.id, fit.exp, fit.scale, fit.rotation, fit.translation, fit.error)
    assert {part.dtype for part in parts} == {np.dtype("float32")}


def test_the_image_may_be_moved_and_scaled():
    points, _ = made_up(noise=0.5)
    here = fit_landmarks(get_analytic_head(), points, OPTIONS)
    there = fit_landmarks(get_analytic_head(), points * 2 + 30, OPTIONS)
    np.testing.assert_allclose(there.rotation, here.rotation, atol=1e-3)
    np.testing.assert_allclose(there.exp, here.exp, atol=2e-2)
    np.testing.assert_allclose(there.scale, here.scale * 2, rtol=1e-3)


def test_coefficients_stay_within_the_models_bounds():
    points, _ = made_up()
    points[:, 48:] += np.where(np.arange(60) % 2, 40, -40)[:, None, None]  # mouths that no face makes
    fit = fit_landmarks(get_analytic_head(), points, OPTIONS)
    assert (np.abs(fit.exp) <= get_analytic_head().exp_bound + 1e-5).all()
    assert (np.abs(fit.id) <= get_analytic_head().id_bound + 1e-5).all()


def test_a_stray_point_moves_the_pose_little():
    points, truth = made_up()
    points[:, 30] += 40  # the tip of the nose
    fit = fit_landmarks(get_analytic_head(), points, OPTIONS)
    assert np.abs(rotation_to_euler(fit.rotation) - truth["angles"]).mean(0).max() < 6


def test_a_larger_say_of_the_eyelids_follows_a_blink_further():
    model = get_analytic_head()
    blinks = [model.exp_names.index(name) for name in ("blink_left", "blink_right")]
    exp = np.zeros((40, model.n_exp))
    exp[:, blinks] = (np.arange(40) % 10 < 3)[:, None] * 2.0
    points = project(
        model.landmarks(model.shape(np.zeros(model.n_id), exp)),
        60.0,
        euler_to_rotation(0, 5, 0),
        [128, 128, 0],
    )[..., :2].astype(np.float32)
    points += np.random.default_rng(0).normal(size=points.shape).astype(np.float32)
    slopes = []
    for weight in (1.0, 3.0):
        found = fit_landmarks(model, points, replace(OPTIONS, eyelid_weight=weight)).exp[:, blinks]
        assert np.corrcoef(found.T.ravel(), exp[:, blinks].T.ravel())[0, 1] > 0.8
        slopes.append(np.polyfit(exp[:, blinks].ravel(), found.ravel(), 1)[0])
    assert slopes[1] > 1.1 * slopes[0]


def test_one_frame_is_enough():
    points, truth = made_up(1)
    fit = fit_landmarks(get_analytic_head(), points, OPTIONS)
    assert np.abs(rotation_to_euler(fit.rotation) - truth["angles"]).max() < 8


def test_affine_camera_is_exact_for_the_mean_head():
    mean = get_analytic_head().landmark_model()[0].astype(float)
    rotation = euler_to_rotation([5.0, -3.0], [20.0, -30.0], [4.0, 0.0])
    target = project(mean, [50.0, 70.0], rotation, np.array([[100.0, 90, 0], [20, 30, 0]]))[..., :2]
    found, scale, shift = fit_affine_camera(mean, target, np.ones(68))
    np.testing.assert_allclose(found, rotation, atol=1e-9)
    np.testing.assert_allclose(scale, [50, 70])
    np.testing.assert_allclose(shift, [[100, 90], [20, 30]])


def test_turn_is_the_matrix_exponential():
    from scipy.linalg import expm

    axis = np.array([[0.3, -0.5, 0.8], [0, 0, 0], [1e-10, 0, 0]])
    x, y, z = axis[0]
    np.testing.assert_allclose(
        rotation_exp(axis)[0], expm(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])), atol=1e-12
    )
    np.testing.assert_allclose(rotation_exp(axis)[1:], np.tile(np.eye(3), (2, 1, 1)), atol=1e-9)


def test_gaps_are_bridged_and_ends_held(exact):
    fit, _ = exact
    seen = np.r_[5:20, 25:60, 70:80]
    full = interpolate_fit(fit, seen, 90)
    assert full.exp.shape == (90, get_analytic_head().n_exp)
    np.testing.assert_allclose(full.scale[seen], fit.scale)
    np.testing.assert_allclose(full.scale[:5], fit.scale[0])
    np.testing.assert_allclose(full.scale[80:], fit.scale[-1])
    assert np.isnan(full.error[20:25]).all()
    np.testing.assert_allclose(np.linalg.det(full.rotation), 1, atol=1e-5)


def test_neutral_is_the_mean_head_seen_from_the_front():
    fit = neutral_fit(get_analytic_head(), 3)
    assert (rotation_to_euler(fit.rotation) == 0).all()
    assert np.isnan(fit.error).all()
