"""Average keypoint distance over 68 landmarks, in pixels of a 256 px frame.

`akd_l1_*` is what the field computes (pose-evaluation): the mean absolute coordinate difference over the 68x2
numbers, then over frames; `akd_l2_*` is the mean Euclidean distance. The landmarker is the same on both sides
and is part of the metric's name, because values of different landmarkers do not compare. A frame without a
face, of the method or of the truth, has no value.
"""

from __future__ import annotations

import numpy as np

from pipelines.eval.features import DLIB_LANDMARKS_FEATURE, MESH_LANDMARKS_FEATURE
from pipelines.eval.metrics.metric import Metric


def _difference(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    if prediction.shape != target.shape or prediction.shape[1:] != (68, 2):
        raise ValueError(f"landmarks {prediction.shape} and {target.shape}: expected two equal (T,68,2)")
    return prediction.astype(np.float64) - target


def landmark_l1_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,68,2) in pixels -> mean absolute coordinate difference of each frame (T,)"""
    return np.abs(_difference(prediction, target)).mean(axis=-1).mean(axis=1)


def landmark_l2_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,68,2) in pixels -> mean Euclidean distance of each frame (T,)"""
    return np.linalg.norm(_difference(prediction, target), axis=-1).mean(axis=1)


AKD_L1_DLIB_METRIC = Metric(
    name="akd_l1_dlib", title="AKD (dlib)", variant="mean_abs_68x2_256px", better="down", unit="px",
    per_frame=landmark_l1_per_frame, feature=DLIB_LANDMARKS_FEATURE, field="landmarks",
    meaning="mean absolute coordinate difference of 68 landmarks, in pixels of a 256 px frame",
)  # fmt: skip
AKD_L2_DLIB_METRIC = Metric(
    name="akd_l2_dlib", title="AKD L2 (dlib)", variant="mean_euclidean_68_256px", better="down", unit="px",
    per_frame=landmark_l2_per_frame, feature=DLIB_LANDMARKS_FEATURE, field="landmarks",
    meaning="mean Euclidean distance of the same landmarks",
)  # fmt: skip
AKD_L1_MESH_METRIC = Metric(
    name="akd_l1_mesh", title="AKD (mesh)", variant="mean_abs_68x2_256px", better="down", unit="px",
    per_frame=landmark_l1_per_frame, feature=MESH_LANDMARKS_FEATURE, field="landmarks",
    meaning="as AKD (dlib), of 68 points of MediaPipe's face mesh, eyelids by its iris net",
)  # fmt: skip
AKD_L2_MESH_METRIC = Metric(
    name="akd_l2_mesh", title="AKD L2 (mesh)", variant="mean_euclidean_68_256px", better="down", unit="px",
    per_frame=landmark_l2_per_frame, feature=MESH_LANDMARKS_FEATURE, field="landmarks",
    meaning="mean Euclidean distance of the same points",
)  # fmt: skip
