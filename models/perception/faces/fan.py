"""68 landmarks by the Face Alignment Network (Bulat & Tzimiropoulos 2017), with face_alignment's own nets.

The package places one face at a time and truncates to whole pixels. Here the faces of a clip go through the
net in batches; peaks are read for all of them at once, on its device, and keep their fractions. Crops are the
package's to the bit: a square of 200 (w + h) / 195 pixels about the box's centre, raised by 0.12 h, whose
corners are truncated to whole pixels, scaled to 256.

| net | places |
|---|---|
| fan2d | the visible outline of the face: the 68 points of 300-W |
| fan2d_flip | the same, averaged with what the net sees in the mirrored image |
| fan25d | where the 68 points of the 3D face project to, those of the far cheek too |
| fan3d | as fan25d, and the depth of each |
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from models.perception.interfaces import LandmarkPrediction
from models.perception.torch_net import TorchNet, load_pretrained_net, map_batches_with_oom_backoff

CROP_SIZE, HEATMAP_SIZE, LANDMARK_COUNT = 256, 64, 68
REFERENCE_FACE_SIZE, REFERENCE_CROP_SIZE = 195.0, 200.0
"""A face whose box has width + height = REFERENCE fills a crop of UNIT pixels."""
CENTRE_SHIFT = 0.12
MIN_CROP_PIXELS, MAX_CROP_RATIO = 8, 4
"""A crop of fewer pixels a side, or so many times wider than the frame, shows no face; none is made."""
MIRRORED_LANDMARKS = [
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), *range(45, 41, -1), 47, 46,
    *range(39, 35, -1), 41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
]  # fmt: skip
"""The landmark that each becomes in the mirrored image."""
HEATMAP_KERNEL_SIZE, HEATMAP_SIGMA = 13, 3.25
"""Side and sigma, in pixels of the crop, of the spots that show the depth net where the landmarks are."""


# --- crops --------------------------------------------------------------------------------------------------
class CropWindows(NamedTuple):
    centre: np.ndarray
    """(n,2) float64 pixels."""
    side: np.ndarray
    """(n,) float64 pixels: what the net's 64 cells span."""
    corners: np.ndarray
    """(n,4) int64: x0, y0, x1, y1 of the pixels that are cropped."""


def crop_windows_from_boxes(boxes: np.ndarray) -> CropWindows:
    """boxes (n,4) -> the crop of each. Corners in float32, step by step as the package reckons them, so that
    truncation falls on the same pixel."""
    boxes = boxes.astype(np.float64)
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, 2:] - size / 2
    centre[:, 1] -= size[:, 1] * CENTRE_SHIFT
    side = REFERENCE_CROP_SIZE * (size.sum(1) / REFERENCE_FACE_SIZE)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        zoom = (CROP_SIZE / side).astype(np.float32)[:, None]
        shift = (CROP_SIZE * (-centre / side[:, None] + 0.5)).astype(np.float32)
        inverse = np.float32(1) / zoom
        corners = [inverse * np.float32(at) - shift * inverse for at in (1, CROP_SIZE)]
        integral = np.trunc(np.nan_to_num(np.concatenate(corners, axis=1), nan=0.0)).clip(-(2**31), 2**31)
    return CropWindows(centre, side, integral.astype(np.int64))


def usable_crop_mask(boxes: np.ndarray, corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """(n,) bool: there is a box, it has an area, its crop is of a size to show a face and not all outside."""
    x0, y0, x1, y1 = corners.T
    inside = (x0 < width) & (y0 < height) & (x1 > 0) & (y1 > 0)
    not_narrow = np.minimum(x1 - x0, y1 - y0) >= MIN_CROP_PIXELS
    not_wide = np.maximum(x1 - x0, y1 - y0) <= MAX_CROP_RATIO * max(height, width)
    area = np.isfinite(boxes).all(1) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return area & inside & not_narrow & not_wide


def crop_frame(frame: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """frame (H,W,3) uint8, corners (4,) -> (256,256,3) uint8, black outside the frame."""
    x0, y0, x1, y1 = corners.tolist()
    height, width = frame.shape[:2]
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    piece = frame[top:bottom, left:right]
    if (left, top, right, bottom) != (x0, y0, x1, y1):
        canvas = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
        canvas[top - y0 : bottom - y0, left - x0 : right - x0] = piece
        piece = canvas
    return cv2.resize(piece, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_LINEAR)


# --- heatmaps -----------------------------------------------------------------------------------------------
def heatmap_peaks(heat: Tensor) -> tuple[Tensor, Tensor]:
    """heat (B,K,H,W) -> positions (B,K,2) float32 in cells (the first cell is 0 to 1) and heights (B,K).

    The middle of the highest cell, moved by a quarter toward the higher neighbour along each axis; not in
    the outermost cells.
    """
    flat = heat.float().flatten(2)
    columns = heat.shape[3]
    index = flat.argmax(-1, keepdim=True)  # (B,K,1); the first of equals
    row, column = index // columns, index % columns
    interior = (row > 0) & (row < heat.shape[2] - 1) & (column > 0) & (column < columns - 1)

    def slope(step: int) -> Tensor:
        beside = [(index + way).clamp(0, flat.shape[2] - 1) for way in (step, -step)]
        return (flat.gather(2, beside[0]) - flat.gather(2, beside[1])).sign()

    offset = torch.cat([slope(1), slope(columns)], dim=2) * 0.25 * interior  # (B,K,2)
    cell = torch.cat([column, row], dim=2) + 0.5
    return cell + offset, flat.gather(2, index)[..., 0]


def landmark_heatmaps(at: Tensor) -> Tensor:
    """Landmarks (B,K,2) in pixels of the crop -> (B,K,256,256): a spot of height 1 at each.

    Near the left and upper edge it sits up to two pixels off, as in the images the depth net learned from.
    """
    x, y = _profile(at[..., 0]), _profile(at[..., 1])  # (B,K,256)
    return y[..., :, None] * x[..., None, :]


def _profile(at: Tensor) -> Tensor:
    """(B,K) -> (B,K,256)."""
    reach = HEATMAP_KERNEL_SIZE // 2
    low, high = (at - reach).floor()[..., None], (at + reach).floor()[..., None]
    pixel = torch.arange(CROP_SIZE, device=at.device)
    first = low.clamp(min=1) - 1
    entry = pixel - first + (-low).clamp(min=1) - 1  # of the 13 x 13 stamp
    inside = (pixel >= first) & (pixel < high) & (entry < HEATMAP_KERNEL_SIZE)
    return torch.exp(-(((entry - reach) / HEATMAP_SIGMA) ** 2) / 2) * inside


# --- the landmarker -----------------------------------------------------------------------------------------
class FanLandmarker:
    """models.perception.interfaces.Landmarker, InferenceConfigurable."""

    def __init__(self, name: str, net: nn.Module, depth: nn.Module | None = None, flip: bool = False):
        self.name = name
        self._net, self._flip = TorchNet(net), flip
        self._depth = TorchNet(depth) if depth is not None else None

    def configure_inference(self, how: Any) -> None:
        self._net.configure_inference(how)
        if self._depth is not None:
            self._depth.configure_inference(how)

    def landmarks(self, frames: np.ndarray, boxes: np.ndarray, rolls: np.ndarray | None = None) -> np.ndarray:
        """frames (T,H,W,3) uint8, boxes (T,4) -> (T,68,2) float32; NaN where the box is, or shows nothing.
        Crops stand upright, whatever the roll."""
        return self.predict(frames, boxes).landmarks

    @torch.inference_mode()
    def predict(
        self,
        frames: np.ndarray,
        boxes: np.ndarray,
        rolls: np.ndarray | None = None,
        detected: np.ndarray | None = None,
    ) -> LandmarkPrediction:
        """Landmarks, the height of each one's peak, and for fan3d x, y and depth."""
        if frames.strides[2:] != (3, 1):  # a mirrored view, or channels apart: not for OpenCV
            frames = np.ascontiguousarray(frames)
        cut = crop_windows_from_boxes(boxes)
        rows = np.flatnonzero(usable_crop_mask(boxes, cut.corners, *frames.shape[1:3]))

        def work(some: slice, full: int) -> Tensor:
            chosen = rows[some]
            crops = np.stack([crop_frame(frames[t], cut.corners[t]) for t in chosen])
            return self._batch(torch.from_numpy(crops), full)

        found = np.zeros((len(rows), LANDMARK_COUNT, 4), np.float32)
        # Nothing waits for the device before the last batch is on its way: crops are cut while it works.
        results = list(
            map_batches_with_oom_backoff(len(rows), self._net.batch_size(CROP_SIZE * CROP_SIZE), work)
        )
        if results:
            found = torch.cat(results).cpu().numpy()
        return _placed(found, rows, len(frames), cut, self._depth is not None)

    def _batch(self, crops: Tensor, full: int) -> Tensor:
        """crops (B,256,256,3) uint8 -> (B,68,4) float32: x, y in cells, height of peak, depth in crops."""
        images = self._net.images_to_device(crops) / 255
        heat = self._heat(images, full)
        at, height = heatmap_peaks(heat)
        depth = torch.zeros_like(height)
        if self._depth is not None:
            inputs = torch.cat(
                [images, landmark_heatmaps(at * (CROP_SIZE / HEATMAP_SIZE))], dim=1
            )  # (B,71,256,256)
            depth = self._depth.run_net(inputs, full)[: len(crops)].float() / CROP_SIZE
        return torch.cat([at, height[..., None], depth[..., None]], dim=2)

    def _heat(self, images: Tensor, full: int) -> Tensor:
        """(B,3,256,256) in [0,1] -> (B,68,64,64) float32, of the last of the stacked hourglasses."""
        heat = _last(self._net.run_net(images, full))[: len(images)].float()
        if self._flip:
            mirrored = _last(self._net.run_net(images.flip(3), full))[: len(images)].float()
            heat = (heat + mirrored[:, MIRRORED_LANDMARKS].flip(3)) / 2
        return heat


def _last(out: Any) -> Tensor:
    return out[-1] if isinstance(out, (list, tuple)) else out


def _placed(
    found: np.ndarray, rows: np.ndarray, count: int, cut: CropWindows, deep: bool
) -> LandmarkPrediction:
    """found (n,68,4) of `rows` -> Points of all `count` frames, in their pixels."""
    points = np.full((count, LANDMARK_COUNT, 3), np.nan, np.float32)
    confidence = np.zeros((count, LANDMARK_COUNT), np.float32)
    side, centre = cut.side[rows, None, None], cut.centre[rows, None]
    points[rows, :, :2] = (found[..., :2].astype(np.float64) / HEATMAP_SIZE - 0.5) * side + centre
    points[rows, :, 2:] = found[..., 3:] * side
    confidence[rows] = found[..., 2]
    landmarks = np.ascontiguousarray(points[..., :2])
    return LandmarkPrediction(
        landmarks=landmarks, confidence=confidence, landmarks3d=points if deep else None
    )


# --- loaders ------------------------------------------------------------------------------------------------
def load_fan_2d(weights: Mapping[str, Path]) -> FanLandmarker:
    return FanLandmarker("fan2d", _fan(weights, "fan2d"))


def load_fan_2d_flip(weights: Mapping[str, Path]) -> FanLandmarker:
    return FanLandmarker("fan2d_flip", _fan(weights, "fan2d"), flip=True)


def load_fan_25d(weights: Mapping[str, Path]) -> FanLandmarker:
    return FanLandmarker("fan25d", _fan(weights, "fan3d"))


def load_fan_3d(weights: Mapping[str, Path]) -> FanLandmarker:
    from face_alignment.models import ResNetDepth

    return FanLandmarker(
        "fan3d", _fan(weights, "fan3d"), load_pretrained_net(ResNetDepth, weights["fan_depth"], "fan_depth")
    )


def _fan(weights: Mapping[str, Path], weights_id: str) -> nn.Module:
    from face_alignment.models import FAN

    return load_pretrained_net(lambda: FAN(4), weights[weights_id], weights_id)
