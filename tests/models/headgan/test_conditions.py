from dataclasses import replace

import numpy as np
import pytest
import torch

from models.headgan.conditions import RENDERED_HEAD_REGIONS, FaceRenderer, nmfc_colours, rasterize_sketch
from models.headgan.motion import HeadMotion, parse_head_motion_arrays, set_pose
from models.perception.head.default_head import get_analytic_head
from models.perception.head.dense_fit import DenseFitter
from models.perception.head.pose import euler_to_rotation, project
from models.perception.head.raster import rasterize as rasterize_numpy

HEAD = get_analytic_head()


def heads(angles, exp=None, scale=70.0, at=(128.0, 128.0)):
    """angles (T,3) degrees -> the analytic head in an image of 256 px."""
    frames = len(angles)
    given = {
        "scale": np.full(frames, scale),
        "translation": np.tile([*at, 0.0], (frames, 1)),
        "angles": np.asarray(angles, float),
        "exp_coeffs": np.zeros((frames, HEAD.n_exp)) if exp is None else exp,
    }
    return parse_head_motion_arrays(given, HEAD.n_id, HEAD.n_exp)


def rendered(motion, size=256, **options):
    return FaceRenderer(HEAD, size, **options).render_nmfc(torch.from_numpy(motion.pack()))


def covered(image):
    return image.sum(-3) > 0


def test_colours_are_the_mean_faces_coordinates_from_0_to_1():
    colours = nmfc_colours(HEAD.mean)
    assert (colours.min(0) == 0).all()
    assert (colours.max(0) == 1).all()
    order = np.argsort(HEAD.mean[:, 1])
    assert (np.diff(colours[order, 1]) >= 0).all()


def test_a_frontal_face_is_red_to_the_right_green_to_the_top_and_blue_at_the_nose():
    image = rendered(heads([[0, 0, 0]]))[0]
    seen = covered(image)
    rows, columns = (values.float() for values in seen.nonzero(as_tuple=True))
    red, green, blue = image[:, seen]
    assert np.corrcoef(red, columns)[0, 1] > 0.99
    assert np.corrcoef(green, -rows)[0, 1] > 0.99
    tip = torch.from_numpy(HEAD.landmarks(HEAD.mean)[30, :2] * [70, -70] + 128).long()
    assert float(image[2, tip[1], tip[0]]) > float(blue.max()) - 0.02


def test_eyes_are_no_holes_but_have_the_colour_of_their_place():
    image = rendered(heads([[0, 0, 0]]))[0]
    drawn = HEAD.mean[HEAD.regions["front"]]
    low, high = drawn.min(0), drawn.max(0)
    for side in (HEAD.mean[:, 0] > 0, HEAD.mean[:, 0] < 0):
        ball = HEAD.mean[HEAD.regions["eyeballs"] & side]
        pupil = ball[ball[:, 2].argmax()]
        column, row = (pupil[:2] * [70, -70] + 128).astype(int)
        np.testing.assert_allclose(image[:, row, column], (pupil - low) / (high - low), atol=0.02)


@pytest.mark.parametrize("yaw", [-35, 0, 35])
def test_the_eyeballs_fill_the_eyes_and_show_nowhere_else(yaw):
    """Further turned, an eye without its ball would show the inside of the far cheek."""
    motion = heads([[0, yaw, 0]])
    face = replace(HEAD, regions={"front": HEAD.regions["front"]})
    packed = torch.from_numpy(motion.pack())
    without, found = FaceRenderer(face, 256).render_nmfc(packed)[0], rendered(motion)[0]
    filled = covered(found) & ~covered(without)
    assert int(filled.sum()) > 50
    assert torch.equal(found[:, covered(without)], without[:, covered(without)])


def test_it_is_the_plain_formula_drawn_by_another_rasteriser():
    """v = mean + U p, q = s R v + t in float64 numpy."""
    rng = np.random.default_rng(0)
    motion = HeadMotion(
        identity=rng.normal(size=(1, HEAD.n_id)), expression=rng.normal(size=(1, HEAD.n_exp)),
        scale=np.array([66.0]), rotation=euler_to_rotation([10], [-20], [5]),
        translation=np.array([[120, 140, 3.0]]),
    )  # fmt: skip
    kept = np.logical_or.reduce([HEAD.regions[name] for name in RENDERED_HEAD_REGIONS])
    shape = HEAD.mean + HEAD.id_basis @ motion.identity[0].astype(float)
    shape = shape + HEAD.exp_basis @ motion.expression[0].astype(float)
    points = project(shape, 66.0, motion.rotation[0].astype(float), motion.translation[0].astype(float))
    faces = HEAD.faces[kept[HEAD.faces].all(1)]
    low, high = HEAD.mean[np.unique(faces)].min(0), HEAD.mean[np.unique(faces)].max(0)
    expected = rasterize_numpy(points, faces, 256, 256).render_vertex_values(
        faces, (HEAD.mean - low) / (high - low)
    )
    found = rendered(motion)[0].permute(1, 2, 0).numpy()
    same = (found.sum(2) > 0) == (expected.sum(2) > 0)
    assert same.mean() > 0.9999  # float32 coefficients may move an edge over a pixel's centre
    assert np.median(np.abs(found - expected)) < 1e-6
    assert np.quantile(np.abs(found - expected)[same], 0.999) < 1e-3


def test_colours_do_not_depend_on_the_pose_or_the_expression():
    """The tip of the nose keeps its colour wherever it goes."""
    exp = np.zeros((3, HEAD.n_exp))
    exp[2, 0] = 2  # jaw open
    motion = heads([[0, 0, 0], [10, 15, 20], [0, 0, 0]], exp)
    drawn = FaceRenderer(HEAD, 256)
    packed = torch.from_numpy(motion.pack())
    images, marks = drawn.render_nmfc(packed), drawn.project_landmarks(packed)
    tips = [image[:, int(y), int(x)] for image, (x, y) in zip(images, marks[:, 30], strict=True)]
    assert max(float((tip - tips[0]).abs().max()) for tip in tips) < 0.03


def test_landmarks_lie_where_the_model_puts_them():
    motion = heads([[5, -15, 8], [0, 0, 0]])
    found = FaceRenderer(HEAD, 256).project_landmarks(torch.from_numpy(motion.pack())).numpy()
    shape = HEAD.landmarks(HEAD.shape(motion.identity, motion.expression))
    expected = project(shape, motion.scale, motion.rotation, motion.translation)[..., :2]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_window_of_a_batch_is_drawn_at_once():
    packed = torch.from_numpy(heads(np.random.default_rng(0).uniform(-30, 30, (6, 3))).pack())
    drawn = FaceRenderer(HEAD, 64)
    small = torch.from_numpy(heads(np.zeros((6, 3))).rescale_pixels(0.25).pack())
    assert drawn.render_nmfc(small.view(2, 3, -1)).shape == (2, 3, 3, 64, 64)
    whole = drawn.render_nmfc(packed)
    assert all(
        torch.equal(drawn.render_nmfc(one[None])[0], image) for one, image in zip(packed, whole, strict=True)
    )


def test_a_smaller_image_shows_the_same_face():
    motion = heads([[5, 20, -10]])
    large = torch.nn.functional.avg_pool2d(rendered(motion), 4)
    small = rendered(motion.rescale_pixels(0.25), 64)
    inside = (covered(large) & covered(small))[0]
    inside &= torch.nn.functional.avg_pool2d(covered(large).float(), 5, 1, 2)[0] == 1
    assert int(inside.sum()) > 500
    assert float((large - small)[0][:, inside].abs().median()) < 2e-3


def test_autocast_moves_no_vertex():
    packed = torch.from_numpy(heads([[5, 20, -10]]).pack())
    drawn = FaceRenderer(HEAD, 256)
    plain = drawn.render_nmfc(packed)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(drawn.render_nmfc(packed), plain)


def test_values_lie_in_0_to_1_and_the_background_is_0():
    image = rendered(heads([[0, 0, 0]]), 256)
    assert image.dtype == torch.float32
    assert float(image.min()) == 0
    assert 0.9 < float(image.max()) <= 1
    assert float(image[..., :4, :].max()) == 0


def test_numbers_of_another_model_are_refused():
    with pytest.raises(
        ValueError, match="30 numbers a face; expected 17 of identity, 11 of expression and 13"
    ):
        FaceRenderer(HEAD, 64).render_nmfc(torch.zeros(1, 30))


@pytest.mark.parametrize("shading", ["centroid", "first"])
def test_flat_shading_is_off_by_a_triangle_at_most(shading):
    motion = heads([[0, 25, 0]])
    smooth, flat = rendered(motion), rendered(motion, shading=shading)
    assert torch.equal(covered(smooth), covered(flat)) or shading == "first"
    assert 0 < float((smooth - flat).abs().mean()) < 0.02


# --- fitted and drawn again ---------------------------------------------------------------------------------
def talking(frames=12):
    """FaceRenderer of one person, turning and talking, and where 1000 of their vertices lie in the image."""
    rng = np.random.default_rng(3)
    exp = np.clip(rng.normal(size=(frames, HEAD.n_exp)), -1.5, 1.5) * 0.7
    motion = heads(rng.uniform(-20, 20, (frames, 3)), exp)
    identity = np.tile(0.7 * rng.normal(size=HEAD.n_id), (frames, 1)).astype(np.float32)
    motion = HeadMotion(
        identity=identity, expression=motion.expression, scale=motion.scale,
        rotation=motion.rotation, translation=motion.translation,
    )  # fmt: skip
    chosen = np.flatnonzero(HEAD.regions[RENDERED_HEAD_REGIONS[0]])
    chosen = chosen[np.linspace(0, len(chosen) - 1, 1035).astype(int)].astype(np.int32)
    shape = HEAD.shape(motion.identity, motion.expression)[:, chosen]
    return motion, chosen, project(shape, motion.scale, motion.rotation, motion.translation)


def refitted(chosen, points, **options):
    head = replace(HEAD, dense_index=chosen, dense_weight=None, dense_angles=None)
    fit = DenseFitter.for_model(head, "dense", **options).fit_points(points)
    each = fit.id if fit.id.ndim == 2 else np.tile(fit.id, (len(points), 1))
    return HeadMotion(
        identity=each, expression=fit.exp, scale=fit.scale, rotation=fit.rotation, translation=fit.translation
    )


def overlap(one, other):
    """(T,) intersection over union of what the faces cover."""
    a, b = covered(rendered(one)), covered(rendered(other))
    return ((a & b).sum((1, 2)) / (a | b).sum((1, 2))).numpy()


def test_a_fitted_face_covers_98_percent_of_what_it_was_fitted_to():
    """Acceptance test 5 of the specification."""
    motion, chosen, points = talking()
    found = refitted(chosen, points, rounds=5, camera_target="fitted", orthonormal=True)
    assert overlap(motion, found).min() > 0.98


def test_a_pose_edited_by_20_degrees_is_found_20_degrees_off_by_refitting():
    motion, chosen, _ = talking()
    edited = set_pose(motion, yaw=20, add=True)
    shape = HEAD.shape(edited.identity, edited.expression)[:, chosen]
    points = project(shape, edited.scale, edited.rotation, edited.translation)
    found = refitted(chosen, points, rounds=5, camera_target="fitted", orthonormal=True)
    np.testing.assert_allclose(found.angles[:, 1] - motion.angles[:, 1], 20, atol=1)


def test_faces_fitted_one_by_one_are_drawn_as_those_of_the_clip():
    """Acceptance test 7 of the specification."""
    _, chosen, points = talking(4)
    points = points.astype(np.float64)  # in float32 a matrix product's rounding depends on its size
    whole = refitted(chosen, points)
    for t in range(4):
        one = refitted(chosen, points[t : t + 1])
        np.testing.assert_allclose(one.pack()[0], whole.pack()[t], rtol=1e-6, atol=1e-7)
        assert overlap(one, whole.select_frames([t])).min() > 0.999


# --- the sketch ---------------------------------------------------------------------------------------------
def test_a_sketch_joins_the_landmarks_and_leaves_the_rest_black():
    marks = FaceRenderer(HEAD, 256).project_landmarks(torch.from_numpy(heads([[0, 10, 0]]).pack()))
    image = rasterize_sketch(marks, 256)
    assert image.shape == (1, 3, 256, 256)
    assert torch.equal(image[:, 0], image[:, 1])
    pixels = marks[0].long()
    assert float(image[0, 0, pixels[:, 1], pixels[:, 0]].min()) > 0.2
    middle = ((marks[0, 8] + marks[0, 9]) / 2).long()
    assert float(image[0, 0, middle[1], middle[0]]) > 0.2
    assert 0.01 < float((image > 0).float().mean()) < 0.08


def test_no_line_runs_from_one_part_of_the_face_to_the_next():
    """Only each part's own points are joined: far parts, nothing between them."""
    marks = torch.zeros(1, 68, 2)
    marks[:, :17] = 5
    marks[:, 17:] = 60
    image = rasterize_sketch(marks, 64)[0, 0]
    assert float(image[20:45, 20:45].max()) == 0


def test_a_face_without_landmarks_is_black():
    assert float(rasterize_sketch(torch.full((1, 68, 2), float("nan")), 32).abs().max()) == 0
