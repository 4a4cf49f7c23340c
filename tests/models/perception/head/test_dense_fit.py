import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.errors import InvalidSettings
from models.perception.head.default_head import get_analytic_head
from models.perception.head.dense_fit import DenseFitter, adapt_camera, decompose_camera, moving_average
from models.perception.head.pose import (
    AXIS_FLIP,
    euler_to_rotation,
    nearest_rotation,
    project,
    rotation_to_euler,
)

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "fit3dmm.json").read_text())
CASE = GOLDEN["fit_3dmm"]


def q(shape, seed, scale):
    n = np.arange(np.prod(shape), dtype=np.int64)
    r = (31 * n * n + 17 * n + 101 * seed) % 65537
    return (scale * (2 * r / 65536 - 1)).reshape(shape)


@pytest.fixture(scope="module")
def golden():
    """The golden model and points, by the formulas of the file."""
    j = np.arange(60)
    mean = np.stack([np.sin(0.7 * j), np.cos(1.3 * j), 0.5 * np.sin(0.31 * j + 1)], axis=1)
    id_basis, exp_basis = q((180, 7), 1, 0.05), q((180, 5), 2, 0.05)
    p = np.r_[0.6 * np.sin(np.arange(7) + 0.5), 1.2 * np.cos(1.7 * np.arange(5) + 0.2)]
    shape = mean + (np.hstack([id_basis, exp_basis]) @ p).reshape(60, 3)
    points = 85 * shape @ euler_to_rotation(12, -25, 7).T + [131, 122, 4] + q((180, 1), 3, 0.3).reshape(60, 3)
    return (mean, id_basis.reshape(60, 3, 7), exp_basis.reshape(60, 3, 5)), points[None]


def made_up(points=1035, n_id=157, n_exp=28, frames=500, dtype=np.float32):
    """A clip of the size HeadGAN fits: model parts, image points, coefficients and cameras."""
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(points, 3))
    parts = mean, rng.normal(size=(points, 3, n_id)) * 0.02, rng.normal(size=(points, 3, n_exp)) * 0.02
    id, exp = rng.normal(size=n_id), rng.normal(size=(frames, n_exp))
    angles = rng.uniform(-25, 25, (frames, 3))
    shape = mean + parts[1] @ id + np.einsum("ncj,tj->tnc", parts[2], exp)
    scale, shift = rng.uniform(60, 80, frames), rng.uniform(100, 150, (frames, 3))
    image = project(shape, scale, euler_to_rotation(*angles.T), shift)
    return parts, image.astype(dtype), (id, exp, angles, scale)


def test_the_golden_points_are_the_files(golden):
    np.testing.assert_allclose(golden[1][0, :3].ravel(), CASE["pts_first3"], atol=1e-9)


def test_alignment_is_the_golden_procrustes(golden):
    parts, points = golden
    found, expected = DenseFitter(*parts).align_points(points), CASE["procrustes"]
    np.testing.assert_allclose(found.turn[0].ravel(), expected["T"], atol=1e-11)
    np.testing.assert_allclose(found.scale, expected["scale"])
    np.testing.assert_allclose(found.shift[0], expected["translation"], atol=1e-11)
    np.testing.assert_allclose(found.disparity, expected["d"], rtol=1e-9)


def test_coefficients_are_the_golden_pseudo_inverse(golden):
    parts, points = golden
    fit = DenseFitter(*parts).fit_points(points)
    np.testing.assert_allclose(np.r_[fit.id[0], fit.exp[0]], CASE["p_pinv"], atol=1e-10)


def test_camera_is_the_golden_one(golden):
    parts, points = golden
    fit = DenseFitter(*parts).fit_points(points)
    np.testing.assert_allclose(fit.scale, CASE["s"])
    np.testing.assert_allclose(fit.rotation[0].ravel(), CASE["R"], atol=1e-10)
    np.testing.assert_allclose(fit.translation[0], CASE["t"], atol=1e-8)
    np.testing.assert_allclose(rotation_to_euler(fit.rotation)[0], CASE["euler_deg_frontal_zero"], atol=1e-8)


@pytest.mark.parametrize("name", ["P_to_srt", "P_to_srt_frontal"])
def test_affine_cameras_come_apart_as_the_golden_ones(name):
    expected = GOLDEN[name]
    scale, rotation, translation = decompose_camera(np.reshape(expected["P"], (3, 4)))
    np.testing.assert_allclose(scale, expected["s"])
    np.testing.assert_allclose(rotation.ravel(), expected["R"], atol=1e-11)
    np.testing.assert_allclose(translation, expected.get("t", [128, 128, 0]))
    np.testing.assert_allclose(rotation_to_euler(rotation), expected["euler_deg_frontal_zero"], atol=1e-9)
    if "R_orthonormalised_svd" in expected:
        made = nearest_rotation(rotation)
        np.testing.assert_allclose(made.ravel(), expected["R_orthonormalised_svd"], atol=1e-11)


@pytest.mark.parametrize(
    ("name", "options"), [("default", {}), ("no_translation", {"adapt_translation": False})]
)
def test_a_driving_camera_is_adapted_as_the_golden_one(name, options):
    i = np.arange(40)
    scale = 90 + 5 * np.sin(0.3 * i)
    place = np.stack([120 + 4 * np.sin(0.25 * i), 130 + 3 * np.cos(0.4 * i), 1 + 0.1 * i], axis=1)
    found = adapt_camera(scale, place, np.array([104.0]), np.array([[125.0, 118, 2]]), **options)
    expected = GOLDEN["camera_adaptation"]["results"][name]
    np.testing.assert_allclose(found[0], expected["s"], rtol=1e-10)
    np.testing.assert_allclose(found[1][:3].ravel(), expected["t_first3"], rtol=1e-9)
    np.testing.assert_allclose(found[1][-1], expected["t_last"], rtol=1e-9)


@pytest.mark.parametrize("still", ["driving", "reference", "both"])
def test_standardising_leaves_an_axis_on_which_a_side_stands_still_as_it_is(still):
    """Fits of 68 landmarks in the image store no depth: 0 in every frame."""
    rng = np.random.default_rng(0)
    sides = {name: (rng.uniform(60, 80, 40), rng.normal(size=(40, 3))) for name in ("driving", "reference")}
    for name in sides if still == "both" else (still,):
        sides[name][1][:, 2] = 0
    (scale, place), (to_scale, to_place) = sides.values()
    given = scale, place * scale[:, None], to_scale, to_place * to_scale[:, None]
    found, expected = (adapt_camera(*given, standardise=one, window=1) for one in (True, False))
    np.testing.assert_allclose(found[1][:, 2], expected[1][:, 2])
    spread = (found[1] / found[0][:, None]).std(0)
    np.testing.assert_allclose(spread[:2], to_place.std(0)[:2])


def test_the_box_filter_repeats_the_ends_as_the_golden_one():
    expected = GOLDEN["camera_adaptation"]["smooth_example"]["out"]
    np.testing.assert_allclose(moving_average(np.sin(0.5 * np.arange(20)), 15), expected, atol=1e-11)


def test_a_clip_at_once_is_its_frames_one_by_one():
    parts, points, _ = made_up(frames=7, dtype=np.float64)
    solver = DenseFitter(*parts)
    whole = solver.fit_points(points)
    for t in range(7):
        one = solver.fit_points(points[t : t + 1])
        np.testing.assert_allclose(one.exp[0], whole.exp[t], atol=1e-9)
        np.testing.assert_allclose(one.rotation[0], whole.rotation[t], atol=1e-9)


def test_dense_points_give_back_what_they_were_made_from():
    parts, points, (id, exp, angles, scale) = made_up(frames=60)
    solver = DenseFitter(*parts, camera_target="fitted", orthonormal=True, rounds=4)
    fit = solver.fit_points(points)
    assert np.abs(rotation_to_euler(fit.rotation) - angles).max() < 0.1
    assert np.abs(fit.scale / scale - 1).max() < 0.01
    assert min(np.corrcoef(fit.exp[:, i], exp[:, i])[0, 1] for i in range(28)) > 0.99
    assert np.corrcoef(fit.id.mean(0), id)[0, 1] > 0.99
    assert solver.fit_error(fit, points).max() < 0.1  # pixels, of a head 140 wide


def test_one_alignment_as_published_is_near_it():
    parts, points, (_, exp, angles, _) = made_up(frames=60)
    solver = DenseFitter(*parts, orthonormal=True)
    fit = solver.fit_points(points)
    assert np.abs(rotation_to_euler(fit.rotation) - angles).max() < 3
    assert min(np.corrcoef(fit.exp[:, i], exp[:, i])[0, 1] for i in range(28)) > 0.95


def test_single_precision_is_enough():
    parts, points, _ = made_up(frames=20, dtype=np.float64)
    solver = DenseFitter(*parts)
    exact, fast = solver.fit_points(points), solver.fit_points(points.astype(np.float32))
    assert fast.exp.dtype == fast.rotation.dtype == np.float32
    assert np.abs(fast.exp - exact.exp).max() < 1e-3
    assert np.abs(fast.rotation - exact.rotation).max() < 1e-4


def test_an_orthonormal_camera_is_the_nearest_rotation():
    parts, points, _ = made_up(frames=3, dtype=np.float64)
    plain, held = (
        DenseFitter(*parts).fit_points(points),
        DenseFitter(*parts, orthonormal=True).fit_points(points),
    )
    np.testing.assert_allclose(held.rotation, nearest_rotation(plain.rotation), atol=1e-12)


def test_too_few_points_ask_for_a_ridge():
    head = get_analytic_head()
    parts = head.landmark_model()
    wide = (parts[0], np.tile(parts[1], (1, 1, 20)), parts[2])
    with pytest.raises(InvalidSettings, match="68 points do not determine 351 coefficients"):
        DenseFitter(*wide)
    DenseFitter(*wide, ridge=1e-3)


@pytest.fixture(scope="module")
def talking():
    """68 points with depth of the analytic head, talking and turning, off by a pixel: points and truth."""
    rng, model, t = np.random.default_rng(1), get_analytic_head(), np.linspace(0, 2 * np.pi, 80)
    angles = np.stack([8 * np.sin(t), 20 * np.sin(2 * t + 1), 6 * np.cos(t)], axis=1)
    exp = np.zeros((80, model.n_exp))
    exp[:, 0], exp[:, 1], exp[:, 4] = 1.2 + np.sin(5 * t), 0.8 * np.cos(3 * t), 1 + np.sin(4 * t)
    shape = model.landmarks(model.shape(0.5 * rng.normal(size=model.n_id), exp))
    points = project(shape, 62.0, euler_to_rotation(*angles.T), [128.0, 120, 5])
    return (points + rng.normal(size=points.shape)).astype(np.float32), angles, exp


@pytest.mark.parametrize("depth", [True, False])
def test_the_ridge_form_reads_68_points_with_depth_and_without(talking, depth):
    points, angles, exp = talking
    points = points if depth else points[..., :2]
    solver = DenseFitter.for_model(get_analytic_head(), orthonormal=True, camera_target="fitted", rounds=5)
    fit = solver.fit_points(points)
    for component in (0, 1, 4):  # jaw, smile, brows
        assert np.corrcoef(fit.exp[:, component], exp[:, component])[0, 1] > 0.85
    assert np.abs(rotation_to_euler(fit.rotation) - angles).mean(0).max() < 3
    assert solver.fit_error(fit, points).mean() < 2


def test_a_larger_ridge_holds_the_coefficients_nearer_to_zero(talking):
    loose, tight = (
        DenseFitter.for_model(get_analytic_head(), ridge=r).fit_points(talking[0]) for r in (1e-4, 1e-1)
    )
    assert np.abs(tight.exp).mean() < 0.5 * np.abs(loose.exp).mean()


def test_vertices_of_a_model_can_stand_for_the_points():
    chosen = np.flatnonzero(get_analytic_head().regions["front"])
    chosen = chosen[:: max(1, len(chosen) // 1035)].astype(np.int32)
    model = replace(get_analytic_head(), dense_index=chosen, dense_weight=None, dense_angles=None)
    exp = np.zeros((3, model.n_exp))
    exp[:, 0] = 0.5, 1.5, 2.5
    image = project(
        model.shape(np.zeros(model.n_id), exp)[:, chosen], 60.0, euler_to_rotation(0, 10, 0), [128, 128, 0]
    )
    for rounds, low in ((1, 1.5), (6, 1.8)):  # an open jaw turns and shrinks what is aligned to the mean
        fit = DenseFitter.for_model(model, "dense", ridge=1e-6, rounds=rounds).fit_points(image)
        assert low < fit.exp[2, 0] - fit.exp[0, 0] < 2.1


def test_a_fit_is_turned_back_by_what_the_models_dense_points_turn_it():
    head = get_analytic_head()
    angles = np.array([[5.0, -20, 4], [-8, 15, 0]])
    camera = 60.0, euler_to_rotation(*angles.T), np.array([128.0, 120, 0])
    points = project(head.dense_model()[0], *camera)
    heads = [replace(head, dense_angles=offset) for offset in (None, np.array([8.0, -1, 2]))]
    fitters = [DenseFitter.for_model(one, "dense", orthonormal=True) for one in heads]
    plain, turned = (fitter.fit_points(points) for fitter in fitters)
    np.testing.assert_allclose(rotation_to_euler(plain.rotation), angles, atol=1e-3)
    own, back = euler_to_rotation(8, -1, 2), AXIS_FLIP @ turned.rotation
    np.testing.assert_allclose(AXIS_FLIP @ back @ AXIS_FLIP @ own, plain.rotation, atol=1e-6)
    middle = head.dense_model()[0].mean(0)
    for fit in (plain, turned):  # what is seen stays where it is
        placed = fit.scale[:, None] * (fit.rotation @ middle) + fit.translation
        np.testing.assert_allclose(placed, points.mean(1), atol=1e-2)


def test_a_fit_that_is_turned_back_misses_no_point_by_that():
    head = get_analytic_head()
    assert head.dense_angles is not None
    camera = np.full(2, 60.0), euler_to_rotation([5, -8], [-20, 15], [4, 0]), np.array([[128.0, 120, 0]] * 2)
    points = project(head.dense_model()[0], *camera)
    fitter = DenseFitter.for_model(head, "dense", orthonormal=True)
    assert fitter.fit_error(fitter.fit_points(points), points).max() < 0.01  # pixels, of a head 120 wide


def test_the_default_heads_dense_points_give_motion_back():
    """The mesh's 468 points of a talking, turning head, as a net without errors would place them."""
    head, t = get_analytic_head(), np.linspace(0, 2 * np.pi, 80)
    angles = np.stack([8 * np.sin(t), 20 * np.sin(2 * t + 1), 6 * np.cos(t)], axis=1)
    exp = np.zeros((80, head.n_exp))
    exp[:, 0], exp[:, 1], exp[:, 4] = 1.2 + np.sin(5 * t), 0.8 * np.cos(3 * t), 1 + np.sin(4 * t)
    mean, _, exp_basis = head.dense_model()
    shape = mean + np.einsum("ncj,tj->tnc", exp_basis, exp)
    points = project(shape, 62.0, euler_to_rotation(*angles.T), [128.0, 120, 5]).astype(np.float32)
    fitter = DenseFitter.for_model(head, "dense", camera_target="fitted", orthonormal=True, rounds=5)
    fit = fitter.fit_points(points)
    for component, low in ((0, 0.99), (1, 0.9), (4, 0.9)):  # jaw, smile, brows
        assert np.corrcoef(fit.exp[:, component], exp[:, component])[0, 1] > low
    apart = rotation_to_euler(fit.rotation) - angles
    assert apart.std(0).max() < 1
    assert apart.mean(0) == pytest.approx(-head.dense_angles, abs=1)  # a net's face is turned by them
