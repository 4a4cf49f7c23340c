"""Average keypoint distance over 68 landmarks, in pixels of a 256 px frame.

`akd_l1_*` is what the field computes (pose-evaluation): the mean absolute coordinate difference over the 68x2
numbers, then over frames; `akd_l2_*` is the mean Euclidean distance. pose-evaluation takes `fan2d`, without
its flip, and the first face of several where the largest is taken here. A frame without a face, of the method
or of the truth, has no value.
"""

from __future__ import annotations

import numpy as np

from pipelines.eval.metrics.landmarks import (
    LANDMARK_BACKENDS,
    LandmarkBackend,
    landmark_difference,
    mean_landmark_distance,
)
from pipelines.eval.metrics.metric import Metric


def landmark_l1_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,68,2) in pixels -> mean absolute coordinate difference of each frame (T,)"""
    return np.asarray(np.abs(landmark_difference(prediction, target)).mean(axis=-1).mean(axis=1))


def landmark_l2_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,68,2) in pixels -> mean Euclidean distance of each frame (T,)"""
    return mean_landmark_distance(landmark_difference(prediction, target))


def _akd_metrics(backend: LandmarkBackend) -> tuple[Metric, Metric]:
    return (
        Metric(
            name=f"akd_l1_{backend.suffix}", title=f"AKD ({backend.title})", variant="mean_abs_68x2_256px",
            better="down", unit="px", feature=backend.feature, field="landmarks",
            per_frame=landmark_l1_per_frame,
            on_request=backend.on_request,
            meaning=f"mean absolute coordinate difference of {backend.points}, in pixels of a 256 px frame",
        ),
        Metric(
            name=f"akd_l2_{backend.suffix}", title=f"AKD L2 ({backend.title})",
            variant="mean_euclidean_68_256px", better="down", unit="px", feature=backend.feature,
            field="landmarks", per_frame=landmark_l2_per_frame,
            on_request=backend.on_request,
            meaning="mean Euclidean distance of the same points",
        ),
    )  # fmt: skip


AKD_METRICS = tuple(metric for backend in LANDMARK_BACKENDS for metric in _akd_metrics(backend))
