"""Pictures for people: what a step saw and made, as bytes."""

from __future__ import annotations

import numpy as np
from torch import Tensor

FOUND_COLOUR, WANTED_COLOUR = (
    (255, 0, 0),
    (0, 255, 0),
)  # colours of keypoints the net found, and of given ones


def images_to_uint8(images: Tensor) -> np.ndarray:
    """(...,3,H,W) in [0,1], values outside clamped -> (...,H,W,3) uint8"""
    return (images.clamp(0, 1) * 255).round().byte().movedim(-3, -1).cpu().numpy()


def mark_keypoints(
    pictures: np.ndarray, keypoints: Tensor, colour: tuple[int, int, int] = FOUND_COLOUR
) -> np.ndarray:
    """Copies of pictures (B,H,H,3) uint8 with keypoints (B,K,2) on [-1,1] as dots of 3 px, more on larger
    pictures; those outside are left out.
    """
    copies, side = pictures.copy(), pictures.shape[1]
    reach = max(1, side // 128)
    places = np.floor((keypoints.float().cpu().numpy() + 1) / 2 * side)
    for picture, points in zip(copies, places, strict=True):
        for x, y in points[((points >= 0) & (points < side)).all(-1)].astype(int):
            picture[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = colour
    return copies
