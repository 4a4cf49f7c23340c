"""Count, sum and sum of squares of feature vectors: states of any frames add up to that of all of them.

D = length of a vector. Numbers are float64.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct


class FeatureMoments(Struct, frozen=True, eq=False):
    n: int
    """Vectors."""
    total: np.ndarray
    """(D,), their sum."""
    outer: np.ndarray
    """(D,D), the sum of each one's outer product with itself."""

    def __add__(self, other: FeatureMoments) -> FeatureMoments:
        return FeatureMoments(self.n + other.n, self.total + other.total, self.outer + other.outer)

    @property
    def mean(self) -> np.ndarray:
        """(D,)"""
        return self.total / self.n

    @property
    def covariance(self) -> np.ndarray:
        """(D,D), unbiased (n - 1); of two vectors or more."""
        mean = self.mean
        return (self.outer - self.n * np.outer(mean, mean)) / (self.n - 1)


def feature_moments(vectors: np.ndarray) -> FeatureMoments:
    """(n,D) -> their moments."""
    exact = vectors.astype(np.float64)
    return FeatureMoments(len(exact), exact.sum(0), exact.T @ exact)
