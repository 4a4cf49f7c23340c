"""What the frozen nets promise. Stages take these as arguments and never name an implementation.

Images are uint8 RGB; coordinates are pixels, x right, y down, pixel centres at +0.5 (a box from 0 to 256
covers a 256 px image). A missing face is a row of NaN. Every implementation is deterministic.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np


class FaceDetector(Protocol):
    name: str
    """Goes into every sample that its boxes shaped."""

    def detect(self, frames: np.ndarray) -> list[np.ndarray]:
        """frames (T,H,W,3) -> for each frame (n,5) float32: x0, y0, x1, y1, score; the surest first."""
        ...


class Landmarker(Protocol):
    name: str

    def landmarks(self, frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """frames (T,H,W,3), boxes (T,4) float32, NaN rows skipped -> (T,68,2) float32, iBUG order."""
        ...
