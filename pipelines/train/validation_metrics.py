"""Validation's figures for the eye: the metrics of evaluation, on the few samples of a validation.

Reached by name (pipelines/train/validate.py), so that they enter no key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from models.task import ValidationOutput
from pipelines.eval.features import DLIB_LANDMARKS_FEATURE, FRAMES_FEATURE, METRIC_FEATURES, find_landmarks
from pipelines.eval.metrics import METRICS, sum_frame_values
from pipelines.nets import load_nets
from storage.errors import InvalidInput
from storage.files import Store

LandmarkFinder = Callable[[np.ndarray], np.ndarray]
"""(N,S,S,3) uint8 -> (N,68,2) float32, NaN where no face is found."""

CURVE_NAMES = {"psnr_frame": "psnr", "l1": "l1", "ssim": "ssim", "akd_l2_dlib": "akd_l2_dlib"}
"""Metric -> the name of its curve."""


def compute_validation_metrics(
    samples: Sequence[ValidationOutput], landmarks: Callable[[], LandmarkFinder | None] | None
) -> dict[str, float]:
    """l1, ssim and akd_l2_dlib (pixels of 256) of the outputs; copy_psnr and so on: of the source, copied.

    A figure that no sample allows (AKD without a face, or without the landmark finder) is left out;
    akd_l2_dlib_frames: samples in which both pictures show a face.
    """
    outputs, drivings, sources = (
        np.concatenate([getattr(one, name) for one in samples]) for name in ("output", "driving", "source")
    )
    finder = landmarks() if landmarks else None
    targets = _features(drivings, finder)
    found: dict[str, float] = {}
    for prefix, pictures in (("", outputs), ("copy_", sources)):
        predictions = _features(pictures, finder)
        for name, title in CURVE_NAMES.items():
            metric = METRICS[name]
            if metric.feature not in targets:
                continue
            state = sum_frame_values(metric.per_frame(predictions[metric.feature], targets[metric.feature]))
            if np.isfinite(value := metric.compute(state)):
                found[prefix + title] = float(value)
            if metric.feature == DLIB_LANDMARKS_FEATURE:
                found[f"{prefix}{title}_frames"] = float(state.n)
    del found["psnr"]  # validation's own, which chooses the best checkpoint
    return found


def _features(images: np.ndarray, finder: LandmarkFinder | None) -> dict[str, np.ndarray]:
    """What the metrics compare of pictures (N,S,S,3) uint8."""
    found = {FRAMES_FEATURE: images / 255.0}
    return found | ({DLIB_LANDMARKS_FEATURE: finder(images)} if finder else {})


def load_landmark_finder(store: Store) -> LandmarkFinder | None:
    """What validation's AKD is measured with, or None where its weights are missing."""
    try:
        nets = load_nets(METRIC_FEATURES[DLIB_LANDMARKS_FEATURE].nets, store)
    except InvalidInput:
        return None
    return lambda frames: find_landmarks(frames, nets["dlib_hog"], nets["dlib68"])
