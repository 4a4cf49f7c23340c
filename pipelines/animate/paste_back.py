"""The whole portrait with the rendered face in it: `reenact animate --paste-back`."""

from __future__ import annotations

import numpy as np

MAX_PASTE_BACK_SIDE = 1920
"""Longest side of a picture that is pasted back into, in pixels; larger ones are scaled down."""
FEATHER_SHARE = 0.12
"""Of the square's side: over this width the rendered face fades into the portrait."""


class PortraitCanvas:
    """The whole portrait, into which the rendered square fades; even sides, as 4:2:0 wants them."""

    def __init__(self, picture: np.ndarray, square: np.ndarray):
        from PIL import Image

        height, width = picture.shape[:2]
        zoom = min(1.0, MAX_PASTE_BACK_SIDE / max(height, width))
        if zoom < 1:
            size = max(2, round(width * zoom)), max(2, round(height * zoom))
            picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
        self._picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
        height, width = self._picture.shape[:2]
        edges = np.clip(np.round(square * zoom).astype(int), 0, [width, height] * 2)
        x0, y0, x1, y1 = (int(edge) for edge in edges)
        self._place = slice(y0, y1), slice(x0, x1)
        across = feather_weights(x1 - x0, left=x0 > 0, right=x1 < width)
        down = feather_weights(y1 - y0, left=y0 > 0, right=y1 < height)
        self._mask = (down[:, None] * across)[..., None].astype(np.float32)
        self._under = self._picture[self._place] * (1 - self._mask) + 0.5

    @property
    def size(self) -> tuple[int, int]:
        """(W,H)"""
        return self._picture.shape[1], self._picture.shape[0]

    def paste_face(self, image: np.ndarray) -> np.ndarray:
        """image (I,I,3) uint8 -> (H,W,3) uint8"""
        from PIL import Image

        out = self._picture.copy()
        size = self._mask.shape[1], self._mask.shape[0]
        patch = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        out[self._place] = (self._under + patch * self._mask).astype(np.uint8)
        return out


def feather_weights(length: int, left: bool, right: bool) -> np.ndarray:
    """(length,) weights: 1 inside, falling smoothly to 0 at the left or right end, or both."""
    at = np.arange(length) + 0.5
    weight = np.ones(length)
    for fade, distance in ((left, at), (right, length - at)):
        share = np.clip(distance / (FEATHER_SHARE * length), 0, 1)
        weight *= share**2 * (3 - 2 * share) if fade else 1
    return weight
