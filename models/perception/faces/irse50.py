"""IR-SE50, the ArcFace net of TreB1eN/InsightFace_Pytorch: a ResNet of 50 layers whose units weigh their
channels. It is the ID loss of e4e and of Directions, and the net of Directions' CSIM.

The layers carry that repository's names, so that its model_ir_se50.pth is read as it is. Trained on MS-Celeb-
1M; the same trunk, without its end, is where e4e's encoder starts from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from models.perception.faces.arcface import EMBEDDING_SIZE, ArcFaceNet
from models.perception.torch_net import load_pretrained_net

IRSE50_WEIGHTS_ID = "irse50"
STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))
"""Channels and units; the first unit of each halves the side."""
SQUEEZE_REDUCTION = 16
LAST_SIDE = 7
DROPOUT = 0.6  # in training alone


class SqueezeExcitation(nn.Module):
    """Each channel is weighed by what the means of all say (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, channels // SQUEEZE_REDUCTION, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(channels // SQUEEZE_REDUCTION, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.relu(self.fc1(self.avg_pool(x)))).sigmoid()  # (B,C,h,w) * (B,C,1,1)


class IrSeUnit(nn.Module):
    """Two convolutions, the second with the unit's stride, beside a shortcut."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer = (
            nn.MaxPool2d(1, stride)
            if before == channels
            else nn.Sequential(nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, channels, 3, 1, 1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            SqueezeExcitation(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class IrSe50Layers(nn.Module):
    """43,797,696 parameters; 397 tensors in the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        units, before = [], 64
        for channels, count in STAGES:
            for unit in range(count):
                units.append(IrSeUnit(before, channels, 2 if unit == 0 else 1))
                before = channels
        self.body = nn.Sequential(*units)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Dropout(DROPOUT),
            nn.Flatten(),
            nn.Linear(before * LAST_SIDE**2, EMBEDDING_SIZE),
            nn.BatchNorm1d(EMBEDDING_SIZE),
        )

    def forward(self, faces: Tensor) -> Tensor:
        """(B,3,112,112) in [-1,1] -> (B,512), not normalised."""
        return self.output_layer(self.body(self.input_layer(faces)))  # by way of (B,512,7,7)


def load_irse50(weights: Mapping[str, Path]) -> ArcFaceNet:
    """Raises InvalidFile naming missing, unknown and misshapen tensors."""
    net = load_pretrained_net(IrSe50Layers, weights[IRSE50_WEIGHTS_ID], IRSE50_WEIGHTS_ID)
    return ArcFaceNet(IRSE50_WEIGHTS_ID, net)


def check_weights_match_id(weights_id: str, path: Path) -> None:
    """Whether an imported file is this net's; raises InvalidFile."""
    load_irse50({weights_id: path})
