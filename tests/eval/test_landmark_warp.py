"""The landmark warp on faces made of points: where pixels go, and that none is left bare."""

import numpy as np
import pytest

from pipelines.eval import landmark_warp as warp
from tests.eval.landmark_faces import make_face


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)


def positions_picture():
    """Red is x, green is y, in pixels of 64."""
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    return np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)


def test_landmarks_that_stay_leave_the_picture_as_it_is(image):
    face = make_face()
    np.testing.assert_array_equal(warp.warp_by_landmarks(image, face, face[None])[0], image)


def test_each_landmark_shows_what_lay_at_its_place():
    face = make_face()
    moved = face - [-4.0, 3.0]
    out = warp.warp_by_landmarks(positions_picture(), face, moved[None])[0].astype(float)
    for k in (0, 8, 16, 30, 36, 45, 48, 54):
        x, y = moved[k].astype(int)
        np.testing.assert_allclose(out[y, x, :2], np.array([x + 0.5, y + 0.5]) - (4, -3) - 0.5, atol=1.0)


def test_a_shifted_face_keeps_its_inside_pixel_for_pixel(image):
    face = make_face()
    out = warp.warp_by_landmarks(image, face, face[None] + (5, 0))[0]
    np.testing.assert_array_equal(out[28:32, 33:41], image[28:32, 28:36])


def test_the_border_of_the_picture_stays(image):
    face = make_face()
    out = warp.warp_by_landmarks(positions_picture(), face, (face * 0.8)[None])[0].astype(int)
    still = positions_picture().astype(int)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        assert abs(out[edge] - still[edge]).max() <= 3


@pytest.mark.parametrize("seed", range(5))
def test_no_pixel_is_left_bare_wherever_the_landmarks_go(seed):
    rng = np.random.default_rng(seed)
    face = make_face()
    mesh, moved = face.copy(), face + rng.normal(0, 12, face.shape)  # folds, and points beyond the border
    size = np.array([64.0, 64.0])
    border = size * np.array([(x, y) for y in (0, 0.5, 1) for x in (0, 0.5, 1) if (x, y) != (0.5, 0.5)])
    held = np.clip(moved, 1, 63)
    triangles = warp.mesh_triangles(np.concatenate([warp.open_lips(mesh), border]), 68)
    corners = np.concatenate([held, border])[triangles]  # (m,3,2)
    x, y = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
    pixels = np.stack([x, y], -1).reshape(-1, 1, 2)

    def side(a, b):
        return (b - a)[..., 0] * (pixels - a)[..., 1] - (b - a)[..., 1] * (pixels - a)[..., 0]

    a, b, c = (corners[None, :, i] for i in range(3))
    signs = np.stack([side(a, b), side(b, c), side(c, a)])
    covered = (signs >= -1e-9).all(0).any(1)
    assert covered.all()


def test_the_nose_is_drawn_over_the_outline():
    face = make_face()
    triangles = warp.mesh_triangles(face, 68)
    jaw = [(row < warp.JAW_POINTS).sum() for row in triangles]
    assert jaw == sorted(jaw, reverse=True)


def test_closed_lips_are_joined_upper_to_lower_and_open_without_a_tear():
    face, opened = make_face(), make_face()
    opened[[65, 66, 67, 55, 56, 57, 58, 59]] += (0, 6)
    out = warp.warp_by_landmarks(positions_picture(), face, opened[None])[0].astype(int)
    x, upper, lower = 32, int(opened[62, 1]), int(opened[66, 1])
    shown = out[upper : lower + 1, x, 1]
    assert abs(shown - face[62, 1]).max() <= 2  # the seam between the lips, and nothing else


def test_relative_landmarks_start_where_the_source_has_its_own():
    source, driving = make_face(), np.stack([make_face((20, 20), 10), make_face((22, 19), 10)])
    np.testing.assert_allclose(warp.target_landmarks(source, driving, True)[0], source)
    np.testing.assert_allclose(warp.target_landmarks(source, driving, True)[1], source - [-2, 1])
    np.testing.assert_array_equal(warp.target_landmarks(source, driving, False), driving)


def test_a_frame_without_landmarks_keeps_the_last_ones_and_is_counted():
    face = make_face()
    driving = np.stack([face * np.nan, face, face + 1, face * np.nan, face * np.nan, face + 2])
    held, count = warp.hold_landmarks(driving)
    np.testing.assert_array_equal(held, np.stack([face, face, face + 1, face + 1, face + 1, face + 2]))
    assert count == 3


def test_no_landmarks_at_all_are_an_error():
    with pytest.raises(ValueError, match="none of 3 frames"):
        warp.hold_landmarks(np.full((3, 68, 2), np.nan))


def test_sampling_between_pixels_is_linear_and_goes_on_beyond_the_border():
    image = np.zeros((2, 3, 3), np.uint8)
    image[:, 1], image[:, 2] = 100, 201
    at = np.array([[0.5, 0.5], [1.0, 1.0], [2.0, 0.7], [9.0, -4.0]])
    np.testing.assert_array_equal(warp.sample_bilinear(image, at)[:, 0], [0, 50, 151, 201])
