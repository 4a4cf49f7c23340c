import numpy as np
import pytest

from pipelines.eval.metrics import sum_frame_values
from pipelines.eval.metrics.akd import AKD_L1_DLIB_METRIC, AKD_L2_DLIB_METRIC, landmark_l1_per_frame


def test_akd_l1_is_the_golden_one(landmarks, golden):
    value = AKD_L1_DLIB_METRIC.compute(sum_frame_values(AKD_L1_DLIB_METRIC.per_frame(*landmarks)))
    assert value == pytest.approx(golden["landmarks"]["akd_fomm_l1_mean"], abs=1e-12)


def test_akd_l2_is_the_golden_one(landmarks, golden):
    value = AKD_L2_DLIB_METRIC.compute(sum_frame_values(AKD_L2_DLIB_METRIC.per_frame(*landmarks)))
    assert value == pytest.approx(golden["landmarks"]["akd_euclidean_mean"], abs=1e-12)


def test_the_distance_of_each_frame_is_the_golden_one(landmarks, golden):
    values = landmark_l1_per_frame(*landmarks)
    assert values == pytest.approx(golden["landmarks"]["akd_fomm_per_frame"], abs=1e-12)


@pytest.mark.parametrize("side", [0, 1])
def test_a_frame_without_a_face_on_either_side_has_no_value(landmarks, side):
    points = [one.copy() for one in landmarks]
    points[side][1] = np.nan
    assert np.isfinite(landmark_l1_per_frame(*points)).tolist() == [True, False, True]


def test_landmarks_of_another_number_are_refused(landmarks):
    with pytest.raises(ValueError, match=r"expected two equal \(T,68,2\)"):
        landmark_l1_per_frame(landmarks[0][:, :5], landmarks[1][:, :5])
