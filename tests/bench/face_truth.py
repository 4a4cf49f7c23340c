"""What landmarks and fits of rendered heads are measured by, against the truth that they were rendered from.

K landmarks are iBUG's 68. Lengths are in % of the distance between the outer eye corners of the truth.
Correlations and slopes are taken within each clip; a clip in which the truth stands still says nothing and
is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from models.perception.head.default_head import get_analytic_head

Truth = dict[str, np.ndarray]
"""`render_synthetic_recording`'s: angles (T,3), exp (T,n_exp), landmarks (T,68,2), ..."""
LANDMARK_GROUPS = {
    "inner": slice(17, 68), "jaw": slice(0, 17), "brow": slice(17, 27), "nose": slice(27, 36),
    "eye": slice(36, 48), "mouth": slice(48, 68),
}  # fmt: skip
LEAST_SPREAD = 0.02  # of the range over all clips: standard deviation below which a clip does not show it
EXPRESSIONS = ("jaw_open", "lip_corner_pull", "brow_raise", "brow_frown", "blink_left", "blink_right")


class Agreement(NamedTuple):
    """Of an estimate with the truth."""

    mean: float
    """Of the clips' correlations."""
    median: float
    slope: float
    """What the estimate moves for one of the truth, all clips together, each about its own mean."""


def eye_distance(landmarks: np.ndarray) -> np.ndarray:
    """landmarks (...,68,2) -> (...): between the outer eye corners."""
    return np.linalg.norm(landmarks[..., 36, :] - landmarks[..., 45, :], axis=-1)


def relative_errors(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Landmarks (T,68,2) -> what they are off by, x right and y down in eye distances (T,68,2)."""
    return (found - true) / eye_distance(true)[:, None, None]


def mean_error_by_group(errors: Sequence[np.ndarray]) -> dict[str, float]:
    """Clips of (T,68,2), NaN where there is no face -> the mean length in % of each group of points."""
    length = np.linalg.norm(np.concatenate(errors), axis=-1)
    return {name: 100 * float(np.nanmean(length[:, points])) for name, points in LANDMARK_GROUPS.items()}


def without_constant_offsets(errors: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What is left in one half of the clips when each point's mean error in the other half is taken off."""
    out = list(errors)
    for half in (0, 1):
        offset = np.nanmean(np.concatenate(errors[1 - half :: 2]), axis=0)
        out[half::2] = [one - offset for one in errors[half::2]]
    return out


def motion_errors(errors: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What is left when each point's mean error in the clip is taken off."""
    return [one - np.nanmean(one, axis=0) for one in errors]


def agreement_within_clips(found: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> Agreement:
    """Curves (T,) of each clip; frames without an estimate are left out."""
    r, covariances = [], np.zeros((2, 2))
    for ours, truth in zip(found, true, strict=True):
        seen = np.isfinite(ours)
        if seen.sum() < 5 or truth[seen].std() < LEAST_SPREAD * np.ptp(np.concatenate(true)):
            continue
        one = np.cov(ours[seen], truth[seen], ddof=0) * seen.sum()
        r.append(one[0, 1] / np.sqrt(one[0, 0] * one[1, 1]) if one[0, 0] > 0 else 0.0)
        covariances += one
    if not r:
        return Agreement(float("nan"), float("nan"), float("nan"))
    return Agreement(float(np.mean(r)), float(np.median(r)), float(covariances[0, 1] / covariances[1, 1]))


def expression_agreement(exp: Sequence[np.ndarray], truths: Sequence[Truth]) -> dict[str, Agreement]:
    """Coefficients (T,n_exp) of fits of each clip against the truth's."""
    names = get_analytic_head().exp_names
    at = {name: names.index(name) for name in EXPRESSIONS}
    return {
        name: agreement_within_clips([e[:, i] for e in exp], [t["exp"][:, i] for t in truths])
        for name, i in at.items()
    }


class PoseError(NamedTuple):
    """Degrees: pitch, yaw, roll."""

    raw: np.ndarray
    """(3,) mean absolute error."""
    bias: np.ndarray
    """(3,) mean error."""
    unbiased: np.ndarray
    """(3,) mean absolute error without the bias."""
    slope: np.ndarray
    """(3,) what the estimate turns for one degree of the truth."""


def pose_error(angles: Sequence[np.ndarray], truths: Sequence[Truth]) -> PoseError:
    """Angles (T,3) of each clip in degrees, NaN where there is no fit."""
    error = np.concatenate(angles) - np.concatenate([t["angles"] for t in truths])
    bias = np.nanmean(error, axis=0)
    slope = [
        agreement_within_clips([a[:, k] for a in angles], [t["angles"][:, k] for t in truths]).slope
        for k in range(3)
    ]
    raw, unbiased = (np.nanmean(np.abs(e), axis=0) for e in (error, error - bias))
    return PoseError(raw, bias, unbiased, np.array(slope))


def _gap(landmarks: np.ndarray, a: int, b: int) -> np.ndarray:
    return np.linalg.norm(landmarks[:, a] - landmarks[:, b], axis=-1) / eye_distance(landmarks)


def _brow_height(landmarks: np.ndarray) -> np.ndarray:
    """Brows over the eyes, along the face's upright."""
    across = landmarks[:, 45] - landmarks[:, 36]
    up = np.stack([across[:, 1], -across[:, 0]], axis=1) / (across**2).sum(1, keepdims=True)
    return ((landmarks[:, 17:27].mean(1) - landmarks[:, 36:48].mean(1)) * up).sum(1)


def eye_aspect_ratio(landmarks: np.ndarray, first: int) -> np.ndarray:
    """Landmarks (T,68,2), and the first of an eye's six -> (T,): both pairs of lid points over the corners'
    distance."""
    eye = landmarks[:, first : first + 6]
    lids = np.linalg.norm(eye[:, 1:3] - eye[:, [5, 4]], axis=-1).mean(1)
    return lids / np.linalg.norm(eye[:, 0] - eye[:, 3], axis=-1)


MEASURES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "lips, jaw": (lambda p: _gap(p, 62, 66), "jaw_open"),
    "brow height": (_brow_height, ""),
    "mouth width": (lambda p: _gap(p, 48, 54), ""),
    "left eye": (lambda p: -eye_aspect_ratio(p, 36), "blink_left"),
    "right eye": (lambda p: -eye_aspect_ratio(p, 42), "blink_right"),
}
"""Measured on landmarks (T,68,2) -> (T,); the expression of the truth that it should follow, "" where several
move it: then the same measure on the truth's landmarks."""


def measure_agreement(landmarks: Sequence[np.ndarray], truths: Sequence[Truth]) -> dict[str, Agreement]:
    """What is measured on the landmarks (T,68,2) of each clip against the truth."""
    names, out = get_analytic_head().exp_names, {}
    for name, (measure, expression) in MEASURES.items():
        true = [
            t["exp"][:, names.index(expression)] if expression else measure(t["landmarks"]) for t in truths
        ]
        out[name] = agreement_within_clips([measure(p) for p in landmarks], true)
    return out


def box_of_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """(68,2) -> (4,) x0, y0, x1, y1: brows to chin, jaw to jaw."""
    return np.concatenate([landmarks.min(0), landmarks.max(0)])


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (4,)."""
    width, height = np.maximum(0, np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]))
    both = width * height
    areas = [np.prod(box[2:] - box[:2]) for box in (a, b)]
    return float(both / (sum(areas) - both))
