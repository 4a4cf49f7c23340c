"""Face boxes by S3FD (Zhang et al. 2017), with face_alignment's own net.

The package reads one candidate cell after the other in Python, and in a batch each cell of any image for all
images. Here the candidates of all frames are picked on the device and decoded together; what comes out is
the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.perception.torch_net import TorchNet, load_pretrained_net, map_batches_with_oom_backoff

MAP_STRIDES = (4, 8, 16, 32, 64, 128)
"""Pixels between the cells of the six maps; a cell's prior box is four times as wide."""
PIXEL_MEAN = (104.0, 117.0, 123.0)
"""Of blue, green and red in the images that the net was trained on."""
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
SCORE_THRESHOLD = 0.5
NMS_THRESHOLD = 0.3
"""Of two boxes whose intersection is a larger part of their union, the surer one stays."""


class S3fdDetector:
    """models.perception.interfaces.FaceDetector, InferenceConfigurable. Sees faces from about 16 px."""

    def __init__(self, net: nn.Module, threshold: float = SCORE_THRESHOLD):
        self.name = "s3fd"
        self._net, self._threshold = TorchNet(net), threshold

    def configure_inference(self, how: Any) -> None:
        self._net.configure_inference(how)

    @torch.inference_mode()
    def detect(self, frames: np.ndarray) -> list[np.ndarray]:
        """frames (T,H,W,3) uint8 -> for each (n,5) float32: x0, y0, x1, y1, score; the surest first.

        Boxes may reach over the frame's edge.
        """
        size = self._net.batch_size(frames.shape[1] * frames.shape[2])
        done = list(
            map_batches_with_oom_backoff(
                len(frames), size, lambda some, full: self._candidates(frames[some], full)
            )
        )
        found: list[np.ndarray] = []
        for rows, count in done:
            values = rows.cpu().numpy().astype(np.float64)
            boxes = np.column_stack([decode_boxes(values[:, 1:8]), values[:, 8]])
            found += [non_maximum_suppression(boxes[values[:, 0] == i]) for i in range(count)]
        return found

    def _candidates(self, frames: np.ndarray, full: int) -> tuple[Tensor, int]:
        """frames (B,H,W,3) -> (n,9) rows of the cells above the threshold: frame of the batch; row, column
        and stride of the cell; its four numbers; its score. In the order of maps, then frames and cells."""
        images = self._net.images_to_device(torch.from_numpy(np.ascontiguousarray(frames)))
        images = images.flip(1) - images.new_tensor(PIXEL_MEAN)[:, None, None]  # RGB to BGR
        maps: Sequence[Tensor] = [one[: len(frames)].float() for one in self._net.run_net(images, full)]
        rows = []
        for stride, classes, places in zip(MAP_STRIDES, maps[0::2], maps[1::2], strict=True):
            score = classes.softmax(1)[:, 1]  # (B,h,w)
            b, y, x = (score > self._threshold).nonzero(as_tuple=True)
            cell = torch.stack([b, y, x, torch.full_like(b, stride)], dim=1).float()
            rows.append(torch.cat([cell, places[b, :, y, x], score[b, y, x][:, None]], dim=1))
        return torch.cat(rows), len(frames)


def decode_boxes(cells: np.ndarray) -> np.ndarray:
    """cells (n,7): row, column, stride and the four numbers of the net -> boxes (n,4)."""
    stride, numbers = cells[:, 2:3], cells[:, 3:]
    middle = stride / 2 + cells[:, 1::-1] * stride
    prior = 4 * stride
    size = prior * np.exp(numbers[:, 2:] * SIZE_VARIANCE)
    corner = middle + numbers[:, :2] * CENTRE_VARIANCE * prior - size / 2
    return np.concatenate([corner, corner + size], axis=1)


def non_maximum_suppression(boxes: np.ndarray) -> np.ndarray:
    """boxes (n,5) -> (m,5) float32: the surest of each heap, of equals the last. Edges count as whole pixels,
    as they did when the threshold was chosen."""
    rest = boxes[np.argsort(boxes[:, 4], kind="stable")[::-1]]
    kept = []
    while len(rest):
        kept.append(rest[0])
        low, high = np.maximum(rest[0, :2], rest[1:, :2]), np.minimum(rest[0, 2:4], rest[1:, 2:4])
        shared = np.maximum(high - low + 1, 0).prod(1)
        area = (rest[:, 2:4] - rest[:, :2] + 1).prod(1)
        rest = rest[1:][shared <= NMS_THRESHOLD * (area[0] + area[1:] - shared)]
    return np.array(kept, np.float32).reshape(-1, 5)


def load_s3fd(weights: Mapping[str, Path]) -> S3fdDetector:
    from face_alignment.detection.sfd.net_s3fd import s3fd

    return S3fdDetector(load_pretrained_net(s3fd, weights["s3fd"], "s3fd"))
