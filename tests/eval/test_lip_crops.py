"""Where SyncNet's faces are cut out, against the authors' rule followed step by step."""

import cv2
import numpy as np
import pytest
from scipy.signal import medfilt

from pipelines.eval.lip_crops import (
    crop_faces,
    face_track,
    finite_runs,
    landmark_boxes,
    resize_to_face_side,
)

T = 40


@pytest.fixture
def boxes():
    """A face that wanders and changes its size."""
    rng = np.random.default_rng(0)
    centre = 128 + np.cumsum(rng.normal(0, 3, (T, 2)), axis=0)
    half = np.stack([45 + rng.normal(0, 3, T), 60 + rng.normal(0, 4, T)], axis=1)
    return np.concatenate([centre - half, centre + half], axis=1)


def test_centre_and_size_are_medians_of_thirteen_frames_as_scipys(boxes):
    track = face_track(boxes)
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    s = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) / 2
    for found, values in zip(track.T, (x, y, s), strict=True):
        np.testing.assert_allclose(found, medfilt(values, kernel_size=13), rtol=1e-12)


def test_a_short_clip_has_one_place_and_not_zeros(boxes):
    track = face_track(boxes[:5])
    assert (track == track[0]).all()
    assert track[0, 2] == pytest.approx(60, abs=10)


def test_a_face_is_followed_over_frames_in_which_it_is_not_found(boxes):
    seen = boxes.copy()
    seen[10:20] = np.nan
    assert np.isfinite(face_track(seen)).all()
    straight = np.linspace(seen[9], seen[20], 12)[1:-1]
    bridged = np.concatenate([boxes[:10], straight, boxes[20:]])
    np.testing.assert_allclose(face_track(seen)[:, :2], face_track(bridged)[:, :2], rtol=1e-12)


def test_it_is_not_followed_before_after_and_for_more_than_a_second(boxes):
    long = np.concatenate([boxes, boxes])
    long[[0, 79]] = np.nan
    long[20:46] = np.nan
    runs = finite_runs(face_track(long))
    assert [(run.start, run.stop) for run in runs] == [(1, 20), (46, 79)]


def test_landmarks_have_a_box_and_missing_ones_none():
    points = np.random.default_rng(1).uniform(50, 200, (3, 68, 2))
    points[1] = np.nan
    boxes = landmark_boxes(points)
    np.testing.assert_array_equal(boxes[0], [*points[0].min(0), *points[0].max(0)])
    assert np.isnan(boxes[1]).all()


def authors_crop(frame, x, y, s):
    """As run_pipeline.py cuts a face out."""
    border = int(s * (1 + 2 * 0.4))
    padded = np.pad(frame, ((border, border), (border, border), (0, 0)), constant_values=(110, 110))
    my, mx = y + border, x + border
    face = padded[
        int(my - s) : int(my + s * (1 + 2 * 0.4)), int(mx - s * (1 + 0.4)) : int(mx + s * (1 + 0.4))
    ]
    return cv2.resize(face, (224, 224))


@pytest.mark.parametrize("place", [(128, 120, 60), (40.7, 33.2, 55.5), (250, 128, 70)])
def test_the_crop_is_the_authors(place):
    frame = np.random.default_rng(2).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    frame = cv2.GaussianBlur(frame, (0, 0), 3)
    (found,) = crop_faces(frame[None], np.array([place], float)).permute(0, 2, 3, 1).numpy()
    expected = authors_crop(frame, *place).astype(float)
    assert np.abs(found - expected).max() <= 1  # OpenCV interpolates in fixed point
    assert np.abs(found - expected).mean() < 0.1


def test_a_face_at_the_edge_has_grey_beside_it():
    frame = np.zeros((1, 256, 256, 3), np.uint8)
    face = crop_faces(frame, np.array([[10.0, 128.0, 60.0]]))
    assert (face[0, :, :, 0] == 110).all()
    assert (face[0, :, :, -1] == 0).all()


def test_a_whole_frame_is_resized_as_opencv_does():
    frames = np.random.default_rng(3).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    found = resize_to_face_side(frames).permute(0, 2, 3, 1).numpy()
    for one, frame in zip(found, frames, strict=True):
        assert np.abs(one - cv2.resize(frame, (224, 224)).astype(float)).max() <= 1
