"""Landmarks that slip: how far the landmarks of a frame depend on the box that they were found in.

A landmarker looks at a box. Where that is too large, or beside the face, the mouth's points may come to lie
on the chin, and nothing else tells: the shape stays that of a face, and a 3DMM fits it well. But landmarks
that sit on a face stay where they are when the box changes, and slipped ones move. So the landmarks of a
frame are found a second time from another box; what lies between the two is its slip, in lengths of the face.

| landmarker | the second time |
|---|---|
| mesh468* | its own pass before the last, in frames whose boxes were detected: it looks twice anyway |
| dlib68* | a box 10 % smaller; where that moves them, one about the landmarks themselves, four 5 % aside |
| others | a box 10 % smaller, and where that moves them, boxes 5 % higher and lower (unmeasured) |

All but the mesh are asked in frames with a detection, in those whose mouth leaves the line between these, in
those whose landmarks lie beside the middle of their box, and in the neighbours of flagged ones. Frames in
between have the slip of the line between those on either side.

T frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from models.perception.interfaces import Landmarker, LandmarkPrediction

PlaceAgain = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Numbers of frames (n,), boxes (n,4) -> their landmarks (n,68,2)."""

OUTER_EYE_CORNERS, NOSE_ENDS = (36, 45), (27, 33)
FACE_LENGTHS_PER_NOSE = 1.6
"""Of a face seen from the front the distance of the eyes' outer corners is at least as long; of one that is
turned away, whose eyes come to lie on each other, this is."""
INNER_LANDMARKS, MOUTH_LANDMARKS, STEADY_LANDMARKS = slice(17, 68), slice(48, 68), slice(27, 48)
"""Steady: nose and eyes, which no speech moves."""
MAX_OFF_LINE = 0.04
"""Lengths of the face by which the mouth, seen from nose and eyes, leaves the line between the frames that
were placed twice, from which a frame is placed twice itself."""
MAX_ASIDE = 0.04
"""Sides of the box by which the middle of the landmarks lies beside that of the box, from which a frame is
placed twice itself: the box is beside the face, as where a head moves fast between two detections."""
MOVED_SHARE = 0.4
"""Share of the limit beyond which one other box is no proof: one about the landmarks is asked, and where
both together move them by more than the limit, four more."""
SLIP_LIMITS = {
    "dlib68": 0.038, "dlib68_precise": 0.038, "mesh468": 0.1, "mesh468_iris": 0.1,
    "fan2d": 0.08, "fan2d_flip": 0.08, "fan25d": 0.08, "fan3d": 0.08, "retinaface_dense1103": 0.08,
}  # fmt: skip
"""Slip, in lengths of the face, beyond which a frame's landmarks are not used, by landmarker. dlib68's and
mesh468's are measured (models/perception/README.md); the others', whose weights were not at hand, is what
counts as wrong."""
BOX_SIDES = {"dlib68": 1.39, "dlib68_precise": 1.39}
"""Side of the boxes that a landmarker learned from, in extents of the inner landmarks (mean of width and
height), where it is known: of dlib_hog's on real faces, whose middle is theirs."""


class OtherBox(NamedTuple):
    """A box beside the one that landmarks were found in, in sides of that."""

    size: float
    right: float = 0.0
    down: float = 0.0


SMALLER_BOX = OtherBox(0.9)
HIGHER_AND_LOWER_BOXES = (OtherBox(1.0, 0.0, -0.05), OtherBox(1.0, 0.0, 0.05))
SHIFTED_BOXES = (*HIGHER_AND_LOWER_BOXES, OtherBox(1.0, -0.05), OtherBox(1.0, 0.05))


def change_boxes(boxes: np.ndarray, other: OtherBox) -> np.ndarray:
    """boxes (n,4) -> (n,4) float32."""
    size = boxes[:, 2:] - boxes[:, :2]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 + size * [other.right, other.down]
    return np.concatenate([middle - size * other.size / 2, middle + size * other.size / 2], axis=1).astype(
        np.float32
    )


def boxes_about_landmarks(landmarks: np.ndarray, box_side: float) -> np.ndarray:
    """landmarks (n,68,2) -> (n,4) float32: boxes whose middle is theirs, and as
    large as they say. box_side: of `BOX_SIDES`."""
    inner = landmarks[:, INNER_LANDMARKS]
    low, high = inner.min(1), inner.max(1)
    half = (high - low).mean(1, keepdims=True) * box_side / 2
    return np.concatenate([(low + high) / 2 - half, (low + high) / 2 + half], axis=1).astype(np.float32)


def frames_with_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """landmarks (T,68,2) -> (T,) bool."""
    return np.asarray(np.isfinite(landmarks).all((1, 2)))


def face_lengths(landmarks: np.ndarray) -> np.ndarray:
    """landmarks (T,68,2) -> (T,) pixels: between the outer corners of the eyes, or, where the face is turned
    away, what that would be by the length of the nose."""
    eyes, nose = (
        np.linalg.norm(landmarks[:, last] - landmarks[:, first], axis=1)
        for first, last in (OUTER_EYE_CORNERS, NOSE_ENDS)
    )
    return np.maximum(eyes, FACE_LENGTHS_PER_NOSE * nose)


def placement_gap(landmarks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Two placements (T,68,2) of the same faces -> (T,) how far they lie apart, in lengths of the first's
    face: the mean over the inner 51 points, or over the mouth's, whichever is more. NaN where one is."""
    apart = np.linalg.norm(landmarks - others, axis=2)  # (T,K)
    gap = np.maximum(apart[:, INNER_LANDMARKS].mean(1), apart[:, MOUTH_LANDMARKS].mean(1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return gap / face_lengths(landmarks)


def distance_aside(landmarks: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """landmarks (T,68,2) that were found in boxes (T,4) -> (T,) how far the middle of the inner ones lies to
    the left or right of the box's, in sides of the box; NaN where there are no landmarks."""
    across = landmarks[:, INNER_LANDMARKS, 0]
    middle, left, right = (across.min(1) + across.max(1)) / 2, boxes[:, 0], boxes[:, 2]
    return np.abs(middle - (left + right) / 2) / (right - left)


def distance_off_line(landmarks: np.ndarray, known: np.ndarray) -> np.ndarray:
    """landmarks (T,68,2), known (T,) bool, frames with landmarks -> (T,) how far the mouth, seen from nose
    and eyes, lies from the line between the known frames on either side, in lengths of the face. At the ends,
    from the nearest; NaN where there are no landmarks, or none are known."""
    at = np.flatnonzero(known)
    if not len(at):
        return np.full(len(landmarks), np.nan)
    mouth = landmarks[:, MOUTH_LANDMARKS] - landmarks[:, STEADY_LANDMARKS].mean(1, keepdims=True)
    line = interpolate_rows(mouth[at].reshape(len(at), -1), at, len(landmarks)).reshape(mouth.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.linalg.norm(mouth - line, axis=2).mean(1) / face_lengths(landmarks)


def interpolate_rows(rows: np.ndarray, at: np.ndarray, count: int) -> np.ndarray:
    """rows (n,D) of the frames `at` (n,), ascending -> (count,D), those of the nearest beyond the ends."""
    return np.stack([np.interp(np.arange(count), at, column) for column in rows.T], axis=1)


def slip_between_passes(landmarks: np.ndarray, previous_pass: np.ndarray) -> np.ndarray:
    """Landmarks (T,68,2), and those of the pass before the last, NaN where there was none -> (T,) slip, NaN
    where there are no landmarks."""
    return _spread_known(placement_gap(landmarks, previous_pass), frames_with_landmarks(landmarks))


def measure_slip(
    landmarks: np.ndarray,
    boxes: np.ndarray,
    looked_at: np.ndarray,
    place_again: PlaceAgain,
    limit: float,
    box_side: float | None = None,
) -> np.ndarray:
    """landmarks (T,68,2) that were found in boxes (T,4) -> (T,) slip, NaN where there are no landmarks: the
    mean of how far they move in a smaller box, in one about themselves, and in the one aside that moves them
    most. Of the first alone, or the first two, where these move them too little for a flag.

    looked_at: (T,) bool, the frames that are placed again in any case. limit: slip from which a
    frame is flagged, and its neighbours are placed again. box_side: of `BOX_SIDES`; None = the mean of the
    smaller box and those higher and lower."""
    present = frames_with_landmarks(landmarks)
    slip = np.full(len(landmarks), np.nan)
    asked = present & looked_at if (present & looked_at).any() else present
    asked = asked | (present & (distance_off_line(landmarks, asked) > MAX_OFF_LINE))
    asked = asked | (present & (distance_aside(landmarks, boxes) > MAX_ASIDE))

    def gap_from(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.zeros(0)
        return _nothing_found_is_far(placement_gap(landmarks[rows], place_again(rows, others)))

    while asked.any():
        rows = np.flatnonzero(asked)
        slip[rows] = gap_from(rows, change_boxes(boxes[rows], SMALLER_BOX))
        moved = rows[slip[rows] > MOVED_SHARE * limit]
        if box_side is None:
            aside = [gap_from(moved, change_boxes(boxes[moved], other)) for other in HIGHER_AND_LOWER_BOXES]
            slip[moved] = np.mean([slip[moved], *aside], axis=0)
        else:
            about = gap_from(moved, boxes_about_landmarks(landmarks[moved], box_side))
            slip[moved] = (slip[moved] + about) / 3  # where the others, left out, would move nothing
            moved = moved[slip[moved] > limit / 3]
            aside = [gap_from(moved, change_boxes(boxes[moved], other)) for other in SHIFTED_BOXES]
            slip[moved] += np.max(aside, axis=0) / 3
        flagged = np.concatenate([[False], slip > limit, [False]])
        asked = present & np.isnan(slip) & (flagged[:-2] | flagged[2:])
    return _spread_known(slip, present)


def _nothing_found_is_far(gap: np.ndarray) -> np.ndarray:
    """A box beside a face in which nothing is found says as much as one in which landmarks are elsewhere."""
    return np.where(np.isnan(gap), 1.0, gap)


def _spread_known(slip: np.ndarray, present: np.ndarray) -> np.ndarray:
    """slip (T,), NaN where it was not measured -> of all frames with landmarks; NaN in the others."""
    known = np.flatnonzero(present & np.isfinite(slip))
    if not len(known):
        return np.where(present, 0.0, np.nan).astype(np.float32)
    every = interpolate_rows(slip[known, None], known, len(slip))[:, 0]
    return np.where(present, every, np.nan).astype(np.float32)


def find_slip(
    frames: np.ndarray,
    boxes: np.ndarray,
    rolls: np.ndarray | None,
    looked_at: np.ndarray,
    found: LandmarkPrediction,
    landmarker: Landmarker,
    limit: float,
) -> np.ndarray:
    """frames (T,H,W,3), the boxes (T,4) and rolls that `found` was found with -> (T,) float32: slip."""
    if found.previous_pass is not None:
        return slip_between_passes(found.landmarks, found.previous_pass)

    def place_again(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        return landmarker.landmarks(frames[rows], others, None if rolls is None else rolls[rows])

    box_side = BOX_SIDES.get(landmarker.name)
    return measure_slip(found.landmarks, boxes, looked_at, place_again, limit, box_side)


def slip_limit(landmarker: str, wanted: float | None) -> float:
    """The limit that settings ask for; None = the landmarker's own; 0 = slip is not measured."""
    return SLIP_LIMITS[landmarker] if wanted is None else wanted
