import numpy as np
import pytest

from pipelines.eval.metrics.mesh import pose_difference_per_frame


def test_the_difference_of_pose_is_the_golden_one(golden):
    sides = (np.array([golden["pose"][side]], dtype=float) for side in ("generated", "target"))
    assert pose_difference_per_frame(*sides) == pytest.approx(golden["pose"]["l1_mean_of_3_deg"], abs=1e-12)


def test_angles_differ_the_short_way_round():
    a, b = np.array([[0.0, 0.0, 179.0]]), np.array([[0.0, 0.0, -178.0]])
    assert pose_difference_per_frame(a, b) == pytest.approx(1.0)


def test_a_frame_without_a_face_has_no_pose():
    generated, real = np.zeros((2, 3)), np.zeros((2, 3))
    generated[1] = np.nan
    assert np.isfinite(pose_difference_per_frame(generated, real)).tolist() == [True, False]
