"""PSNR in dB, peak 1: of the pooled squared error (HeadGAN section 5), and as a mean over frames
(scikit-image style).

Jensen makes the second the larger one, so both are logged under their own name. Identical frames would be
infinite: they count as 100 dB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.eval.metrics.metric import Metric, Sums, check_pair

CAP_DB = 100.0


@dataclass(frozen=True, slots=True)
class PooledSums(Sums):
    squared: float = 0.0
    """Sum over frames of the frame's mean squared error."""


@dataclass(frozen=True, slots=True)
class FrameSums(Sums):
    decibels: float = 0.0
    """Sum over frames, each capped."""
    capped: float = 0.0
    """Frames that reached the cap."""


def decibels(mse: np.ndarray) -> np.ndarray:
    """Mean squared errors of any shape -> dB, at most CAP_DB."""
    floor = 10 ** (-CAP_DB / 10)
    return -10 * np.log10(np.maximum(mse, floor))


def _frame_mse(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    check_pair(prediction, target)
    return ((prediction.astype(np.float64) - target) ** 2).mean(axis=(1, 2, 3))  # (T,)


def update_pooled(prediction: np.ndarray, target: np.ndarray) -> PooledSums:
    """Two (T,H,W,3) in [0,1] -> sums."""
    mse = _frame_mse(prediction, target)
    return PooledSums(n=float(len(mse)), squared=float(mse.sum()))


def update_frame(prediction: np.ndarray, target: np.ndarray) -> FrameSums:
    """Two (T,H,W,3) in [0,1] -> sums."""
    values = decibels(_frame_mse(prediction, target))
    return FrameSums(
        n=float(len(values)), decibels=float(values.sum()), capped=float((values >= CAP_DB).sum())
    )


def compute_pooled(sums: PooledSums) -> float:
    return float(decibels(np.array(sums.squared / sums.n))) if sums.n else float("nan")


def compute_frame(sums: FrameSums) -> float:
    return sums.decibels / sums.n if sums.n else float("nan")


PSNR_POOLED = Metric(
    name="psnr_pooled", title="PSNR (pooled)", variant="pooled_mse", better="up", unit="dB", reads="frames",
    state=PooledSums, update=update_pooled, compute=compute_pooled,
)  # fmt: skip
PSNR_FRAME = Metric(
    name="psnr_frame", title="PSNR", variant="frame_mean_cap100", better="up", unit="dB", reads="frames",
    state=FrameSums, update=update_frame, compute=compute_frame,
)  # fmt: skip
