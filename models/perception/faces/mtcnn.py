"""Face boxes by MTCNN (Zhang et al. 2016) as facenet-pytorch has it, which HeadGAN's authors cut clips by.

Three small nets, each of which looks closer at what the one before it lets through. The first slides over the
frame at many scales, in windows of 12 px; the second and the third see each candidate alone, at 24 and 48 px.
Each corrects the boxes too. The layers carry the names of the wheel's files, which are read as they are. What
the third says of eyes, nose and mouth is not asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor, nn
from torch.nn import functional

from models.perception.interfaces import InferenceSettings
from models.perception.torch_net import TorchNet, load_pretrained_net, map_batches_with_oom_backoff

MTCNN_WEIGHTS_IDS = ("mtcnn_pnet", "mtcnn_rnet", "mtcnn_onet")
WINDOW, WINDOW_STRIDE = 12, 2
"""Pixels of a scaled frame that a cell of the first net sees, and between two cells."""
SMALLEST_FACE = 20
"""Side in pixels of the smallest face that is looked for: the frame is scaled until it is a window."""
PYRAMID_FACTOR = 0.709
"""Of a scale to the one before it: the square root of 1/2, as the authors round it."""
REFINE_SIDE, OUTPUT_SIDE = 24, 48
"""Pixels of the candidates that the second and the third net see."""
LANDMARK_TENSORS = ("dense6_3.weight", "dense6_3.bias")
"""Of the third file, not used."""
THRESHOLDS = (0.6, 0.7, 0.7)
"""Least probability of a face, by each net; the last two let through only what is above."""
SAME_SCALE_OVERLAP, OVERLAP = 0.5, 0.7
"""Of two candidates that overlap more the surer one stays: of one scale, and everywhere else."""
PIXEL_OFFSET, PIXEL_SCALE = 127.5, 0.0078125
CROPS_PER_PASS = 512
"""Candidates that the second and the third net see at once."""


class ProposalNet(nn.Module):
    """P-Net, without padding: a cell of what comes out has seen a window of 12 px."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.pool1 = nn.MaxPool2d(2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B,3,H,W) -> probability of a face (B,h,w), corrections (B,4,h,w) in sides of the window."""
        x = self.pool1(self.prelu1(self.conv1(images)))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_1(x).softmax(1)[:, 1], self.conv4_2(x)


class RefineNet(nn.Module):
    """R-Net, on candidates of 24 px."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N,3,24,24) -> probability of a face (N,), corrections (N,4) in sides of the box."""
        x = self.pool(self.prelu1(self.conv1(images)))
        x = self.pool(self.prelu2(self.conv2(x)))
        x = self.prelu4(self.dense4(_in_file_order(self.prelu3(self.conv3(x)))))
        return self.dense5_1(x).softmax(1)[:, 1], self.dense5_2(x)


class OutputNet(nn.Module):
    """O-Net, on candidates of 48 px, without its five landmarks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.pool, self.pool3 = nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(2, ceil_mode=True)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2 = nn.Linear(256, 2), nn.Linear(256, 4)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N,3,48,48) -> probability of a face (N,), corrections (N,4) in sides of the box."""
        x = self.pool(self.prelu1(self.conv1(images)))
        x = self.pool(self.prelu2(self.conv2(x)))
        x = self.pool3(self.prelu3(self.conv3(x)))
        x = self.prelu5(self.dense5(_in_file_order(self.prelu4(self.conv4(x)))))
        return self.dense6_1(x).softmax(1)[:, 1], self.dense6_2(x)


def _in_file_order(maps: Tensor) -> Tensor:
    """(N,C,h,w) -> (N,whC): the files' dense layers were trained on columns of rows of channels."""
    return maps.permute(0, 3, 2, 1).flatten(1)


class Candidates(NamedTuple):
    """Possible faces of a batch of frames, float32 but for `frame`."""

    frame: np.ndarray
    """(N,) int: which one of the batch."""
    boxes: np.ndarray
    """(N,4) pixels."""
    scores: np.ndarray
    """(N,)"""
    corrections: np.ndarray
    """(N,4) of the edges, in sides of the box."""

    def pick(self, rows: np.ndarray) -> Candidates:
        return Candidates(self.frame[rows], self.boxes[rows], self.scores[rows], self.corrections[rows])


class MtcnnDetector:
    """models.perception.interfaces.FaceDetector, InferenceConfigurable."""

    def __init__(self, proposal: nn.Module, refine: nn.Module, output: nn.Module):
        self.name = "mtcnn"
        self._proposal = TorchNet(proposal)
        self._refine, self._output = TorchNet(refine), TorchNet(output)

    def configure_inference(self, how: InferenceSettings) -> None:
        """Device and batch count: frames come in a dozen sizes, each of which would be compiled."""
        how = replace(how, dtype="float32", compile=False)
        for net in (self._proposal, self._refine, self._output):
            net.configure_inference(how)

    @torch.inference_mode()
    def detect(self, frames: np.ndarray) -> list[np.ndarray]:
        """frames (T,H,W,3) uint8 -> for each (n,5) float32: x0, y0, x1, y1, score; the surest first.

        Boxes may reach over the frame's edge. Faces of less than 20 px are not looked for.
        """
        size = self._proposal.batch_size(frames.shape[1] * frames.shape[2])
        batches = map_batches_with_oom_backoff(len(frames), size, lambda some, _: self._detect(frames[some]))
        return [boxes for found in batches for boxes in found]

    def _detect(self, frames: np.ndarray) -> list[np.ndarray]:
        images = self._proposal.images_to_device(torch.from_numpy(np.ascontiguousarray(frames)))
        found = self._propose(images)
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        boxes = squares(found.boxes + found.corrections * np.tile(sides, 2))
        found = self._refine_candidates(
            images, found._replace(boxes=boxes), self._refine, REFINE_SIDE, THRESHOLDS[1]
        )
        found = found.pick(keep_surest(found, OVERLAP))
        found = found._replace(boxes=squares(corrected(found)))
        found = self._refine_candidates(images, found, self._output, OUTPUT_SIDE, THRESHOLDS[2])
        found = found._replace(boxes=corrected(found))
        found = found.pick(keep_surest_of_nested(found, OVERLAP))
        rows = np.column_stack([found.boxes, found.scores])
        return [rows[found.frame == n] for n in range(len(frames))]

    def _propose(self, images: Tensor) -> Candidates:
        """images (B,3,H,W) float32 -> windows of the scaled frames that may hold a face."""
        height, width = images.shape[2:]
        kept = []
        for scale in pyramid_scales(height, width):
            reduced = functional.adaptive_avg_pool2d(
                images, (int(height * scale + 1), int(width * scale + 1))
            )
            scores, corrections = self._proposal.run_net((reduced - PIXEL_OFFSET) * PIXEL_SCALE, len(images))
            frame, y, x = (scores >= THRESHOLDS[0]).nonzero(as_tuple=True)
            corner = WINDOW_STRIDE * torch.stack([x, y], dim=1).float()
            boxes = torch.cat([(corner + 1) / scale, (corner + WINDOW) / scale], dim=1).floor()
            tensors = (frame, boxes, scores[frame, y, x], corrections[frame, :, y, x])
            found = Candidates(*(tensor.cpu().numpy() for tensor in tensors))
            kept.append(found.pick(keep_surest(found, SAME_SCALE_OVERLAP)))
        if not kept:
            return _no_candidates()
        found = Candidates(*(np.concatenate(values) for values in zip(*kept, strict=True)))
        return found.pick(keep_surest(found, OVERLAP))

    def _refine_candidates(
        self, images: Tensor, found: Candidates, net: TorchNet, side: int, threshold: float
    ) -> Candidates:
        """The candidates that the next net takes for faces too, with its own scores and corrections."""
        low, high = pixel_spans(found.boxes, images.shape[3], images.shape[2])
        inside = np.all(high > low, axis=1)
        found, low, high = found.pick(inside), low[inside], high[inside]
        if not len(found.frame):
            return _no_candidates()
        crops = torch.cat([
            functional.adaptive_avg_pool2d(images[frame : frame + 1, :, y0:y1, x0:x1], side)
            for frame, (x0, y0), (x1, y1) in zip(found.frame, low, high, strict=True)
        ])  # fmt: skip
        crops = (crops - PIXEL_OFFSET) * PIXEL_SCALE
        passes = [net.run_net(some, len(some)) for some in crops.split(CROPS_PER_PASS)]
        scores, corrections = (torch.cat(parts).cpu().numpy() for parts in zip(*passes, strict=True))
        found = found._replace(scores=scores, corrections=corrections)
        return found.pick(np.flatnonzero(scores > threshold))


def _no_candidates() -> Candidates:
    empty = np.zeros((0, 4), np.float32)
    return Candidates(np.zeros(0, int), empty, np.zeros(0, np.float32), empty)


def pyramid_scales(height: int, width: int) -> list[float]:
    """Of a frame's sides: the first makes the smallest face as large as a window, the last leaves the frame's
    shorter side one."""
    scale, scales = WINDOW / SMALLEST_FACE, []
    shorter = min(height, width) * scale
    while shorter >= WINDOW:
        scales.append(scale)
        scale, shorter = scale * PYRAMID_FACTOR, shorter * PYRAMID_FACTOR
    return scales


def squares(boxes: np.ndarray) -> np.ndarray:
    """(N,4) -> (N,4): as wide as high about the same centre, by the longer side."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.max(1, keepdims=True)
    corner = boxes[:, :2] + sides * np.float32(0.5) - longer * np.float32(0.5)
    return np.concatenate([corner, corner + longer], axis=1)


def corrected(found: Candidates) -> np.ndarray:
    """Boxes (N,4) moved by their corrections; edges count as whole pixels, as where the nets were trained."""
    sides = found.boxes[:, 2:] - found.boxes[:, :2] + 1
    return found.boxes + found.corrections * np.tile(sides, 2)


def pixel_spans(boxes: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N,4), whose edges count from 1 -> the first pixel x, y (N,2) of each that the frame has, and the
    one past the last (N,2) int; not larger where a box lies outside."""
    edges = np.trunc(boxes).astype(int)
    return np.maximum(edges[:, :2], 1) - 1, np.minimum(edges[:, 2:], [width, height])


def keep_surest(found: Candidates, overlap: float) -> np.ndarray:
    """Rows of the candidates that overlap no surer one of their frame by more than this share of what both
    cover together, the surest first, of equals the first."""
    order = np.argsort(-found.scores, kind="stable")
    return _suppress(found, order, overlap, edge=0, nested=False)


def keep_surest_of_nested(found: Candidates, overlap: float) -> np.ndarray:
    """The same by the share of the smaller of two boxes, so that a face in a face goes; edges count as whole
    pixels. Of equals the last stays."""
    order = np.argsort(found.scores, kind="stable")[::-1]
    return _suppress(found, order, overlap, edge=1, nested=True)


def _suppress(found: Candidates, order: np.ndarray, overlap: float, edge: int, nested: bool) -> np.ndarray:
    """order: rows of the candidates, as they are looked at."""
    boxes = found.boxes
    areas = (boxes[:, 2:] - boxes[:, :2] + edge).prod(1)
    kept = []
    while len(order):
        first, order = order[0], order[1:]
        kept.append(first)
        low = np.maximum(boxes[first, :2], boxes[order, :2])
        high = np.minimum(boxes[first, 2:], boxes[order, 2:])
        shared = np.maximum(high - low + edge, 0).prod(1)
        if nested:
            whole = np.minimum(areas[first], areas[order])
        else:
            whole = areas[first] + areas[order] - shared
        order = order[(found.frame[order] != found.frame[first]) | (shared <= overlap * whole)]
    return np.array(kept, int)


def load_mtcnn(weights: Mapping[str, Path]) -> MtcnnDetector:
    """Raises InvalidFile naming missing, unknown and misshapen tensors of any of the three files."""
    proposal, refine, output = (weights[name] for name in MTCNN_WEIGHTS_IDS)
    return MtcnnDetector(
        load_pretrained_net(ProposalNet, proposal, MTCNN_WEIGHTS_IDS[0]),
        load_pretrained_net(RefineNet, refine, MTCNN_WEIGHTS_IDS[1]),
        load_pretrained_net(OutputNet, output, MTCNN_WEIGHTS_IDS[2], LANDMARK_TENSORS),
    )
