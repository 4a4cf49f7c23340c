import numpy as np
import pytest

from pipelines.eval.metrics.pose import (
    angle_difference,
    distance_from_frontal_per_frame,
    one_angle_difference_per_frame,
    pose_difference_per_frame,
)


@pytest.fixture
def heads(golden):
    """The golden file's generated and driving angles (5,3)."""
    return tuple(np.array(golden["ard"][side], np.float64) for side in ("generated", "driving"))


def test_the_difference_of_pose_is_the_golden_one(golden):
    sides = (np.array([golden["pose"][side]], dtype=float) for side in ("generated", "target"))
    assert pose_difference_per_frame(*sides) == pytest.approx(golden["pose"]["l1_mean_of_3_deg"], abs=1e-12)


def test_the_average_rotation_distance_is_the_golden_one(heads, golden):
    found = pose_difference_per_frame(*heads).mean()
    assert found == pytest.approx(golden["ard"]["ard_mean_abs_over_3_angles"], abs=1e-12)


def test_the_distances_of_single_angles_add_up_to_the_golden_sum(heads, golden):
    found = sum(one_angle_difference_per_frame(*heads, angle=n).mean() for n in range(3))
    assert found == pytest.approx(golden["ard"]["ard_sum_over_3_angles_mean_frames"], abs=1e-12)


def test_the_average_rotation_error_is_the_golden_one(heads, golden):
    found = distance_from_frontal_per_frame(*heads).mean()
    assert found == pytest.approx(golden["ard"]["are_mean_abs_generated"], abs=1e-12)


def test_angles_differ_the_short_way_round(golden):
    case = golden["ard"]["wrap_example"]
    a, b = np.array([case["a"], 0.0]), np.array([case["b"], 180.0])
    assert angle_difference(a, b) == pytest.approx([case["diff_wrapped"], 180])
    a, b = np.array([[0.0, 0, 179]]), np.array([[0.0, 0, -178]])
    assert pose_difference_per_frame(a, b) == pytest.approx(1)


def test_a_frame_without_a_face_has_no_pose():
    generated, real = np.zeros((2, 3)), np.zeros((2, 3))
    generated[1] = np.nan
    assert np.isfinite(pose_difference_per_frame(generated, real)).tolist() == [True, False]
    assert np.isfinite(distance_from_frontal_per_frame(generated, real)).tolist() == [True, False]
