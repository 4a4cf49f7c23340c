"""Whether a generated face stays who it is over a clip.

Drift is how far the mean embedding of the last quarter of a clip's frames lies from that of its first
quarter, of the same generated clip. Means of a quarter, so that what a single frame's pose and noise do to an
embedding weighs little; what remains of it, real clips show as well: beside the drift itself stands its gap
from that of the real clip (in cross-reenactment: of the driving one). A frozen picture does not drift at all,
and its gap is the real clips' own drift.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from pipelines.eval.features import ARCFACE_R50_FEATURE, IDENTITY_FEATURE
from pipelines.eval.metrics.metric import Metric, is_present_per_frame

QUARTERS = 4
MIN_QUARTER_FRAMES = 2
"""With a face: a clip of fewer than eight such frames has no drift."""
Distance = Callable[[np.ndarray, np.ndarray], float]
"""Of two embeddings (D,)."""


def euclidean_distance(first: np.ndarray, last: np.ndarray) -> float:
    return float(np.linalg.norm(last - first))


def cosine_distance(first: np.ndarray, last: np.ndarray) -> float:
    """1 less the cosine: 0 to 2."""
    return float(1 - first @ last / (np.linalg.norm(first) * np.linalg.norm(last)))


def identity_drift(embeddings: np.ndarray, distance: Distance) -> float:
    """(T,D) of a clip's frames in order, NaN where there is no face -> the distance between the means of its
    first and last quarter; NaN of too few frames with a face."""
    seen = embeddings[np.isfinite(embeddings).all(axis=1)].astype(np.float64)
    quarter = len(seen) // QUARTERS
    if quarter < MIN_QUARTER_FRAMES:
        return float("nan")
    return distance(seen[:quarter].mean(axis=0), seen[-quarter:].mean(axis=0))


def drift_of_clip(prediction: np.ndarray, target: np.ndarray, distance: Distance) -> float:
    """(T,D) of the method's clip, whatever the target -> its drift."""
    return identity_drift(prediction, distance)


def drift_gap_of_clip(prediction: np.ndarray, target: np.ndarray, distance: Distance) -> float:
    """(T,D) of the method's clip and of the real one -> absolute difference of their drifts."""
    return abs(identity_drift(prediction, distance) - identity_drift(target, distance))


def _drift_metrics(
    suffix: str, net: str, feature: str, distance: Distance, way: str, on_request: bool
) -> tuple[Metric, Metric]:
    drift = Metric(
        name=f"id_drift_{suffix}", title=f"ID drift ({net})", variant=f"{way}_of_mean_last_and_first_quarter",
        better="down", unit="", feature=feature, field="embedding", reference="none", cross_reference="none",
        per_frame=is_present_per_frame, per_clip=partial(drift_of_clip, distance=distance),
        on_request=on_request, best_when_still=True,
        meaning=f"how far the face of a clip's last quarter is from that of its first by {net}'s embedding; "
        "0 = it stays the same, as a frozen picture does",
    )  # fmt: skip
    gap = Metric(
        name=f"id_drift_gap_{suffix}", title=f"ID drift gap ({net})",
        variant=f"abs_difference_of_{way}_of_mean_last_and_first_quarter", better="down", unit="",
        feature=feature, field="embedding", cross_reference="driving",
        per_frame=is_present_per_frame, per_clip=partial(drift_gap_of_clip, distance=distance),
        on_request=on_request,
        meaning="the same, as absolute difference from the drift of the real clip (in cross-reenactment: of "
        "the driving one); of a frozen picture it is the real clips' own drift",
    )  # fmt: skip
    return drift, gap


IDENTITY_DRIFT_METRICS = (
    *_drift_metrics("dlib", "dlib", IDENTITY_FEATURE, euclidean_distance, "euclidean", False),
    *_drift_metrics(
        "arcface_r50", "ArcFace r50", ARCFACE_R50_FEATURE, cosine_distance, "cosine_distance", True
    ),
)
