import numpy as np
import pytest

from models.perception.head.default_head import get_analytic_head
from models.perception.head.pose import AXIS_FLIP, project
from pipelines.shards import contact_sheet
from pipelines.shards.contact_sheet import (
    CONTACT_SHEET_CELL_SIZE,
    DETECTOR_BOX_COLOUR,
    IRIS_COLOUR,
    TRACKER_BOX_COLOUR,
    mouth_opening,
    overlay_mesh,
    plot_boxes_and_landmarks,
    render_clip_sheet,
    sound_strip,
)

GREY = np.full((8, 96, 96, 3), 128, np.uint8)
SHOWN = {"__key__": "a#b", "frames": GREY, "indices": contact_sheet.sheet_frames(10), "count": 10}
TWICE = np.array([[2.0, 0, 0], [0, 2, 0]])


def fit(frames=10, scale=30.0):
    model = get_analytic_head()
    return {
        "id_coeffs": np.zeros(model.n_id, np.float32),
        "exp_coeffs": np.zeros((frames, model.n_exp), np.float32),
        "scale": np.full(frames, scale, np.float32),
        "rotation": np.tile(AXIS_FLIP.astype(np.float32), (frames, 1, 1)),
        "translation": np.tile(np.array([48, 48, 0], np.float32), (frames, 1)),
        "fit_error": np.ones(frames, np.float32),
    }


def test_boxes_are_drawn_in_pixels_of_the_clip():
    clip = {
        "clip": {"size": 96},
        "crop": np.tile(np.array([100, 50, 292, 242], np.float32), (10, 1)),  # 192 px became 96
        "boxes": np.tile(np.array([148, 98, 244, 194], np.float32), (10, 1)),
        "face_box": np.tile(np.array([12, 12, 84, 84], np.float32), (10, 1)),
    }
    image = plot_boxes_and_landmarks(
        np.zeros((CONTACT_SHEET_CELL_SIZE, CONTACT_SHEET_CELL_SIZE, 3), np.uint8), clip, 0, TWICE
    )
    assert (image[48, 60] == TRACKER_BOX_COLOUR).all()  # (98 - 50) / 192 * 96 * 2
    assert (image[24, 60] == DETECTOR_BOX_COLOUR).all()
    assert not image[4, 4].any()


def test_the_centre_of_each_iris_is_drawn_in_its_own_colour():
    iris = np.full((1, 2, 5, 2), 30.0)
    iris[0, :, 0] = (40, 60), (90, 60)
    image = plot_boxes_and_landmarks(np.zeros((192, 192, 3), np.uint8), {"iris": iris}, 0, np.eye(2, 3))
    drawn = {(int(x), int(y)) for y, x in np.argwhere((image == IRIS_COLOUR).all(axis=2))}
    assert len(drawn) == 2 * 8
    assert {(39, 59), (41, 61), (89, 59), (91, 61)} <= drawn


def test_the_mesh_covers_the_projected_head_and_nothing_else():
    clip = fit()
    fits = clip | {"seen": np.ones(10, bool)}
    model = get_analytic_head()
    image = overlay_mesh(
        np.full((CONTACT_SHEET_CELL_SIZE, CONTACT_SHEET_CELL_SIZE, 3), 128, np.uint8), fits, model, 0, TWICE
    )
    points = 2 * project(model.mean, 30.0, AXIS_FLIP, np.array([48, 48, 0]))[:, :2]
    low, high = points.min(0), np.minimum(points.max(0), CONTACT_SHEET_CELL_SIZE)
    rows, columns = np.nonzero((image != 128).any(2))
    np.testing.assert_allclose([columns.min(), rows.min()], np.maximum(low, 0), atol=2)
    np.testing.assert_allclose([columns.max(), rows.max()], high, atol=2)
    assert (image[96, 96] != 128).any()


def test_a_frame_without_a_face_has_no_mesh():
    fits = fit() | {"seen": np.zeros(10, bool)}
    image = overlay_mesh(
        np.full((CONTACT_SHEET_CELL_SIZE, CONTACT_SHEET_CELL_SIZE, 3), 128, np.uint8),
        fits,
        get_analytic_head(),
        0,
        TWICE,
    )
    assert (image == 128).all()


def test_a_fit_of_another_model_is_told_and_not_drawn():
    clip = SHOWN | fit() | {"exp_coeffs": np.zeros((10, 3), np.float32)}
    notes = []
    image = render_clip_sheet(clip, get_analytic_head(), notes)
    assert "name the model of the fit with --mesh" in notes[0]
    assert image.shape[0] < 2 * CONTACT_SHEET_CELL_SIZE


def test_lips_apart_are_measured_in_eye_distances():
    points = np.zeros((1, 68, 2), np.float32)
    points[0, 45] = [80, 0]
    points[0, 66] = [0, 20]
    assert mouth_opening({"landmarks": points}) == pytest.approx([0.25])
    assert mouth_opening({}) is None


def test_the_sound_is_drawn_at_its_time():
    sound = np.zeros(10 * 640, np.float32)
    sound[5 * 640 : 6 * 640] = 0.9
    strip = sound_strip(sound, None, np.array([0]), 400)
    tall = (strip[: contact_sheet.SOUND_STRIP_HEIGHT] == contact_sheet.WAVE_COLOUR).all(2).sum(0)
    assert (tall[201:239] > 50).all()
    assert (tall[:199] <= 2).all()
    assert (tall[241:] <= 2).all()


def test_the_mouth_line_has_a_gap_where_no_face_was_seen():
    mouth = np.array([0.2, 0.2, np.nan, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2])
    strip = sound_strip(np.zeros(6400, np.float32), mouth, np.array([0]), 400)
    drawn = (strip == contact_sheet.MOUTH_COLOUR).all(2).any(0)
    assert drawn[10]
    assert drawn[200]
    assert not drawn[100]


def test_a_block_is_the_same_bytes_again():
    clip = SHOWN | {"sound": np.zeros(6400, np.float32)} | fit()
    assert (
        render_clip_sheet(clip, get_analytic_head(), []) == render_clip_sheet(clip, get_analytic_head(), [])
    ).all()


def test_what_is_known_of_a_clip_is_drawn_on_its_view():
    """A view of every 2nd frame, of the left upper quarter in twice the pixels."""
    points = np.full((20, 68, 2), np.nan, np.float32)
    points[8] = [30.0, 12.0]
    view = SHOWN | {
        "affine": np.tile([[2.0, 0, 0], [0, 2, 0]], (10, 1, 1)),
        "frame_at": np.arange(0, 20, 2),
        "landmarks": points,
    }
    image = render_clip_sheet(view, get_analytic_head(), [])
    row, column = (int(x.mean().round()) for x in np.nonzero((image[60:] == 255).all(2)))
    assert contact_sheet.sheet_frames(10)[3] == 4  # of the view: frame 8 of the clip, in the fourth cell
    assert column == pytest.approx(4 + 3 * (CONTACT_SHEET_CELL_SIZE + 4) + 30 * 4, abs=2)
    assert row + 60 == pytest.approx(24 + 26 + 4 + 12 * 4, abs=6)
