"""L1: mean absolute difference of RGB in [0,1] over channels, pixels and frames (FSRT tables 3 and 4;
HeadGAN: x255).

Frames of one protocol have one size, so the pooled mean and the mean over frames are the same number.
"""

from __future__ import annotations

import numpy as np

from pipelines.eval.metrics.metric import Metric, check_same_shape


def l1_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,H,W,3) in [0,1] -> (T,)"""
    check_same_shape(prediction, target)
    return np.abs(prediction.astype(np.float64) - target).mean(axis=(1, 2, 3))


L1_METRIC = Metric(
    name="l1", title="L1", variant="pooled_01", better="down", unit="[0,1]", per_frame=l1_per_frame,
    meaning="mean absolute difference of RGB values in [0,1]",
)  # fmt: skip
