"""Turned squares cut out of images, and places in them carried back to the image; differentiable.

Coordinates are pixels of the image, x right, y down, pixel centres at +0.5. A crop's corners are the edges of
its cells: pixel i of S lies at ((i + 0.5) / S - 0.5) of the side, turned, from the centre. (MediaPipe's warp
takes indices, and is half a pixel of the crop off.)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class CropSquares(NamedTuple):
    """Of B crops."""

    centre: Tensor
    """(B,2) float32 pixels."""
    side: Tensor
    """(B,) float32 pixels, more than 0."""
    angle: Tensor
    """(B,) float32 radians from the image's x axis to the crop's, positive from x to y: clockwise as seen."""


def sample_crops(images: Tensor, squares: CropSquares, size: int) -> Tensor:
    """images (B,C,H,W) float, or uint8, which then count in 255ths -> (B,C,size,size) float, bilinear;
    outside the image its border is repeated.

    Squares wider than twice `size` are averaged over whole pixels first, so that nothing aliases. Gradient
    reaches the images; where squares need one, they must not be averaged (the number of pixels has none).
    """
    kind = torch.float32 if images.dtype == torch.uint8 else images.dtype
    out = images.new_empty((len(images), images.shape[1], size, size), dtype=kind)
    shrink = (squares.side.detach() / size).floor().clamp(min=1).long()
    shrink = torch.where(squares.side.detach() > 2 * size, shrink, torch.ones_like(shrink))
    shrink = shrink.clamp(max=min(images.shape[2:]))
    for factor in set(shrink.tolist()):
        rows = (shrink == factor).nonzero()[:, 0]
        if len(rows) == len(images):
            return _sample(images, squares, size, factor)
        some = CropSquares(squares.centre[rows], squares.side[rows], squares.angle[rows])
        out = out.index_copy(0, rows, _sample(images[rows], some, size, factor))
    return out


def _sample(images: Tensor, squares: CropSquares, size: int, factor: int) -> Tensor:
    """As sample_crops, of images averaged over factor x factor pixels."""
    gradient = torch.is_grad_enabled() and any(one.requires_grad for one in (images, *squares))
    by_opencv = not gradient and images.device.type == "cpu" and images.dtype in (torch.float32, torch.uint8)
    if images.dtype == torch.uint8 and (factor > 1 or not by_opencv):
        images = images / 255
    if factor > 1:
        images = F.avg_pool2d(images, factor)
        squares = CropSquares(squares.centre / factor, squares.side / factor, squares.angle)
    if by_opencv:
        return _sample_on_cpu(images, squares, size)
    grid = crop_grid(squares, size, images.shape[2], images.shape[3])
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _sample_on_cpu(images: Tensor, squares: CropSquares, size: int) -> Tensor:
    """By OpenCV, in an eighth of grid_sample's time; the same to 2e-5 of the range of values."""
    rows = images.permute(0, 2, 3, 1).contiguous().numpy()  # nothing is copied of frames as they are decoded
    out = np.empty((len(rows), size, size, images.shape[1]), np.float32)
    step = squares.side.double().numpy() / size
    cos, sin = step * np.cos(squares.angle.double().numpy()), step * np.sin(squares.angle.double().numpy())
    reach = (np.abs(cos) + np.abs(sin)) * size / 2 + 2
    for n, (image, middle) in enumerate(zip(rows, squares.centre.tolist(), strict=True)):
        corner, part = _cut_around(image, middle, reach[n])
        turn = np.array([[cos[n], -sin[n]], [sin[n], cos[n]]])
        # from indices of the crop to indices of the image, whose pixel centres are whole numbers here
        shift = np.subtract(middle, corner) - 0.5 + turn @ np.full(2, 0.5 - size / 2)
        cv2.warpAffine(
            part.astype(np.float32, copy=False), np.column_stack([turn, shift]), (size, size), out[n],
            cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE,
        )  # fmt: skip
    if rows.dtype == np.uint8:
        out /= 255
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def _cut_around(image: np.ndarray, middle: list[float], reach: float) -> tuple[tuple[int, int], np.ndarray]:
    """image (H,W,C), middle x, y in pixels -> left and top, and the part of the image within `reach`, one
    pixel of its border at least: only so much of a large frame is made floats. NaN: the first pixel."""
    spans = []
    for at, side in zip(middle, image.shape[1::-1], strict=True):
        low = min(max(at - reach, 0), side - 1) if math.isfinite(at - reach) else 0
        high = min(max(at + reach, low + 1), side) if math.isfinite(at + reach) else 1
        spans.append((int(low), math.ceil(high)))
    (left, right), (top, bottom) = spans
    return (left, top), image[top:bottom, left:right]


def crop_grid(squares: CropSquares, size: int, height: int, width: int) -> Tensor:
    """Where the pixels of the crops lie in an image: (B,size,size,2), -1 and 1 its edges, as grid_sample of
    torch takes them."""
    cos, sin = squares.side * squares.angle.cos(), squares.side * squares.angle.sin()
    x, y = squares.centre.unbind(1)
    rows = (
        torch.stack([cos / width, -sin / width, 2 * x / width - 1], dim=1),
        torch.stack([sin / height, cos / height, 2 * y / height - 1], dim=1),
    )
    return F.affine_grid(torch.stack(rows, dim=1), [len(x), 1, size, size], align_corners=False)


def crop_to_image_points(points: Tensor, squares: CropSquares) -> Tensor:
    """points (B,n,2 or 3) in crops of side 1 from 0 to 1, depth as a share of the side -> pixels of the
    image, depth in its pixels."""
    offset = (points[..., :2] - 0.5) * squares.side[:, None, None]
    flat = _turn(offset, squares.angle[:, None]) + squares.centre[:, None]
    return torch.cat([flat, points[..., 2:] * squares.side[:, None, None]], dim=-1)


def _turn(offsets: Tensor, angle: Tensor) -> Tensor:
    """offsets (...,2), turned by angles of their leading shape."""
    cos, sin = angle.cos(), angle.sin()
    x, y = offsets.unbind(-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)
