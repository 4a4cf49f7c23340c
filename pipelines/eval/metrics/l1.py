"""L1: mean absolute difference of RGB in [0,1] over channels, pixels and frames (FSRT tables 3 and 4;
HeadGAN: x255).

Frames of one protocol have one size, so the pooled mean and the mean over frames are the same number.
"""

from __future__ import annotations

import numpy as np

from pipelines.eval.metrics.metric import Metric
from pipelines.eval.metrics.pictures import MAX_PIXEL, absolute_difference, check_pictures


def l1_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,H,W,3), uint8 or in [0,1] -> (T,) in [0,1]"""
    check_pictures(prediction, target)
    pairs = zip(prediction, target, strict=True)
    return np.array([absolute_difference(p, t).mean() for p, t in pairs], np.float64) / MAX_PIXEL


L1_METRIC = Metric(
    name="l1", title="L1", variant="pooled_01", better="down", unit="[0,1]", per_frame=l1_per_frame,
    meaning="mean absolute difference of RGB values in [0,1]",
)  # fmt: skip
