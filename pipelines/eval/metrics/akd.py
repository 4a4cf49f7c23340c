"""Average keypoint distance over 68 landmarks, in pixels of a 256 px frame.

`akd_l1` is what the field computes (pose-evaluation): the mean absolute coordinate difference over the 68x2
numbers, then over frames; `akd_l2` is the mean Euclidean distance. The landmarker is the same on both sides
and is part of the metric's name, because values of different landmarkers do not compare. A frame enters only
if every method compared and the ground truth have a face there; else a method would gain by faces that cannot
be detected.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipelines.eval.metrics.metric import Metric, Sums

FRAME_SIZE = 256
"""Side in pixels at which landmarks are found; smaller frames are resized up to it, because distances are in
its pixels."""


@dataclass(frozen=True, slots=True)
class AkdSums(Sums):
    total: float = 0.0
    undetected: float = 0.0
    """Frames where this very method showed no face; part of `missing`."""


def found(landmarks: np.ndarray) -> np.ndarray:
    """(T,68,2) with NaN rows where no face was found -> (T,) bool."""
    return np.asarray(np.isfinite(landmarks).all(axis=(1, 2)))


def _each(prediction: np.ndarray, target: np.ndarray, euclidean: bool) -> np.ndarray:
    if prediction.shape != target.shape or prediction.shape[1:] != (68, 2):
        raise ValueError(f"landmarks {prediction.shape} and {target.shape}: expected two equal (T,68,2)")
    difference = prediction.astype(np.float64) - target  # (T,68,2)
    gaps = np.linalg.norm(difference, axis=-1) if euclidean else np.abs(difference).mean(axis=-1)
    return gaps.mean(axis=1)


def each_l1(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,68,2) in pixels -> distance of each frame (T,); NaN where either shows no face."""
    return _each(prediction, target, euclidean=False)


def each_l2(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,68,2) in pixels -> distance of each frame (T,); NaN where either shows no face."""
    return _each(prediction, target, euclidean=True)


def over(values: np.ndarray, keep: np.ndarray) -> AkdSums:
    """Distances of frames (T,), and which of them count (T,) bool -> sums."""
    if keep.shape != values.shape:
        raise ValueError(f"keep {keep.shape} for {len(values)} frames: expected one bool each")
    if not np.isfinite(values[keep]).all():
        raise ValueError("keep names frames without a face; it must be the intersection over all methods")
    return AkdSums(n=float(keep.sum()), missing=float((~keep).sum()), total=float(values[keep].sum()))


def update_l1(prediction: np.ndarray, target: np.ndarray, keep: np.ndarray) -> AkdSums:
    """Two (T,68,2) in pixels and the frames (T,) bool where all methods show a face -> sums."""
    return replace(over(each_l1(prediction, target), keep), undetected=float((~found(prediction)).sum()))


def update_l2(prediction: np.ndarray, target: np.ndarray, keep: np.ndarray) -> AkdSums:
    """Two (T,68,2) in pixels and the frames (T,) bool where all methods show a face -> sums."""
    return replace(over(each_l2(prediction, target), keep), undetected=float((~found(prediction)).sum()))


def compute(sums: AkdSums) -> float:
    return sums.total / sums.n if sums.n else float("nan")


AKD_L1_DLIB = Metric(
    name="akd_l1_dlib", title="AKD (dlib)", variant="mean_abs_68x2_256px", better="down", unit="px",
    reads="landmarks", state=AkdSums, update=update_l1, compute=compute,
    each=each_l1, over=over, needs=("dlib_sp68",),
)  # fmt: skip
AKD_L2_DLIB = Metric(
    name="akd_l2_dlib", title="AKD L2 (dlib)", variant="mean_euclidean_68_256px", better="down", unit="px",
    reads="landmarks", state=AkdSums, update=update_l2, compute=compute,
    each=each_l2, over=over, needs=("dlib_sp68",),
)  # fmt: skip
