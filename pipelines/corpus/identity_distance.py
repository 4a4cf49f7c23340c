"""How unlike two people's faces are: the two-covariance model of speaker recognition on face embeddings, in
standard deviations of the pairs of people of the corpus.

An embedding of a clip is taken as the sum of a person (Gaussian, with the covariance between people) and of a
recording (Gaussian, with the covariance within people). The logarithm of how much better the data fit two
people than one (Bruemmer & de Villiers, The speaker partitioning problem, 2010), a dimension, orders pairs
well, but its scale depends on how many people, clips and frames there are: at one and the same ratio hardly
anybody is found among ten people with a clip each, and too many are among forty. So it is compared with those
of the other pairs of the corpus, nearly all of which are two people. Its logarithm is nearly Gaussian over
them; the distance is how many standard deviations a pair lies off their mean: 0 is the usual pair of two
people, and about one of them in 1,000 lies at -3.2 or below. Both covariances come from the corpus itself.
Distances of bare embeddings will not do: those of a net depend on the kind of pictures, and at dlib's 0.6 all
rendered people are one person, and some 5 % of pairs of real ones.
Legend: N people, C clips, K frames of a clip, D numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

MIN_IDENTITIES = 5
"""With fewer people there is no telling how much people differ."""
FRAME_SHRINKAGE, PEOPLE_SHRINKAGE = 0.1, 0.8
"""Share of each covariance that is a multiple of the identity matrix: there are few frames and
people. With 0.3 in place of 0.8, 85 instead of 90 % of people with a single clip each are found among 80, at
the same 0.8 false names in 1,000 pairs."""
USUAL_RECORDING_VARIANCE, USUAL_RECORDING_CLIPS = 0.3, 4
"""Variance of a clip's mean embedding about its person's, in variances of a frame about its clip's, as
measured on rendered and real clips; it counts like so many clips of the corpus."""
SHARED_VARIANCE = 0.5
"""Share of it that more clips of a person do not average out: lamps, cameras, years they have in common."""
LEAST_RATIO = -1.0
"""About the log likelihood ratio a dimension of equal pictures; its distance above this has a logarithm."""
SEVERAL_CLIPS_OFFSET = 0.8
"""Added to the distance of names that both have several clips: with less chance in it, it falls farther below
that of the usual pair, for one person and for two who are alike (tests/bench/bench_identity_leaks.py)."""
MAX_PAIRED_PEOPLE = 512
"""People whose pairs say what is usual; of more, so many evenly spread ones."""


class UsualPairs(Struct, frozen=True):
    """Logarithms of the ratios of pairs of people of the corpus."""

    mean: float
    std: float
    count: int

    def standardize(self, ratios: np.ndarray) -> np.ndarray:
        """Log likelihood ratios -> standard deviations from the mean of the other pairs.

        The pair itself is taken out of both moments (an externally studentized residual): among ten people
        one leak would hide itself. This at most doubles the distance, for single clips are no such pairs.
        """
        away = (_log_above_least(ratios) - self.mean) / self.std
        return away * np.sqrt((self.count - 2) / np.maximum(self.count - 1 - away**2, self.count / 4))


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
    usual: UsualPairs = UsualPairs(0.0, 1.0, 1_000_000)
    """Those of the people it is fitted to."""

    def project(self, embeddings: np.ndarray) -> np.ndarray:
        """(...,D) -> (...,D)"""
        return (embeddings - self.mean) @ self.projection

    def mean_variance(self, clips: np.ndarray) -> np.ndarray:
        """Number of clips (N,) -> variance (N,) of their mean about their person's."""
        return self.within * (SHARED_VARIANCE + (1 - SHARED_VARIANCE) / clips)

    def distances(
        self, one: np.ndarray, one_clips: np.ndarray, others: np.ndarray, other_clips: np.ndarray
    ) -> np.ndarray:
        """Projected means (M,D) of so many clips (M,), and (N,D), (N,) -> (M,N) float64, in standard
        deviations of pairs of two people."""
        ratios = self.log_likelihood_ratios(one, one_clips, others, other_clips)
        return self.usual.standardize(ratios) + _clips_offset(one_clips[:, None], other_clips)

    def paired_distances(
        self, one: np.ndarray, one_clips: np.ndarray, others: np.ndarray, other_clips: np.ndarray
    ) -> np.ndarray:
        """As `distances`, of each row with that of the other: (N,D), (N,), (N,D), (N,) -> (N,)."""
        total = self.between + self.mean_variance(one_clips)[:, None]
        other_total = self.between + self.mean_variance(other_clips)[:, None]
        ratios = self._ratios(one, total, others, other_total)
        return self.usual.standardize(ratios) + _clips_offset(one_clips, other_clips)

    def log_likelihood_ratios(
        self, one: np.ndarray, one_clips: np.ndarray, others: np.ndarray, other_clips: np.ndarray
    ) -> np.ndarray:
        """As `distances` -> (M,N), of two people and one, a dimension: below 0 one person is likelier."""
        total = self.between + self.mean_variance(other_clips)[:, None]  # (N,D)
        out = np.empty((len(one), len(others)))
        for row, (mean, clips) in enumerate(zip(one, one_clips, strict=True)):
            out[row] = self._ratios(mean, self.between + self.mean_variance(clips), others, total)
        return out

    def _ratios(
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
    model = IdentityModel(
        mean=np.linalg.solve(whitening.T, middle),
        projection=whitening @ vectors,
        between=values,
        within=_recording_variance(clips - people[identity], counts[identity]),
    )
    return replace(model, usual=_usual_pairs(model, (people - middle) @ vectors, counts))


def _usual_pairs(model: IdentityModel, means: np.ndarray, counts: np.ndarray) -> UsualPairs:
    """Projected means of people (N,D), of so many clips (N,)."""
    some = np.unique(np.linspace(0, len(means) - 1, MAX_PAIRED_PEOPLE).round().astype(int))
    means, counts = means[some], counts[some]
    ratios = model.log_likelihood_ratios(means, counts, means, counts)[np.triu_indices(len(means), 1)]
    logarithms = _log_above_least(ratios)
    return UsualPairs(float(logarithms.mean()), max(float(logarithms.std()), 1e-6), len(logarithms))


def _clips_offset(one_clips: np.ndarray, other_clips: np.ndarray) -> np.ndarray:
    return np.where(np.minimum(one_clips, other_clips) > 1, SEVERAL_CLIPS_OFFSET, 0.0)


def _log_above_least(ratios: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(ratios - LEAST_RATIO, 1e-3))


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
