"""Pose of a generated and of the real head, by MediaPipe's face mesh and a 3D head fitted to it.

Both sides are seen by the same nets, whose own bias falls out of the difference.
"""

from __future__ import annotations

import numpy as np

from pipelines.eval.features import MESH_LANDMARKS_FEATURE
from pipelines.eval.metrics.metric import Metric


def pose_difference_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,3), pitch, yaw and roll in degrees -> mean absolute difference of each frame (T,), the short way
    round."""
    difference = prediction.astype(np.float64) - target
    return np.abs((difference + 180) % 360 - 180).mean(axis=1)


POSE_MESH_METRIC = Metric(
    name="pose_mesh", title="Pose (mesh)", variant="mean_abs_pitch_yaw_roll", better="down", unit="°",
    per_frame=pose_difference_per_frame, feature=MESH_LANDMARKS_FEATURE, field="angles",
    cross_reference="driving",
    meaning="mean absolute difference of pitch, yaw and roll of a 3D head fitted to the same points",
)  # fmt: skip
