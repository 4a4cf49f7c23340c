"""How unlike two people's faces are: the two-covariance model of speaker recognition on face embeddings.

An embedding of a clip is taken as the sum of a person (Gaussian, with the covariance between people) and of a
recording (Gaussian, with the covariance within people). The distance of two people is the logarithm of how
much better the data fit two people than one (Bruemmer & de Villiers, The speaker partitioning problem, 2010),
a dimension: below 0 one person is likelier. Both covariances come from the corpus itself. Distances of bare
embeddings will not do: those of a net depend on the kind of pictures, and at dlib's 0.6 all rendered people
are one person, and some 5 % of pairs of real ones.
Legend: N people, C clips, K frames of a clip, D numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

MIN_IDENTITIES = 5
"""With fewer people there is no telling how much people differ."""
FRAME_SHRINKAGE, PEOPLE_SHRINKAGE = 0.1, 0.3
"""Share of each covariance that is a multiple of the identity matrix: there are few frames and people."""
USUAL_RECORDING_VARIANCE, USUAL_RECORDING_CLIPS = 0.3, 4
"""Variance of a clip's mean embedding about its person's, in variances of a frame about its clip's, as
measured on rendered and real clips; it counts like so many clips of the corpus."""
SHARED_VARIANCE = 0.5
"""Share of it that more clips of a person do not average out: lamps, cameras, years they have in common."""


class IdentityModel(Struct, frozen=True):
    """What is known of people and recordings, in a space where both covariances are diagonal."""

    mean: np.ndarray
    """(D,) of all people."""
    projection: np.ndarray
    """(D,D): (embedding - mean) @ projection lies in that space."""
    between: np.ndarray
    """(D,) variances of people."""
    within: float
    """Variance of a clip's mean embedding about its person's, equal in all dimensions."""

    def project(self, embeddings: np.ndarray) -> np.ndarray:
        """(...,D) -> (...,D)"""
        return (embeddings - self.mean) @ self.projection

    def mean_variance(self, clips: np.ndarray) -> np.ndarray:
        """Number of clips (N,) -> variance (N,) of their mean about their person's."""
        return self.within * (SHARED_VARIANCE + (1 - SHARED_VARIANCE) / clips)

    def distances(
        self, one: np.ndarray, one_clips: np.ndarray, others: np.ndarray, other_clips: np.ndarray
    ) -> np.ndarray:
        """Projected means (M,D) of so many clips (M,), and (N,D), (N,) -> (M,N) float64."""
        total = self.between + self.mean_variance(other_clips)[:, None]  # (N,D)
        out = np.empty((len(one), len(others)))
        for row, (mean, clips) in enumerate(zip(one, one_clips, strict=True)):
            out[row] = self._distances_to(mean, self.between + self.mean_variance(clips), others, total)
        return out

    def paired_distances(
        self, one: np.ndarray, one_clips: np.ndarray, others: np.ndarray, other_clips: np.ndarray
    ) -> np.ndarray:
        """As `distances`, of each row with that of the other: (N,D), (N,), (N,D), (N,) -> (N,)."""
        total = self.between + self.mean_variance(one_clips)[:, None]
        other_total = self.between + self.mean_variance(other_clips)[:, None]
        return self._distances_to(one, total, others, other_total)

    def _distances_to(
        self, one: np.ndarray, total: np.ndarray, others: np.ndarray, other_total: np.ndarray
    ) -> np.ndarray:
        """Means one (D,) or (N,D), others (N,D) with total variances of the same shapes -> (N,)."""
        shared = self.between
        determinant = total * other_total - shared**2
        together = (other_total * one**2 - 2 * shared * one * others + total * others**2) / determinant
        apart = one**2 / total + others**2 / other_total
        ratio = np.log(determinant / (total * other_total)) + together - apart
        return ratio.sum(1) / (2 * len(shared))


def fit_identity_model(frames: Sequence[np.ndarray], identity: np.ndarray) -> IdentityModel:
    """Embeddings of each clip (K,D), K at least 1, and the number of its identity (C,), 0 to N - 1 -> the
    model.

    Frames of a clip, which are certain to show one person, say what a person's embeddings vary by; how much
    more clips of a person differ is the median over clips, which a wrong name here and there does not move.
    """
    size = frames[0].shape[1]
    scatter, degrees = np.zeros((size, size)), 0
    for some in frames:
        away = some - some.mean(0, dtype=np.float64)
        scatter += away.T @ away
        degrees += len(some) - 1
    whitening = _inverse_root(_shrink(scatter / max(1, degrees), FRAME_SHRINKAGE))
    clips = np.stack([some.mean(0, dtype=np.float64) for some in frames]) @ whitening
    people, counts = mean_by_group(clips, identity)
    middle = people.mean(0)
    away = people - middle
    between = _shrink(away.T @ away / max(1, len(people) - 1), PEOPLE_SHRINKAGE)
    values, vectors = np.linalg.eigh(between)
    return IdentityModel(
        mean=np.linalg.solve(whitening.T, middle),
        projection=whitening @ vectors,
        between=values,
        within=_recording_variance(clips - people[identity], counts[identity]),
    )


def mean_by_group(values: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """values (C,D), group (C,) from 0 to N - 1, none of them empty -> means (N,D) and counts (N,)."""
    counts = np.bincount(group)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, group, values)
    return sums / counts[:, None], counts


def _recording_variance(away: np.ndarray, counts: np.ndarray) -> float:
    """away (C,D): clips about the mean of their person's, of which there are counts (C,)."""
    several = counts > 1
    spread = (away[several] ** 2).mean(1) * counts[several] / (counts[several] - 1)
    if not len(spread):
        return USUAL_RECORDING_VARIANCE
    known = USUAL_RECORDING_CLIPS * USUAL_RECORDING_VARIANCE + len(spread) * float(np.median(spread))
    return known / (USUAL_RECORDING_CLIPS + len(spread))


def _shrink(covariance: np.ndarray, share: float) -> np.ndarray:
    size = len(covariance)
    variance = max(float(np.trace(covariance)) / size, 1e-12)  # of pictures that are all alike
    return (1 - share) * covariance + share * variance * np.eye(size)


def _inverse_root(covariance: np.ndarray) -> np.ndarray:
    """(D,D) W with W' covariance W = 1."""
    return np.linalg.inv(np.linalg.cholesky(covariance)).T
