"""IResNet, the ArcFace nets of deepinsight/insightface (recognition/arcface_torch): r18, r34, r50, r100.

The layers carry that repository's names, so that a backbone.pth of its model zoo is read as it is. What was
exported to ONNX, or has its batch norms folded, has other names and is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from models.perception.faces.arcface import EMBEDDING_SIZE, ArcFaceNet
from models.perception.torch_net import load_pretrained_net

IResNetDepth = Literal["r18", "r34", "r50", "r100"]
BLOCK_COUNTS: dict[IResNetDepth, tuple[int, int, int, int]] = {
    "r18": (2, 2, 2, 2),
    "r34": (3, 4, 6, 3),
    "r50": (3, 4, 14, 3),
    "r100": (3, 13, 30, 3),
}
LAYER_CHANNELS = (64, 128, 256, 512)
"""The first block of each layer halves the side."""
LAST_SIDE = 7
ARCFACE_WEIGHTS: dict[str, IResNetDepth] = {"arcface_r50": "r50", "arcface_r100": "r100"}
"""Weights id -> the depth of its net."""


class IResNetBlock(nn.Module):
    """Batch norm before the first convolution and none of its ReLUs after the sum (He et al. 2016; Han et al.
    2017); the second convolution has the stride."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample = (
            nn.Sequential(nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
            if stride != 1
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(inner)) + self.downsample(x)


class IResNetLayers(nn.Module):
    """A fixed scale of 1, `features.weight`, is in the file too."""

    def __init__(self, depth: IResNetDepth) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1, self.prelu = nn.BatchNorm2d(64), nn.PReLU(64)
        before = 64
        for n, (channels, count) in enumerate(zip(LAYER_CHANNELS, BLOCK_COUNTS[depth], strict=True)):
            blocks = [
                IResNetBlock(channels if block else before, channels, 1 if block else 2)
                for block in range(count)
            ]
            self.add_module(f"layer{n + 1}", nn.Sequential(*blocks))
            before = channels
        self.bn2 = nn.BatchNorm2d(before)
        self.fc = nn.Linear(before * LAST_SIDE**2, EMBEDDING_SIZE)
        self.features = nn.BatchNorm1d(EMBEDDING_SIZE)

    def forward(self, faces: Tensor) -> Tensor:
        """(B,3,112,112) in [-1,1] -> (B,512), not normalised."""
        x = self.prelu(self.bn1(self.conv1(faces)))  # (B,64,112,112)
        for n in range(len(LAYER_CHANNELS)):
            x = self.get_submodule(f"layer{n + 1}")(x)  # in the end (B,512,7,7)
        return self.features(self.fc(self.bn2(x).flatten(1)))


def load_arcface_r50(weights: Mapping[str, Path]) -> ArcFaceNet:
    """Raises InvalidFile naming missing, unknown and misshapen tensors."""
    return _load("arcface_r50", weights)


def load_arcface_r100(weights: Mapping[str, Path]) -> ArcFaceNet:
    """Raises InvalidFile naming missing, unknown and misshapen tensors."""
    return _load("arcface_r100", weights)


def _load(weights_id: str, weights: Mapping[str, Path]) -> ArcFaceNet:
    make = partial(IResNetLayers, ARCFACE_WEIGHTS[weights_id])
    return ArcFaceNet(weights_id, load_pretrained_net(make, weights[weights_id], weights_id))


def check_weights_match_id(weights_id: str, path: Path) -> None:
    """Whether an imported file is of the depth that its id says: every one is called backbone.pth. Raises
    InvalidFile."""
    _load(weights_id, {weights_id: path})
