"""One clip that is there twice: also encoded anew, cut by another square, or cut with another start.

Candidates are clips of two recordings whose embeddings are as near as those of one clip. They are one clip if
their landmarks move alike: at some shift in time, one size and one place of the square explain the landmarks
of one by those of the other, but for the detector's jitter. Two recordings of a person never move alike,
however alike they look.
Legend: C clips, D numbers of an embedding, T, S frames of two clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from msgspec import Struct

MAX_NEIGHBOUR_DISTANCE = 4.0
"""Mean squared difference of projected embeddings a dimension, in variances of a frame within its clip, from
which two clips are not compared: strong compression moves a clip by 1.7, farther than another recording of
the person is."""
MAX_NEIGHBOURS = 6
"""Clips of other recordings that a clip is compared with, the nearest."""
ROWS_PER_BLOCK = 2048
MIN_COMMON_FRAMES = 20
"""Clips that have fewer in common, at 25 fps, are compared as pictures."""
MAX_DIFFERENCE = 0.085
"""RMS of what is left of the landmarks, in RMS radii of the face. Measured with dlib's on clips encoded anew
at three quarters of the size, in a square 4 % off and 9 frames later: 0.02 to 0.07, of 35 clips one 0.13;
other clips of the person 0.13 and more (rendered), 0.03 and more (parts of one video, the head at rest)."""
MIN_HEAD_CORRELATION, MIN_FACE_CORRELATION = 0.8, 0.4
"""Of the landmarks' motion, with and without that of their mean, for heads at rest: the same clips 0.82 to
1.0 and 0.55 to 0.98, but for one that does not move at all; parts of one video at most one of both."""
MAX_PICTURE_DIFFERENCE, MAX_PICTURE_DISTANCE = 0.06, 0.2
"""Of clips that are too short to be told by their motion: what is left of the landmarks, and the difference
of the embeddings, measured as above."""
LANDMARKS = 68


class NearDuplicate(Struct, frozen=True):
    first: int
    """Number of a clip."""
    second: int
    difference: float
    """What is left of the landmarks, in RMS radii of the face."""
    shift: int
    """Frame of the first that the second begins with."""


def find_near_duplicates(
    embeddings: np.ndarray, recording: np.ndarray, landmarks: Callable[[int], np.ndarray]
) -> list[NearDuplicate]:
    """Projected mean embeddings (C,D), the number of each clip's recording (C,), and number of a clip -> its
    landmarks (T,68,2), NaN where there is no face."""
    read = lru_cache(maxsize=4096)(landmarks)
    found = []
    for first, second, distance in neighbour_clips(embeddings, recording):
        match = match_landmark_motion(read(first), read(second), distance)
        if match is not None:
            found.append(NearDuplicate(first, second, *match))
    return found


def neighbour_clips(embeddings: np.ndarray, recording: np.ndarray) -> Iterator[tuple[int, int, float]]:
    """Pairs of clips of different recordings that are near, each once: their numbers, ascending, and the mean
    squared difference. A block of products at a time: memory does not grow with the square of the clips."""
    values = embeddings.astype(np.float32)
    norms = (values**2).sum(1)
    size, pairs = values.shape[1], dict[tuple[int, int], float]()
    for start in range(0, len(values), ROWS_PER_BLOCK):
        rows = slice(start, start + ROWS_PER_BLOCK)
        distance = norms[rows, None] + norms - 2 * values[rows] @ values.T
        row, other = np.nonzero(distance < MAX_NEIGHBOUR_DISTANCE * size)
        kept = recording[row + start] != recording[other]
        row, other = row[kept], other[kept]
        order = np.lexsort((distance[row, other], row))
        row, other = row[order], other[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        for one, two in zip(row[rank < MAX_NEIGHBOURS], other[rank < MAX_NEIGHBOURS], strict=True):
            pair = (min(int(one) + start, int(two)), max(int(one) + start, int(two)))
            pairs[pair] = max(0.0, float(distance[one, two]) / size)
    for (first, second), distance in sorted(pairs.items()):
        yield first, second, distance


def match_landmark_motion(one: np.ndarray, other: np.ndarray, distance: float) -> tuple[float, int] | None:
    """Landmarks of two clips, and how far apart their embeddings are -> what is left of the landmarks, and
    the frame of the first that the second begins with; None if they are not one clip."""
    least = min(len(one), len(other), MIN_COMMON_FRAMES)
    left = difference_at_shifts(one, other, max(least, min(len(one), len(other)) // 2))
    best = int(np.argmin(left))
    difference, shift = float(left[best]), best - (len(other) - 1)
    if not difference <= MAX_DIFFERENCE:
        return None
    if least < MIN_COMMON_FRAMES:
        same = difference <= MAX_PICTURE_DIFFERENCE and distance <= MAX_PICTURE_DISTANCE
    else:
        head, face = _motion_correlations(one, other, shift)
        same = head >= MIN_HEAD_CORRELATION and face >= MIN_FACE_CORRELATION
    return (difference, shift) if same else None


def difference_at_shifts(one: np.ndarray, other: np.ndarray, least: int) -> np.ndarray:
    """Landmarks (T,68,2), (S,68,2) -> (T + S - 1,): at index k + S - 1 the RMS difference of frame t + k of
    the first and frame t of the second, after the one scale and shift in space that bring them nearest, in
    RMS radii of the face; inf where fewer than `least` frames have both.

    Every sum over the frames that both have is a correlation over time, so that all shifts come at once.
    """
    a, has_a = _without_gaps(one)
    b, has_b = _without_gaps(other)
    count = len(a) + len(b) - 1

    def over_common_frames(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(T,n), (S,n) -> (T + S - 1,): the sum of products over frames and columns."""
        size = 1 << (count - 1).bit_length()
        product = np.fft.rfft(x, size, axis=0) * np.fft.rfft(y[::-1], size, axis=0)
        return np.fft.irfft(product.sum(1), size)[:count]

    frames = np.maximum(over_common_frames(has_a, has_b).round(), 1)
    points = LANDMARKS * frames
    sum_a = [over_common_frames(a[:, axis].sum(1)[:, None], has_b) for axis in (0, 1)]
    sum_b = [over_common_frames(has_a, b[:, axis].sum(1)[:, None]) for axis in (0, 1)]
    square_a = over_common_frames((a**2).sum((1, 2))[:, None], has_b) - sum(s**2 for s in sum_a) / points
    square_b = over_common_frames(has_a, (b**2).sum((1, 2))[:, None]) - sum(s**2 for s in sum_b) / points
    product = over_common_frames(a.reshape(len(a), -1), b.reshape(len(b), -1))
    product -= sum(x * y for x, y in zip(sum_a, sum_b, strict=True)) / points
    about_middle = ((a - a.mean(2, keepdims=True)) ** 2).sum((1, 2))[:, None]
    radius = np.maximum(over_common_frames(about_middle, has_b), 1e-9)
    left = np.maximum(square_a - np.maximum(product, 0) ** 2 / np.maximum(square_b, 1e-9), 0)
    return np.where(over_common_frames(has_a, has_b).round() >= least, np.sqrt(left / radius), np.inf)


def _without_gaps(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T,68,2) -> (T,2,68) float64 about the clip's mean, 0 where there is no face; and (T,1), 1 where there
    is."""
    seen = np.isfinite(landmarks.reshape(len(landmarks), -1).sum(1))
    points = landmarks.transpose(0, 2, 1).astype(np.float64)
    middle = points[seen].mean((0, 2)) if seen.any() else np.zeros(2)
    return np.where(seen[:, None, None], points - middle[:, None], 0.0), seen[:, None].astype(np.float64)


def _motion_correlations(one: np.ndarray, other: np.ndarray, shift: int) -> tuple[float, float]:
    """Of landmarks over time, those of the other clip `shift` frames later: as they are, and without the
    motion of their mean."""
    begin, end = max(shift, 0), min(len(one), len(other) + shift)
    a, b = one[begin:end].astype(np.float64), other[begin - shift : end - shift].astype(np.float64)
    both = np.flatnonzero(np.isfinite(a + b).all((1, 2)))
    a, b = (points[both] - points[both].mean(0) for points in (a, b))  # (n,68,2)
    return _correlation(a, b), _correlation(a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    scale = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / scale) if scale > 0 else 0.0
