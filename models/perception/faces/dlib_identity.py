"""dlib's 128-d face embedding: tells people apart on its own, badly enough never to be called CSIM.

Two pictures of one person are some 0.3 apart (L2), of two people 0.8; at dlib's own threshold of 0.6 it takes
5 % of pairs of people for one (measured on 29 people), more among faces unlike those it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class DlibEmbedder:
    """Face chips of 150 px by five landmarks, then a ResNet: 80 ms a face on one core."""

    name = "dlib128"

    def __init__(self, points: Path, net: Path):
        import dlib

        self._dlib: Any = dlib
        self._points: Any = self._dlib.shape_predictor(str(points))
        self._net: Any = self._dlib.face_recognition_model_v1(str(net))

    def embed(self, frames: np.ndarray, boxes: np.ndarray, max_yaw: float = 90.0) -> np.ndarray:
        """frames (n,H,W,3) uint8 RGB, boxes (n,4) in pixels -> (n,128) float32, NaN where the box is. dlib
        cannot tell how far a face is turned; its detector sees none beyond 60 degrees."""
        out = np.full((len(frames), 128), np.nan, np.float32)
        for n, (frame, box) in enumerate(zip(frames, boxes, strict=True)):
            if np.isfinite(box).all():
                image = np.ascontiguousarray(frame)
                x0, y0, x1, y1 = np.round(box).astype(int).tolist()
                # dlib's rectangles hold their last pixel
                points = self._points(image, self._dlib.rectangle(x0, y0, x1 - 1, y1 - 1))
                out[n] = np.array(self._net.compute_face_descriptor(image, points), np.float32)
        return out


def load_dlib_embedder(weights: Mapping[str, Path]) -> DlibEmbedder:
    return DlibEmbedder(weights["dlib_sp5"], weights["dlib_resnet"])
