"""Pictures as metrics compare them: two clips (T,H,W,3), uint8 or floats in [0,1].

Frames are stored as uint8, and a clip in float64 is eight times as large: each frame is turned into floats
by itself, where a metric needs them at all.
"""

from __future__ import annotations

import numpy as np

MAX_PIXEL = 255.0


def check_pictures(prediction: np.ndarray, target: np.ndarray) -> None:
    """Raises ValueError for clips that differ in shape, or that hold no picture, or NaN."""
    if prediction.shape != target.shape or prediction.ndim != 4 or prediction.shape[-1] != 3:
        raise ValueError(
            f"prediction {prediction.shape} and target {target.shape}: expected two equal (T,H,W,3)"
        )
    if not min(target.shape[1:3]):
        raise ValueError(f"frames of {target.shape[1]} x {target.shape[2]} pixels: nothing to compare")
    for side, frames in (("prediction", prediction), ("target", target)):
        if frames.dtype != np.uint8 and not np.isfinite(frames).all():
            bad = np.flatnonzero(~np.isfinite(frames).all((1, 2, 3)))
            raise ValueError(f"{side}: NaN or infinite pixels in frame {bad[0]}, {len(bad)} of {len(frames)}")


def to_pixel_values(frames: np.ndarray) -> np.ndarray:
    """uint8, or floats in [0,1] -> float64 in [0,255], of the same shape."""
    return write_pixel_values(frames, np.empty(frames.shape))


def write_pixel_values(frames: np.ndarray, out: np.ndarray) -> np.ndarray:
    """The same, into an array that is there."""
    if frames.dtype == np.uint8:
        out[...] = frames
        return out
    return np.multiply(frames, MAX_PIXEL, out=out)


def absolute_difference(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two frames (H,W,3) -> float64 in [0,255], of the same shape: whole numbers where both are uint8, so
    that their sums are exact."""
    if prediction.dtype == target.dtype == np.uint8:
        return np.asarray(np.maximum(prediction, target) - np.minimum(prediction, target), np.float64)
    return np.abs(to_pixel_values(prediction) - to_pixel_values(target))
