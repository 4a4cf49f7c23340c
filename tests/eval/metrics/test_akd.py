import numpy as np
import pytest

from pipelines.eval.metrics import METRICS, sum_frame_values
from pipelines.eval.metrics.akd import landmark_l1_per_frame


@pytest.mark.parametrize("backend", ["dlib", "mesh", "fan2d"])
@pytest.mark.parametrize(("form", "name"), [("l1", "akd_fomm_l1_mean"), ("l2", "akd_euclidean_mean")])
def test_akd_is_the_golden_one(landmarks, golden, backend, form, name):
    metric = METRICS[f"akd_{form}_{backend}"]
    value = metric.compute(sum_frame_values(metric.per_frame(*landmarks)))
    assert value == pytest.approx(golden["landmarks"][name], abs=1e-12)


def test_both_axes_together_differ_by_twice_their_mean(landmarks, golden):
    expected = golden["landmarks"]["akd_l1_sum_xy"]
    assert 2 * landmark_l1_per_frame(*landmarks).mean() == pytest.approx(expected, abs=1e-12)


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
