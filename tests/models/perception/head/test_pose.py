import json
from pathlib import Path

import numpy as np
import pytest

from models.perception.head.pose import (
    AXIS_FLIP,
    euler_to_rotation,
    nearest_rotation,
    project,
    rotation_to_euler,
)

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "euler.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda c: str(c["pitch_yaw_roll"]))
def test_the_golden_rotations_up_to_the_flip(case):
    assert euler_to_rotation(*case["pitch_yaw_roll"]) == pytest.approx(
        AXIS_FLIP @ np.array(case["R"]), abs=1e-12
    )
    assert rotation_to_euler(AXIS_FLIP @ np.array(case["R"])) == pytest.approx(
        np.array(case["recovered"]), abs=1e-9
    )


def test_gimbal_lock_gives_the_golden_pitch_and_no_roll():
    case = GOLDEN["gimbal_case"]
    assert rotation_to_euler(AXIS_FLIP @ np.array(case["R"])) == pytest.approx(
        np.array(case["recovered"]), abs=1e-9
    )


def test_a_frontal_head_has_the_flip_alone():
    assert euler_to_rotation(0, 0, 0) == pytest.approx(np.diag([1, -1, -1]))


def test_angles_survive_the_round_trip_in_a_batch():
    angles = np.random.default_rng(0).uniform(-80, 80, (50, 3))
    rotation = euler_to_rotation(*angles.T)
    assert rotation.shape == (50, 3, 3)
    assert rotation_to_euler(rotation) == pytest.approx(angles)


def test_the_signs_are_those_the_docstring_says():
    nose, crown = np.array([[0.0, 0.0, 1.0]]), np.array([[0.0, 1.0, 0.0]])

    def at(point, *angles):
        return project(point, 1.0, euler_to_rotation(*angles), np.zeros(3))[0]

    assert at(nose, 0, 20, 0)[0] > 0.3  # yaw: the nose goes right
    assert at(nose, 20, 0, 0)[1] > 0.3  # pitch: the nose goes down
    assert at(crown, 0, 0, 20)[0] < -0.3  # roll: the crown goes left


def test_nearest_rotation_undoes_shear_and_is_never_a_mirror():
    rng = np.random.default_rng(1)
    rotation = euler_to_rotation(10, -30, 5)
    near = nearest_rotation(rotation + rng.normal(0, 0.02, (3, 3)))
    assert near @ near.T == pytest.approx(np.eye(3), abs=1e-12)
    assert near == pytest.approx(rotation, abs=0.06)
    assert np.linalg.det(nearest_rotation(rng.normal(0, 1, (20, 3, 3)))) == pytest.approx(np.ones(20))
