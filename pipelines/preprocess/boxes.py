"""Boxes (x0, y0, x1, y1) of faces: grown, made square, and smoothed over time."""

from __future__ import annotations

import numpy as np

BOX_SIDE_EPSILON = 1e-9
"""Pixels: a box without area grows from there."""


def shrink_frame(width: int, height: int, longest: int) -> tuple[tuple[int, int], np.ndarray]:
    """A frame whose longest side is at most `longest`, even: its width and height, and the zoom (4,) of boxes
    in it to those of the whole frame."""
    zoom = min(1.0, longest / max(width, height))
    small = (max(2, round(width * zoom / 2) * 2), max(2, round(height * zoom / 2) * 2))
    return small, np.array([width / small[0], height / small[1]] * 2, np.float32)


def largest_box(boxes: np.ndarray) -> np.ndarray:
    """Boxes (n,4 or more) of one frame, at least one -> the one of largest area, the first of equals."""
    return boxes[int(np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1).argmax())]


def enlarge_box(box: np.ndarray, increase: float, aspect: str) -> np.ndarray:
    """Each side of box (4,) moved out by `increase` of its length; then square, unless aspect is stretch, by
    moving the sides of the shorter length further. In the order of the published cropper's own sums."""
    sides = np.maximum(box[2:] - box[:2], BOX_SIDE_EPSILON)
    grow = np.array([increase, increase])
    if aspect != "stretch":
        grow = np.maximum(grow, ((1 + 2 * increase) * sides[::-1] - sides) / (2 * sides))
    return np.concatenate([box[:2] - grow * sides, box[2:] + grow * sides])


def pad_box(box: np.ndarray, margin: float) -> np.ndarray:
    """(4,) with `margin` of its sides added on each."""
    side = margin * (box[2:] - box[:2])
    return np.concatenate([box[:2] - side, box[2:] + side])


def median_filter_boxes(boxes: np.ndarray, window: int) -> np.ndarray:
    """(T,4) -> (T,4): median over `window` frames, the ends repeated. A detector's box sizes come in
    steps."""
    if window == 1:
        return boxes
    half = window // 2
    padded = np.pad(boxes, ((half, half), (0, 0)), mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, window, axis=0), axis=-1).astype(
        np.float32
    )
