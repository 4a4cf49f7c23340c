"""Frechet distance between the features of generated and of real frames (Dowson and Landau 1982; Heusel et
al. 2017), of EfficientNet-Lite0 in place of Inception: never to be called FID.

Frames of one clip are near duplicates, and below some 2,000 frames the covariance of 1280 features is
singular: only distances of as many frames of the same pairs compare. `fd_efflite0_b15` is of the 320
features of the last block, for small sets.
"""

from __future__ import annotations

import numpy as np

from pipelines.eval.features import EFFICIENTNET_FEATURE
from pipelines.eval.metrics.metric import Metric, is_present_per_frame
from pipelines.eval.metrics.moments import FeatureMoments


def frechet_distance(first: FeatureMoments, second: FeatureMoments, ddof: int = 1) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 sqrt(S1 S2)), of covariances over n - ddof; NaN where a set has fewer than
    two vectors.

    tr sqrt(S1 S2) is the sum of the square roots of the eigenvalues of R S2 R, R = sqrt(S1): symmetric
    matrices alone, so that nothing is complex and singular covariances do no harm.
    """
    if min(first.n, second.n) < 2:
        return float("nan")
    difference = first.mean - second.mean
    covariance, other = (one.covariance * ((one.n - 1) / (one.n - ddof)) for one in (first, second))
    root = _symmetric_square_root(covariance)
    eigenvalues = np.linalg.eigvalsh(root @ other @ root)
    trace = np.trace(covariance) + np.trace(other) - 2 * np.sqrt(eigenvalues.clip(0)).sum()
    return max(0.0, float(difference @ difference + trace))  # rounding may leave less than 0 of equal sets


def _symmetric_square_root(matrix: np.ndarray) -> np.ndarray:
    """(D,D) symmetric, without negative eigenvalues but those of rounding."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


FD_EFFLITE0_METRIC = Metric(
    name="fd_efflite0", title="FD (EffNet)", variant="head1280_ddof1_256px", better="down", unit="",
    per_frame=is_present_per_frame, feature=EFFICIENTNET_FEATURE, field="head_features",
    of_sets=frechet_distance, cross_reference="source_clip",
    meaning="Frechet distance between the sets of generated and real frames (in cross-reenactment: of the "
    "sources' clips) by 1280 features of EfficientNet-Lite0; not FID, and of few frames only comparable with "
    "the same number",
)  # fmt: skip
FD_EFFLITE0_B15_METRIC = Metric(
    name="fd_efflite0_b15", title="FD b15 (EffNet)", variant="block15_320_ddof1_256px", better="down",
    unit="", per_frame=is_present_per_frame, feature=EFFICIENTNET_FEATURE, field="block_features",
    of_sets=frechet_distance, cross_reference="source_clip",
    meaning="the same by the 320 features of its last block, which fewer frames suffice for",
)  # fmt: skip
