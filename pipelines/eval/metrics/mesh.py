"""Pose and eyes of a generated and of the real head, by MediaPipe's face mesh and iris net.

Both sides are seen by the same nets, whose own bias falls out of the difference.
"""

from __future__ import annotations

import numpy as np

from pipelines.eval.features import MESH_LANDMARKS_FEATURE
from pipelines.eval.metrics.akd import landmark_l2_per_frame
from pipelines.eval.metrics.metric import Metric

OUTER_EYE_LANDMARKS = (36, 45)
"""Of iBUG's 68 points."""


def normalized_mean_error_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,68,2) in pixels -> mean Euclidean distance of each frame (T,), in percent of the distance of the
    target's outer eye corners."""
    left, right = (target[:, corner].astype(np.float64) for corner in OUTER_EYE_LANDMARKS)
    return 100 * landmark_l2_per_frame(prediction, target) / np.linalg.norm(right - left, axis=-1)


def pose_difference_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,3), pitch, yaw and roll in degrees -> mean absolute difference of each frame (T,), the short way
    round."""
    difference = prediction.astype(np.float64) - target
    return np.abs((difference + 180) % 360 - 180).mean(axis=1)


def openness_difference_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,2), openness of the left and the right eye -> mean absolute difference of each frame (T,), in
    percent of an eye's width."""
    return 100 * np.abs(prediction.astype(np.float64) - target).mean(axis=1)


NME_MESH_METRIC = Metric(
    name="nme_mesh", title="NME (mesh)", variant="mean_euclidean_68_percent_of_outer_eye_corners",
    better="down", unit="%", per_frame=normalized_mean_error_per_frame, feature=MESH_LANDMARKS_FEATURE,
    field="landmarks",
    meaning="mean Euclidean distance of 68 points of MediaPipe's face mesh, in percent of the distance of "
    "the real face's outer eye corners",
)  # fmt: skip
POSE_MESH_METRIC = Metric(
    name="pose_mesh", title="Pose (mesh)", variant="mean_abs_pitch_yaw_roll", better="down", unit="°",
    per_frame=pose_difference_per_frame, feature=MESH_LANDMARKS_FEATURE, field="angles",
    cross_reference="driving",
    meaning="mean absolute difference of pitch, yaw and roll of a 3D head fitted to the same points",
)  # fmt: skip
BLINK_IRIS_METRIC = Metric(
    name="blink_iris", title="Eyelids (iris)", variant="mean_abs_openness_percent_of_eye_width",
    better="down", unit="%", per_frame=openness_difference_per_frame, feature=MESH_LANDMARKS_FEATURE,
    field="openness", cross_reference="driving",
    meaning="mean absolute difference of how far the eyes are open, lid from lid in percent of an eye's "
    "width, by MediaPipe's iris net; an open eye has some 20 to 30",
)  # fmt: skip
