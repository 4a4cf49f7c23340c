"""ResNet-50 under its published names: the trunk of the nets that read a face's shape off an image.

He et al. 2016, with the stride in a block's 3x3 convolution. `conv1.weight`, `bn1.*`,
`layer{1..4}.{n}.{conv1,bn1,conv2,bn2,conv3,bn3,downsample.0,downsample.1}.*`, no final layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import InvalidFile
from models.perception.head.landmark_fit import FaceFit
from models.perception.torch_net import TorchNet, map_batches_with_oom_backoff, read_tensors

BLOCK_COUNTS = (3, 4, 6, 3)
OUTPUT_CHANNELS = 2048
INPUT_SIZE = 224  # of the crops that these nets read


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """(B,3,H,W) -> (B,2048), averaged over the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for stage, count in enumerate(BLOCK_COUNTS):
            width, blocks = 64 * 2**stage, []
            for n in range(count):
                blocks.append(Bottleneck(inputs, width, 2 if stage and not n else 1))
                inputs = 4 * width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean((2, 3))


@dataclass(frozen=True, slots=True)
class MorphableModelPrediction:
    """What a net says of n frames."""

    code: np.ndarray
    """(n,236 or 257) float32, all its numbers in the publisher's order."""
    crop: np.ndarray
    """(n,4) float32 x0, y0, x1, y1: what the net's 224 pixels span, in pixels of the frame."""


class MorphableModelRegressor(TorchNet, ABC):
    """A net that reads identity, expression and camera off a crop of each frame.

    A subclass says how a crop is cut, which numbers are the identity's, and what the others mean.
    """

    name: str
    numbers: int
    """How many the net gives."""

    def predict(self, frames: np.ndarray, landmarks: np.ndarray) -> MorphableModelPrediction:
        """frames (n,H,W,3) uint8 and landmarks (n,68,2), pixels of them, finite -> the net's numbers.

        A frame whose landmarks give no crop of a sensible size has NaN in both.
        """
        boxes, usable = self.crop_boxes(landmarks, *frames.shape[1:3])
        codes = np.full((len(frames), self.numbers), np.nan, np.float32)
        chosen = np.flatnonzero(usable)

        def work(rows: slice, size: int) -> np.ndarray:
            which = chosen[rows]
            crops = self.crop_images(frames[which], boxes[which])
            return self.run_net(crops.to(self._how.device), size).float().cpu().numpy()

        with torch.inference_mode():
            done = list(
                map_batches_with_oom_backoff(len(chosen), self.batch_size(INPUT_SIZE * INPUT_SIZE), work)
            )
        if done:
            codes[chosen] = np.concatenate(done)
        return MorphableModelPrediction(
            codes, np.where(usable[:, None], self.crop_edges_in_frame(boxes, *frames.shape[1:3]), np.nan)
        )

    @abstractmethod
    def crop_boxes(self, landmarks: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """-> crops (n,4) as the publisher reckons them, and which are of a sensible size (n,) bool."""

    @abstractmethod
    def crop_images(self, frames: np.ndarray, boxes: np.ndarray) -> Tensor:
        """-> (n,3,224,224) float32 in [0,1]."""

    @abstractmethod
    def crop_edges_in_frame(self, boxes: np.ndarray, height: int, width: int) -> np.ndarray:
        """-> (n,4) float32: Reading.crop."""

    @abstractmethod
    def to_face_fit(self, reading: MorphableModelPrediction) -> FaceFit:
        """-> identity (n,n_id), expression and camera of each frame in the product's terms; error NaN."""


def load_subnet(make: Callable[[], nn.Module], path: Path, part: str, weights_id: str) -> nn.Module:
    """The net that `make` builds, with the tensors that the file holds under `part`.

    Counts of training batches may be missing. Raises InvalidFile naming what else is missing, unknown or of
    another shape.
    """
    found = read_tensors(path)
    tensors = {name.removeprefix(f"{part}."): t for name, t in found.items() if name.startswith(f"{part}.")}
    if not tensors:
        tops = sorted({name.split(".")[0] for name in found})[:6]
        raise InvalidFile(f"weights {weights_id}: no {part} in {path.name}; it holds {', '.join(tops)}")
    net = make()
    wanted = {n: t.shape for n, t in net.state_dict().items() if not n.endswith("num_batches_tracked")}
    wrong = {
        "lacks": [name for name in wanted if name not in tensors],
        "has unknown": [name for name in tensors if name not in net.state_dict()],
        "has another shape for": [n for n in wanted if n in tensors and tensors[n].shape != wanted[n]],
    }
    problems = [
        f"{what} {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for what, names in wrong.items()
        if names
    ]
    if problems:
        raise InvalidFile(f"weights {weights_id}: {part} of {path.name} {'; '.join(problems)}")
    net.load_state_dict({name: tensors[name].float() for name in wanted}, strict=False)
    return net
