"""The landmarks of faces in squares, and which of them slip (pipelines/preprocess/landmark_slips.py)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from models.perception.interfaces import Landmarker
from models.reenactor import FaceFrames
from pipelines.preprocess.landmark_slips import SLIP_LIMITS, find_slip, slip_limit

POINT_FIELDS = ("landmarks3d", "dense")
"""Points besides the landmarks, by their names in `FaceFrames`."""


def add_landmarks_to_faces(
    faces: FaceFrames, landmarker: Landmarker | None, reads: Collection[str] = ()
) -> FaceFrames:
    """The frames with their landmarks, if there is a landmarker, and with the other points among `reads`,
    which it gives."""
    if landmarker is None:
        return faces
    wanted = [name for name in POINT_FIELDS if name in reads]
    if not wanted:
        return replace(faces, landmarks=landmarker.landmarks(faces.frames, faces.boxes))
    found = landmarker.predict(faces.frames, faces.boxes)
    return replace(faces, landmarks=found.landmarks, **{name: getattr(found, name) for name in wanted})


def place_landmarks(
    faces: FaceFrames,
    landmarker: Landmarker | None,
    reads: Collection[str] = (),
    max_slip: float | None = None,
) -> tuple[FaceFrames, np.ndarray]:
    """The frames with their landmarks and the other points among `reads`, if there is a landmarker, and those
    whose landmarks slip (T,) bool (pipelines/preprocess/landmark_slips.py). max_slip: of stage keypoints."""
    limit = slip_limit(landmarker.name, max_slip) if landmarker and landmarker.name in SLIP_LIMITS else 0
    if landmarker is None or not limit:
        return add_landmarks_to_faces(faces, landmarker, reads), np.zeros(len(faces.frames), bool)
    found = landmarker.predict(faces.frames, faces.boxes)
    every = np.ones(len(faces.frames), bool)
    slip = find_slip(faces.frames, faces.boxes, None, every, found, landmarker, limit)
    points = {name: getattr(found, name) for name in POINT_FIELDS if name in reads}
    return replace(faces, landmarks=found.landmarks, **points), slip > limit


def drop_slipped_landmarks(
    faces: FaceFrames,
    landmarker: Landmarker | None,
    reads: Collection[str] = (),
    max_slip: float | None = None,
) -> tuple[FaceFrames, int]:
    """Frames of a video in a row with their landmarks and the other points among `reads`, if there is a
    landmarker, and the number of those whose landmarks slip: they have neither points nor a box, as frames
    without a face."""
    placed, slipped = place_landmarks(faces, landmarker, reads, max_slip)
    if not slipped.any():
        return placed, 0
    without = {}
    for name in ("boxes", "landmarks", *POINT_FIELDS):
        if (values := getattr(placed, name)) is not None:
            without[name] = values.copy()
            without[name][slipped] = np.nan
    return replace(placed, **without), int(slipped.sum())
