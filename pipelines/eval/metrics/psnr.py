"""PSNR in dB, peak 1: of the pooled squared error (HeadGAN section 5), and as a mean over frames
(scikit-image style).

Jensen makes the second the larger one, so both are logged under their own name. Identical frames would be
infinite: they count as 100 dB.
"""

from __future__ import annotations

import numpy as np

from pipelines.eval.metrics.metric import Metric
from pipelines.eval.metrics.pictures import MAX_PIXEL, absolute_difference, check_pictures

MAX_PSNR_DB = 100.0


def mse_to_psnr(mse: np.ndarray) -> np.ndarray:
    """Mean squared errors of any shape -> dB, at most MAX_PSNR_DB."""
    floor = 10 ** (-MAX_PSNR_DB / 10)
    return -10 * np.log10(np.maximum(mse, floor))


def mse_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,H,W,3), uint8 or in [0,1] -> mean squared error of each frame (T,), peak 1"""
    check_pictures(prediction, target)
    differences = (absolute_difference(p, t).ravel() for p, t in zip(prediction, target, strict=True))
    return np.array([d @ d / len(d) for d in differences], np.float64) / MAX_PIXEL**2


def psnr_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,H,W,3), uint8 or in [0,1] -> dB of each frame (T,)"""
    return mse_to_psnr(mse_per_frame(prediction, target))


def _pooled(mse: float) -> float:
    return float(mse_to_psnr(np.array(mse)))


PSNR_POOLED_METRIC = Metric(
    name="psnr_pooled", title="PSNR (pooled)", variant="pooled_mse", better="up", unit="dB",
    per_frame=mse_per_frame, finish=_pooled,
    meaning="the same from the squared error pooled over all frames, which is always a little lower",
)  # fmt: skip
PSNR_FRAME_MEAN_METRIC = Metric(
    name="psnr_frame", title="PSNR", variant="frame_mean_cap100", better="up", unit="dB",
    per_frame=psnr_per_frame,
    meaning="peak signal-to-noise ratio, mean over frames; identical frames count as 100 dB",
)  # fmt: skip
