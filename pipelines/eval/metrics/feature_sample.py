"""Feature vectors of a limited number of frames, for figures that need the vectors themselves: states of any
frames add up to that of all of them, in any order.

Which frames are kept is a matter of their names alone: a sample without regard to what they show, the same
for every method of a protocol.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

MAX_SAMPLE_FRAMES = 5_000
"""Of 2,048 features 41 MB."""


class FeatureSample(Struct, frozen=True, eq=False):
    hashes: np.ndarray
    """(n,) uint64, rising: of the frames' names; the lowest are kept."""
    vectors: np.ndarray
    """(n,D) float32"""

    def __add__(self, other: FeatureSample) -> FeatureSample:
        return _lowest(
            np.concatenate([self.hashes, other.hashes]), np.concatenate([self.vectors, other.vectors])
        )


def feature_sample(names: Sequence[str], vectors: np.ndarray) -> FeatureSample:
    """names: of n frames, no two alike; vectors (n,D)."""
    hashes = [int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) for name in names]
    return _lowest(np.array(hashes, np.uint64), vectors.astype(np.float32))


def _lowest(hashes: np.ndarray, vectors: np.ndarray) -> FeatureSample:
    order = np.argsort(hashes, kind="stable")[:MAX_SAMPLE_FRAMES]
    return FeatureSample(hashes[order], vectors[order])
