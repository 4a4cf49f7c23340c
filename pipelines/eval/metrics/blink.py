"""Whether a generated face blinks when the real one does.

An eye is shut where it is less than half as far open as the real face's eyes are in the median of the clip:
one threshold for both sides, of the person's own eyes, so that what the net sees too narrow or too wide falls
out. Both eyes are averaged. A blink is a run of frames with shut eyes; it agrees with one of the other side
that it overlaps, or misses by at most MAX_BLINK_OFFSET frames (80 ms at 25 fps).
"""

from __future__ import annotations

import numpy as np

from pipelines.eval.features import MESH_LANDMARKS_FEATURE
from pipelines.eval.metrics.metric import Metric, is_present_per_frame

SHUT_SHARE = 0.5
"""Of the real face's median openness; that of a blink falls to a fifth."""
MAX_BLINK_OFFSET = 2


def openness_difference_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,2), openness of the left and the right eye -> mean absolute difference of each frame (T,), in
    percent of an eye's width."""
    return np.asarray(100 * np.abs(prediction.astype(np.float64) - target).mean(axis=1))


def shut_agreement(prediction: np.ndarray, target: np.ndarray) -> float:
    """Two (T,2) of openness -> share of the frames in which both sides' eyes are shut, or both are open; NaN
    without a frame in which both have a face."""
    both, generated, real = _shut(prediction, target)
    return float((generated == real)[both].mean()) if both.any() else float("nan")


def blink_f1(prediction: np.ndarray, target: np.ndarray) -> float:
    """Two (T,2) of openness -> F1 of blinks: those that agree, of both sides, over all of both; NaN where
    neither side blinks."""
    both, generated, real = _shut(prediction, target)
    ours, theirs = _runs(generated & both), _runs(real & both)
    if not ours and not theirs:
        return float("nan")
    agreeing = sum(any(_meet(one, other) for other in theirs) for one in ours)
    found = sum(any(_meet(one, other) for other in ours) for one in theirs)
    return (agreeing + found) / (len(ours) + len(theirs))


def _shut(prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> frames in which both have a face, those in which the generated eyes are shut, and the real ones;
    (T,) bool each."""
    if prediction.shape != target.shape or prediction.shape[1:] != (2,):
        raise ValueError(f"openness {prediction.shape} and {target.shape}: expected two equal (T,2)")
    sides = [one.astype(np.float64).mean(axis=1) for one in (prediction, target)]
    seen = np.isfinite(sides[1])
    threshold = SHUT_SHARE * np.median(sides[1][seen]) if seen.any() else np.nan
    generated, real = (one < threshold for one in sides)
    return np.isfinite(sides[0]) & seen, generated, real


def _runs(marked: np.ndarray) -> list[tuple[int, int]]:
    """(T,) bool -> first frame of each run of True, and the one after its last."""
    edges = np.flatnonzero(np.diff(marked.astype(np.int8), prepend=0, append=0))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] + MAX_BLINK_OFFSET and other[0] <= one[1] + MAX_BLINK_OFFSET


BLINK_IRIS_METRIC = Metric(
    name="blink_iris", title="Eyelids (iris)", variant="mean_abs_openness_percent_of_eye_width",
    better="down", unit="%", per_frame=openness_difference_per_frame, feature=MESH_LANDMARKS_FEATURE,
    field="openness", cross_reference="driving",
    meaning="mean absolute difference of how far the eyes are open, lid from lid in percent of an eye's "
    "width, by MediaPipe's iris net; an open eye has some 20 to 30",
)  # fmt: skip
BLINK_AGREEMENT_METRIC = Metric(
    name="blink_agreement_iris", title="Eyes shut (iris)", variant="share_of_frames_half_of_median_openness",
    better="up", unit="", per_frame=is_present_per_frame, per_clip=shut_agreement,
    feature=MESH_LANDMARKS_FEATURE, field="openness",
    cross_reference="driving",
    meaning="share of the frames in which the eyes of both faces are shut, or of both open; shut = less than "
    "half as open as the real face's in the median",
)  # fmt: skip
BLINK_F1_METRIC = Metric(
    name="blink_f1_iris", title="Blinks (iris)", variant="f1_of_runs_within_2_frames", better="up", unit="",
    per_frame=is_present_per_frame,
    per_clip=blink_f1, feature=MESH_LANDMARKS_FEATURE, field="openness", cross_reference="driving",
    lack="no blink",
    meaning="F1 of blinks that meet one of the other face within 2 frames; of clips in which either face "
    "blinks",
)  # fmt: skip
