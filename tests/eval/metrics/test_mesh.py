import numpy as np
import pytest

from pipelines.eval.metrics import sum_frame_values
from pipelines.eval.metrics.mesh import (
    NME_MESH_METRIC,
    normalized_mean_error_per_frame,
    openness_difference_per_frame,
    pose_difference_per_frame,
)


def test_nme_is_the_golden_one(landmarks, golden):
    value = NME_MESH_METRIC.compute(sum_frame_values(normalized_mean_error_per_frame(*landmarks)))
    assert value == pytest.approx(golden["landmarks"]["nme_interocular_36_45_percent"], abs=1e-12)


def test_nme_does_not_depend_on_the_size_of_the_face(landmarks):
    small = [one / 4 for one in landmarks]
    assert normalized_mean_error_per_frame(*small) == pytest.approx(
        normalized_mean_error_per_frame(*landmarks)
    )


def test_the_difference_of_pose_is_the_golden_one(golden):
    sides = (np.array([golden["pose"][side]], dtype=float) for side in ("generated", "target"))
    assert pose_difference_per_frame(*sides) == pytest.approx(golden["pose"]["l1_mean_of_3_deg"], abs=1e-12)


def test_angles_differ_the_short_way_round():
    a, b = np.array([[0.0, 0.0, 179.0]]), np.array([[0.0, 0.0, -178.0]])
    assert pose_difference_per_frame(a, b) == pytest.approx(1.0)


def test_an_eye_that_is_shut_beside_an_open_one_differs_by_half_of_its_openness():
    a, b = np.array([[0.3, 0.3]]), np.array([[0.0, 0.3]])
    assert openness_difference_per_frame(a, b) == pytest.approx(15.0)


def test_a_frame_without_a_face_has_no_value(landmarks):
    prediction, target = (one.copy() for one in landmarks)
    prediction[1] = np.nan
    for measure, cut in (
        (normalized_mean_error_per_frame, slice(None)),
        (pose_difference_per_frame, (slice(None), 0, [0, 0, 1])),
        (openness_difference_per_frame, (slice(None), 0)),
    ):
        assert np.isfinite(measure(prediction[cut], target[cut])).tolist() == [True, False, True]
