"""Kernel distance between the features of generated and of real frames (Binkowski et al. 2018): of few frames
it is right in the mean, where a Frechet distance is too large.
"""

from __future__ import annotations

import numpy as np

from pipelines.eval.features import EFFICIENTNET_FEATURE, INCEPTION_PT_FEATURE
from pipelines.eval.metrics.feature_sample import MAX_SAMPLE_FRAMES, FeatureSample, feature_sample
from pipelines.eval.metrics.metric import Metric, is_present_per_frame

KERNEL_BLOCK = 512  # rows of a kernel matrix at a time: 20 MB for 5,000 frames


def kernel_distance(first: FeatureSample, second: FeatureSample) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy under (x y / D + 1)^3: no frame is compared
    with itself, so that equal distributions give 0 in the mean, and values below 0 as well as above. NaN
    where a set has fewer than two vectors.

    All vectors of both sets are compared, not subsets of a thousand.
    """
    x, y = first.vectors.astype(np.float64), second.vectors.astype(np.float64)
    n, m = len(x), len(y)
    if min(n, m) < 2:
        return float("nan")
    within = _sum_of_pairs(x) / (n * (n - 1)) + _sum_of_pairs(y) / (m * (m - 1))
    between = sum(float(_kernel(x[at : at + KERNEL_BLOCK], y).sum()) for at in range(0, n, KERNEL_BLOCK))
    return within - 2 * between / (n * m)


def _sum_of_pairs(x: np.ndarray) -> float:
    """Of the kernel over all ordered pairs of different rows."""
    total = 0.0
    for at in range(0, len(x), KERNEL_BLOCK):
        block = x[at : at + KERNEL_BLOCK]
        own = _kernel(block, block)
        total += float(own.sum() - np.trace(own))
        total += 2 * float(_kernel(block, x[at + KERNEL_BLOCK :]).sum())  # it is symmetric
    return total


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n,D), (m,D) -> (n,m)"""
    base = x @ y.T / x.shape[1] + 1
    return base * base * base


KERNEL_VARIANT = f"poly3_unbiased_{MAX_SAMPLE_FRAMES}_frames"
KID_PT_METRIC = Metric(
    name="kid_pt", title="KID", variant=f"pool3_2048_{KERNEL_VARIANT}_bilinear299", better="down", unit="",
    per_frame=is_present_per_frame, feature=INCEPTION_PT_FEATURE, field="pool_features",
    of_sets=kernel_distance, set_state=feature_sample, cross_reference="source_clip", on_request=True,
    meaning="kernel distance between the same sets by the same features as FID, of at most "
    f"{MAX_SAMPLE_FRAMES:,} frames each: right in the mean for few frames, about 0 for sets that are alike, "
    "and below 0 by chance",
)  # fmt: skip
KID_EFFLITE0_METRIC = Metric(
    name="kid_efflite0", title="KD (EffNet)", variant=f"head1280_{KERNEL_VARIANT}_256px", better="down",
    unit="", per_frame=is_present_per_frame, feature=EFFICIENTNET_FEATURE, field="head_features",
    of_sets=kernel_distance, set_state=feature_sample, cross_reference="source_clip",
    meaning="kernel distance between the same sets by the same 1280 features of EfficientNet-Lite0, of at "
    f"most {MAX_SAMPLE_FRAMES:,} frames each; not KID, but as that right in the mean for few frames: about 0 "
    "for sets that are alike, and below 0 by chance",
)  # fmt: skip
KID_METRICS = (KID_PT_METRIC, KID_EFFLITE0_METRIC)
