"""Real videos and pictures without truth: how their frames are turned, shrunk and mirrored, what is measured
on their landmarks, and contact sheets of it.

Landmarks are iBUG's 68, in pixels. Nothing of the media is kept but figures, and sheets where a folder for
them is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from models.fsrt.augment import MIRRORED_LANDMARKS
from models.perception.faces.mesh_points import LEFT_EYE_CONTOUR, RIGHT_EYE_CONTOUR
from models.perception.interfaces import FaceDetector, Landmarker
from pipelines.eval import mesh_features
from pipelines.figures import picture_grids
from tests.bench.face_truth import eye_aspect_ratio, eye_distance

CROP_SIDE = 256
GREY = (128, 128, 128)
CANVAS = (360, 640)
"""Height and width of the grey picture that small faces stand on."""
POINT_COLOUR, LID_COLOUR = (60, 255, 120), (255, 210, 40)
SHEET_CELL = 256


class PlacedFaces(NamedTuple):
    """Of n frames; NaN and 0 where there is no face."""

    landmarks: np.ndarray
    """(n,68,2) float32."""
    presence: np.ndarray
    """(n,) float32: the score of a landmarker that gives one, else 1 where there is a face."""
    dense: np.ndarray | None
    """(n,468,3) float32 of a face mesh."""

    @property
    def seen(self) -> np.ndarray:
        """(n,) bool."""
        return np.asarray(np.isfinite(self.landmarks).all((1, 2)))


def place_faces(detector: FaceDetector, landmarker: Landmarker, frames: np.ndarray) -> PlacedFaces:
    """The surest face of each frame (n,H,W,3), found in that frame alone."""
    rows = np.full((len(frames), 6), np.nan, np.float32)
    for t, faces in enumerate(detector.detect(frames)):
        if len(faces):
            rows[t] = np.append(faces[0], [0] * (6 - len(faces[0])))
    found = landmarker.predict(frames, rows[:, :4], np.nan_to_num(rows[:, 5]))
    score = found.score
    if score is None:
        score = np.asarray(np.isfinite(found.landmarks).all((1, 2)), np.float32)
    return PlacedFaces(found.landmarks, score, found.dense)


# --- frames that are turned, shrunk, mirrored; and points of them carried back ------------------------------
def turned(frames: np.ndarray, degrees: float) -> np.ndarray:
    """(n,S,S,3) -> the same size, turned clockwise as seen, grey outside."""
    return np.stack(
        [
            np.asarray(Image.fromarray(one).rotate(-degrees, Image.Resampling.BICUBIC, fillcolor=GREY))
            for one in frames
        ]
    )


def turned_back(points: np.ndarray, degrees: float, side: int) -> np.ndarray:
    """Points (...,2) of turned frames -> where they lie in the frames as they were."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return (points - side / 2) @ np.array([[cos, -sin], [sin, cos]]) + side / 2


def shrunk(frame: np.ndarray, face_width: float, width: float) -> tuple[np.ndarray, float, np.ndarray]:
    """A frame (S,S,3) whose face is `face_width` px wide -> on a grey canvas (360,640,3), its face `width` px
    wide; how much smaller it is; and left and top of it (2,)."""
    side = round(len(frame) * width / face_width)
    small = Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC)
    out = Image.new("RGB", (CANVAS[1], CANVAS[0]), GREY)
    corner = ((CANVAS[1] - side) // 2, (CANVAS[0] - side) // 2)
    out.paste(small, corner)
    return np.array(out), side / len(frame), np.array(corner, float)


def mirrored_back(points: np.ndarray, side: int) -> np.ndarray:
    """Landmarks (n,68,2) of mirrored frames -> where and which they are in the frames as they were."""
    back = points[:, MIRRORED_LANDMARKS].copy()
    back[..., 0] = side - back[..., 0]
    return back


def inner_gap(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(n,68,2) and (n,68,2) -> (n,) mean distance of the 51 inner ones, in % of the eyes' distance."""
    gap = np.linalg.norm(points - reference, axis=-1)[:, 17:].mean(1)
    return 100 * gap / eye_distance(reference)


# --- motion over time ---------------------------------------------------------------------------------------
class Jitter(NamedTuple):
    """Pixels, of second differences of the 51 inner points; true motion is in it."""

    rms: float
    median: float


def jitter(landmarks: np.ndarray) -> Jitter:
    """Landmarks (T,68,2) of consecutive frames."""
    away = np.linalg.norm(np.diff(landmarks[:, 17:], n=2, axis=0), axis=-1)
    return Jitter(float(np.sqrt(np.nanmean(away**2))), float(np.nanmedian(away)))


def eye_openness(landmarks: np.ndarray, dense: np.ndarray | None) -> np.ndarray:
    """(T,68,2) and, where there is a mesh, (T,468,3) -> (T,2) left and right eye: the mean gap of facing
    points of the lids over the distance of the corners. Seven pairs of the mesh's lids, two of the 68."""
    if dense is None:
        return np.stack([eye_aspect_ratio(landmarks, first) for first in (36, 42)], axis=1)
    return mesh_features.eye_openness(dense)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of curves (T,), over what is finite in both; NaN of fewer than five."""
    both = np.isfinite(a) & np.isfinite(b)
    return float(np.corrcoef(a[both], b[both])[0, 1]) if both.sum() >= 5 else float("nan")


# --- contact sheets -----------------------------------------------------------------------------------------
def face_cell(frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The square about the landmarks (68,2) with them on it, (SHEET_CELL,SHEET_CELL,3); the middle of the
    frame where there is none."""
    if not np.isfinite(landmarks).all():
        return _zoom(frame, np.array(frame.shape[1::-1]) / 2, min(frame.shape[:2]))[0]
    low, high = landmarks.min(0), landmarks.max(0)
    cell, matrix = _zoom(frame, (low + high) / 2, 1.6 * float((high - low).max()))
    picture = Image.fromarray(cell)
    canvas = ImageDraw.Draw(picture)
    for x, y in landmarks * matrix[0] + matrix[1]:
        canvas.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=POINT_COLOUR)
    return np.asarray(picture)


def eyes_cell(frame: np.ndarray, landmarks: np.ndarray, dense: np.ndarray | None) -> np.ndarray:
    """Both eyes, bare above and with their lids' lines below, (SHEET_CELL,SHEET_CELL,3)."""
    if not np.isfinite(landmarks).all():
        return np.full((SHEET_CELL, SHEET_CELL, 3), GREY, np.uint8)
    centre = landmarks[36:48].mean(0)
    side = 1.4 * float(eye_distance(landmarks))
    bare, matrix = _zoom(frame, centre, side)
    picture = Image.fromarray(bare)
    canvas = ImageDraw.Draw(picture)
    for outline in _lid_lines(landmarks, dense):
        placed = [tuple(at) for at in outline * matrix[0] + matrix[1]]
        canvas.line([*placed, placed[0]], fill=LID_COLOUR, width=1)
    half, quarter = SHEET_CELL // 2, SHEET_CELL // 4
    band = slice(quarter, quarter + half)
    return np.concatenate([bare[band], np.asarray(picture)[band]])


def _lid_lines(landmarks: np.ndarray, dense: np.ndarray | None) -> list[np.ndarray]:
    """Outlines (n,2) of both eyes."""
    if dense is None:
        return [landmarks[36:42], landmarks[42:48]]
    around = [*range(9), *range(15, 8, -1)]
    return [dense[np.array(c)[around], :2] for c in (LEFT_EYE_CONTOUR, RIGHT_EYE_CONTOUR)]


def _zoom(frame: np.ndarray, centre: np.ndarray, side: float) -> tuple[np.ndarray, tuple[float, np.ndarray]]:
    """A square of a frame as a cell, and how its pixels come there: times the first, plus the second (2,)."""
    scale, corner = SHEET_CELL / side, centre - side / 2
    box = (float(corner[0]), float(corner[1]), float(corner[0] + side), float(corner[1] + side))
    cell = Image.fromarray(frame).transform(
        (SHEET_CELL, SHEET_CELL), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC, fillcolor=GREY
    )
    return np.asarray(cell), (scale, -corner * scale)


def write_contact_sheet(
    path: Path, rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], names: Sequence[str]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture_grids.encode_png(picture_grids.picture_grid(rows, titles, names)))
