"""What metrics of 68 landmarks share: the landmarkers they are computed with, and distances of points.

T = frames of a pair. Points are in pixels of frames resized to 256 px, NaN where no face is found, whatever
the size at which a protocol judges: PIR's 512 px frames too. The landmarker is the same on both sides and is
part of a metric's name, because values of different landmarkers do not compare.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipelines.eval.features import (
    DLIB_LANDMARKS_FEATURE,
    FAN_LANDMARKS_FEATURE,
    MESH_LANDMARKS_FEATURE,
)

OUTER_EYE_LANDMARKS = (36, 45)
MOUTH_LANDMARKS = slice(48, 68)
"""Of iBUG's 68 points."""


class LandmarkBackend(NamedTuple):
    suffix: str
    """Of the names of metrics."""
    title: str
    feature: str
    """In METRIC_FEATURES, with a field `landmarks`."""
    points: str
    """In words."""
    on_request: bool = False
    """As of metrics; that of all of the landmarker's."""


LANDMARK_BACKENDS = (
    LandmarkBackend("dlib", "dlib", DLIB_LANDMARKS_FEATURE, "68 landmarks of dlib"),
    LandmarkBackend("mesh", "mesh", MESH_LANDMARKS_FEATURE, "68 points of MediaPipe's face mesh"),
    LandmarkBackend(
        "fan2d", "FAN", FAN_LANDMARKS_FEATURE, "68 landmarks of the Face Alignment Network", True
    ),
)


def landmark_difference(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,68,2) -> (T,68,2) float64, the first less the second."""
    if prediction.shape != target.shape or prediction.shape[1:] != (68, 2):
        raise ValueError(f"landmarks {prediction.shape} and {target.shape}: expected two equal (T,68,2)")
    return prediction.astype(np.float64) - target


def mean_landmark_distance(difference: np.ndarray) -> np.ndarray:
    """Differences of points (T,n,2) -> mean Euclidean distance of each frame (T,)"""
    return np.asarray(np.linalg.norm(difference, axis=-1).mean(axis=1))


def outer_eye_distance(landmarks: np.ndarray) -> np.ndarray:
    """(T,68,2) -> distance of the outer corners of the eyes (T,)"""
    left, right = (landmarks[:, corner].astype(np.float64) for corner in OUTER_EYE_LANDMARKS)
    return np.asarray(np.linalg.norm(right - left, axis=-1))


def landmark_box_size(landmarks: np.ndarray) -> np.ndarray:
    """(T,68,2) -> square root of the area of the box that holds them all (T,)"""
    sides = landmarks.astype(np.float64).max(axis=1) - landmarks.min(axis=1)  # (T,2)
    return np.sqrt(sides.prod(axis=1))
