"""Pose of a generated and of the real head: Directions' Pose and HeadGAN's ARD, the mean absolute difference
of three angles, whole or one by one, and ARE, their distance from a frontal head.

Pose and ARD are one arithmetic under two names, of two backends in the papers (DECA; the camera of a 3D fit).
HeadGAN does not say whether it takes the sum over the angles or their mean: here it is the mean. Both sides
are seen by the same nets, whose own bias falls out of the difference.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from pipelines.eval.features import DECA_FEATURE, MESH_LANDMARKS_FEATURE
from pipelines.eval.metrics.metric import Metric

ANGLES = ("pitch", "yaw", "roll")


def angle_difference(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two arrays of degrees -> their absolute difference, the short way round: from 0 to 180."""
    return np.abs((prediction.astype(np.float64) - target + 180) % 360 - 180)


def pose_difference_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,3), pitch, yaw and roll in degrees -> mean absolute difference of each frame (T,)."""
    return angle_difference(prediction, target).mean(axis=1)


def one_angle_difference_per_frame(prediction: np.ndarray, target: np.ndarray, angle: int) -> np.ndarray:
    """Two (T,3), pitch, yaw and roll in degrees -> absolute difference in one of them of each frame (T,)."""
    return angle_difference(prediction[:, angle], target[:, angle])


def distance_from_frontal_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(T,3), pitch, yaw and roll in degrees -> their mean absolute value of each frame (T,), whatever the
    target."""
    return pose_difference_per_frame(prediction, np.zeros(3))


POSE_MESH_METRIC = Metric(
    name="pose_mesh", title="Pose (mesh)", variant="mean_abs_pitch_yaw_roll", better="down", unit="°",
    per_frame=pose_difference_per_frame, feature=MESH_LANDMARKS_FEATURE, field="angles",
    cross_reference="driving",
    meaning="mean absolute difference of pitch, yaw and roll of a 3D head fitted to the same points",
)  # fmt: skip
POSE_DECA_METRIC = Metric(
    name="pose_deca", title="Pose (DECA)", variant="mean_abs_pitch_yaw_roll", better="down", unit="°",
    per_frame=pose_difference_per_frame, feature=DECA_FEATURE, field="angles", cross_reference="driving",
    on_request=True,
    meaning="mean absolute difference of pitch, yaw and roll by DECA, as in Directions",
)  # fmt: skip
ARD_MESH_METRIC = Metric(
    name="ard_mesh", title="ARD (mesh)", variant="mean_abs_pitch_yaw_roll", better="down", unit="°",
    per_frame=pose_difference_per_frame, feature=MESH_LANDMARKS_FEATURE, field="angles",
    cross_reference="driving", on_request=True,
    meaning="average rotation distance: HeadGAN's name for what pose_mesh measures",
)  # fmt: skip
ONE_ANGLE_MESH_METRICS = tuple(
    Metric(
        name=f"ard_{angle}_mesh", title=f"ARD {angle} (mesh)", variant=f"mean_abs_{angle}", better="down",
        unit="°", per_frame=partial(one_angle_difference_per_frame, angle=n),
        feature=MESH_LANDMARKS_FEATURE, field="angles", cross_reference="driving", on_request=True,
        meaning=f"mean absolute difference of {angle} of a 3D head fitted to the mesh's points",
    )
    for n, angle in enumerate(ANGLES)
)  # fmt: skip
ARE_MESH_METRIC = Metric(
    name="are_mesh", title="ARE (mesh)", variant="mean_abs_pitch_yaw_roll_from_0", better="down", unit="°",
    per_frame=distance_from_frontal_per_frame, feature=MESH_LANDMARKS_FEATURE, field="angles",
    reference="none", cross_reference="none", edited_only=True,
    meaning="average rotation error of frontalisation: mean absolute pitch, yaw and roll of a 3D head fitted "
    "to the mesh's points; 0 = it looks straight ahead",
)  # fmt: skip
POSE_METRICS = (
    POSE_MESH_METRIC, POSE_DECA_METRIC, ARD_MESH_METRIC, *ONE_ANGLE_MESH_METRICS, ARE_MESH_METRIC,
)  # fmt: skip
