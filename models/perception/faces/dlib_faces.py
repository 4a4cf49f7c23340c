"""dlib's face detectors and its 68 landmarks: the perception that comes with the wheels.

The landmark model was trained on iBUG 300-W, whose licence excludes commercial use.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from models.perception.interfaces import LandmarkPrediction

CNN_IMAGE_SIDE = (
    256  # longest side for the CNN: 0.36 s a frame there, 1.5 s at 512, for the same recall on large faces
)
PRECISE_LANDMARK_IMAGE_UPSAMPLING = 2
PRECISE_BOX_SHIFTS = ((0.0, 0.0), (-0.03, 0.0), (0.03, 0.0), (0.0, -0.03), (0.0, 0.03))
"""Boxes whose landmarks `precise` averages, moved by these shares of the box: jitter 1.5 -> 0.9 px at 256
px."""


class DlibDetector:
    """HOG + SVM at the frame's size; frames without a face once more at twice the size, then with the CNN if
    given.

    HOG sees faces from about 80 px, 40 px at twice the size. Its threshold stays 0: lower ones find faces in
    animals.
    """

    def __init__(self, name: str, cnn: Any | None = None):
        import dlib

        self.name = name
        self._hog: Any = dlib.get_frontal_face_detector()  # pyright: ignore[reportAttributeAccessIssue]
        self._cnn = cnn

    def detect(self, frames: np.ndarray) -> list[np.ndarray]:
        """frames (T,H,W,3) uint8 -> for each (n,5) float32: x0, y0, x1, y1, score."""
        return [self._one(np.ascontiguousarray(frame)) for frame in frames]

    def _one(self, frame: np.ndarray) -> np.ndarray:
        for upsample in (0, 1):
            boxes, scores, _ = self._hog.run(frame, upsample, 0.0)
            if len(boxes):
                return _rows(boxes, scores)
        return self._with_cnn(frame) if self._cnn is not None else np.zeros((0, 5), np.float32)

    def _with_cnn(self, frame: np.ndarray) -> np.ndarray:
        import dlib

        zoom = min(1.0, CNN_IMAGE_SIDE / max(frame.shape[:2]))
        rows, columns = (max(1, round(side * zoom)) for side in frame.shape[:2])
        small = dlib.resize_image(frame, rows, columns)  # pyright: ignore[reportAttributeAccessIssue]
        found = self._cnn(small, 0)  # pyright: ignore[reportOptionalCall]
        boxes = _rows([one.rect for one in found], [one.confidence for one in found])
        return boxes / np.array([columns / frame.shape[1], rows / frame.shape[0]] * 2 + [1], np.float32)


class DlibLandmarker:
    """The regression-tree landmarks, whole pixels; `precise` averages five boxes at twice the size."""

    def __init__(self, predictor: Path, precise: bool):
        import dlib

        self.name = "dlib68_precise" if precise else "dlib68"
        self._dlib: Any = dlib
        self._predict: Any = self._dlib.shape_predictor(str(predictor))
        self._precise = precise

    def landmarks(self, frames: np.ndarray, boxes: np.ndarray, rolls: np.ndarray | None = None) -> np.ndarray:
        """frames (T,H,W,3) uint8, boxes (T,4) -> (T,68,2) float32; NaN where the box is. The roll does not
        count."""
        out = np.full((len(frames), 68, 2), np.nan, np.float32)
        for t, (frame, box) in enumerate(zip(frames, boxes, strict=True)):
            if np.isfinite(box).all():
                out[t] = (
                    self._refined(frame, box)
                    if self._precise
                    else self._plain(np.ascontiguousarray(frame), box)
                )
        return out

    def predict(
        self,
        frames: np.ndarray,
        boxes: np.ndarray,
        rolls: np.ndarray | None = None,
        detected: np.ndarray | None = None,
    ) -> LandmarkPrediction:
        """The landmarks; regression trees do not say how sure they are."""
        return LandmarkPrediction(landmarks=self.landmarks(frames, boxes))

    def _plain(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        x0, y0, x1, y1 = np.round(box).astype(int).tolist()
        # dlib's rectangles hold their last pixel, its points are pixel indices: half a pixel to the centre
        points = self._predict(frame, self._dlib.rectangle(x0, y0, x1 - 1, y1 - 1)).parts()
        return np.array([(point.x, point.y) for point in points], np.float32) + 0.5

    def _refined(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        big = self._dlib.resize_image(
            np.ascontiguousarray(frame),
            height * PRECISE_LANDMARK_IMAGE_UPSAMPLING,
            width * PRECISE_LANDMARK_IMAGE_UPSAMPLING,
        )
        side = box[2:] - box[:2]
        moved = [np.tile(side * shift, 2) + box for shift in np.array(PRECISE_BOX_SHIFTS, np.float32)]
        return (
            np.mean([self._plain(big, one * PRECISE_LANDMARK_IMAGE_UPSAMPLING) for one in moved], axis=0)
            / PRECISE_LANDMARK_IMAGE_UPSAMPLING
        )


def load_hog_detector(weights: Mapping[str, Path]) -> DlibDetector:
    return DlibDetector("dlib_hog")


def load_hog_cnn_detector(weights: Mapping[str, Path]) -> DlibDetector:
    import dlib

    cnn = dlib.cnn_face_detection_model_v1(str(weights["dlib_mmod"]))  # pyright: ignore[reportAttributeAccessIssue]
    return DlibDetector("dlib_ladder", cnn)


def load_dlib_landmarker(weights: Mapping[str, Path]) -> DlibLandmarker:
    return DlibLandmarker(weights["dlib_sp68"], precise=False)


def load_precise_dlib_landmarker(weights: Mapping[str, Path]) -> DlibLandmarker:
    return DlibLandmarker(weights["dlib_sp68"], precise=True)


def _rows(boxes: Any, scores: Any) -> np.ndarray:
    """dlib's rectangles and scores -> (n,5) float32, the surest first."""
    rows = [(b.left(), b.top(), b.right() + 1, b.bottom() + 1, s) for b, s in zip(boxes, scores, strict=True)]
    return np.array(sorted(rows, key=lambda row: -row[4]), np.float32).reshape(-1, 5)
