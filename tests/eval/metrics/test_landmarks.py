import numpy as np
import pytest

from pipelines.eval.features import METRIC_FEATURES
from pipelines.eval.metrics.landmarks import (
    LANDMARK_BACKENDS,
    landmark_box_size,
    landmark_difference,
    mean_landmark_distance,
    outer_eye_distance,
)


def test_every_backend_is_a_feature_with_landmarks():
    assert all("landmarks" in METRIC_FEATURES[one.feature].fields for one in LANDMARK_BACKENDS)


def test_the_size_of_the_box_is_the_golden_one(landmarks, golden):
    expected = golden["landmarks"]["box_norm_per_frame"]
    assert landmark_box_size(landmarks[1]) == pytest.approx(expected, abs=1e-9)
    widths_and_heights = np.array(golden["landmarks"]["box_wh_per_frame"])
    assert landmark_box_size(landmarks[1]) ** 2 == pytest.approx(widths_and_heights.prod(1), rel=1e-12)


def test_formula_landmarks_are_the_ones_the_golden_file_was_made_from(landmarks, golden):
    checks = golden["landmarks"]["checks"]
    assert landmarks[1].sum() == pytest.approx(checks["gt_sum"], abs=1e-9)
    assert landmarks[0].sum() == pytest.approx(checks["pred_sum"], abs=1e-9)
    assert landmarks[1][2, 67] == pytest.approx(checks["gt_2_67"], abs=1e-9)


def test_the_outer_corners_of_the_eyes_are_points_36_and_45():
    points = np.full((1, 68, 2), 7.0)
    points[0, 36], points[0, 45] = (10, 20), (13, 24)
    assert outer_eye_distance(points).tolist() == [5.0]


def test_a_shift_of_all_points_is_their_distance(landmarks):
    shifted = landmarks[0] + [3, 4]
    assert mean_landmark_distance(landmark_difference(shifted, landmarks[0])) == pytest.approx([5.0] * 3)
