"""L1: mean absolute difference of RGB in [0,1] over channels, pixels and frames (FSRT tables 3 and 4;
HeadGAN: x255).

Frames of one evaluation have one size, so the pooled mean and the mean over frames are the same number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.eval.metrics.metric import Metric, Sums, check_pair


@dataclass(frozen=True, slots=True)
class L1Sums(Sums):
    total: float = 0.0
    """Sum over frames of the frame's mean difference."""


def update(prediction: np.ndarray, target: np.ndarray) -> L1Sums:
    """Two (T,H,W,3) in [0,1] -> sums."""
    check_pair(prediction, target)
    difference = np.abs(prediction.astype(np.float64) - target)
    return L1Sums(n=float(len(target)), total=float(difference.mean(axis=(1, 2, 3)).sum()))


def compute(sums: L1Sums) -> float:
    return sums.total / sums.n if sums.n else float("nan")


L1 = Metric(
    name="l1", title="L1", variant="pooled_01", better="down", unit="[0,1]", reads="frames",
    state=L1Sums, update=update, compute=compute,
)  # fmt: skip
