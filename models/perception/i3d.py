"""I3D trained on Kinetics-400 (Carreira and Zisserman 2017): what videos are compared by in FVD.

Inception-v1 with every filter inflated to time. Convolutions and pools pad as TensorFlow's SAME does, by the
length of what comes in, in time as in height and width. The layers carry the names of the state dict that
songweige/TATS and songweige/content-debiased-fvd publish (`i3d_pretrained_400.pt`, after
piergiaj/pytorch-i3d), which is read as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.perception.interfaces import InferenceSettings
from models.perception.torch_net import load_pretrained_net, same_padding

I3D_WEIGHTS_ID = "i3d_k400"
CLASSES = 400
MIN_FRAMES, MIN_SIDE = 9, 193
"""Shortest clip and smallest side of which two frames and seven positions are left for the last pool: time
shrinks by 8, sides by 32."""


class MixedWidths(NamedTuple):
    """Channels of the convolutions of one Inception block, by their names in the file."""

    b0: int
    b1a: int
    b1b: int
    b2a: int
    b2b: int
    b3b: int

    @property
    def out(self) -> int:
        return self.b0 + self.b1b + self.b2b + self.b3b


MIXED = {
    "Mixed_3b": MixedWidths(64, 96, 128, 16, 32, 32),
    "Mixed_3c": MixedWidths(128, 128, 192, 32, 96, 64),
    "Mixed_4b": MixedWidths(192, 96, 208, 16, 48, 64),
    "Mixed_4c": MixedWidths(160, 112, 224, 24, 64, 64),
    "Mixed_4d": MixedWidths(128, 128, 256, 24, 64, 64),
    "Mixed_4e": MixedWidths(112, 144, 288, 32, 64, 64),
    "Mixed_4f": MixedWidths(256, 160, 320, 32, 128, 128),
    "Mixed_5b": MixedWidths(256, 160, 320, 32, 128, 128),
    "Mixed_5c": MixedWidths(384, 192, 384, 48, 128, 128),
}
POOL_BEFORE = {
    "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}
"""Layer -> kernel and stride of the maximum that is taken of what comes to it."""
BATCH_NORM_EPSILON = 1e-5


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """(B,C,T,H,W) with zeros around it, so that ceil(side / stride) positions are left of each side; of an
    odd number of zeros the one left over comes at the end."""
    sides = [same_padding(x.shape[2 + axis], kernel[axis], stride[axis]) for axis in (2, 1, 0)]
    return functional.pad(x, [zeros for side in sides for zeros in side])


def max_pool_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """(B,C,T,H,W), none of it negative: the zeros around it are never the maximum of more than zeros."""
    return functional.max_pool3d(pad_same(x, kernel, stride), tuple(kernel), tuple(stride))


class Unit3d(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, before: int, channels: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(before, channels, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(channels, eps=BATCH_NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        padded = pad_same(x, self.conv3d.kernel_size, self.conv3d.stride)
        return functional.relu(self.bn(self.conv3d(padded)))


class Mixed(nn.Module):
    """An Inception block: four branches of one size, side by side."""

    def __init__(self, before: int, widths: MixedWidths) -> None:
        super().__init__()
        self.b0 = Unit3d(before, widths.b0)
        self.b1a, self.b1b = Unit3d(before, widths.b1a), Unit3d(widths.b1a, widths.b1b, 3)
        self.b2a, self.b2b = Unit3d(before, widths.b2a), Unit3d(widths.b2a, widths.b2b, 3)
        self.b3b = Unit3d(before, widths.b3b)

    def forward(self, x: Tensor) -> Tensor:
        pooled = max_pool_same(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], dim=1)


class Logits(nn.Module):
    """The classifier, at every position of a map."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(before, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3d(x)


class I3dLayers(nn.Module):
    """The whole classifier, under the published names."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit3d(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit3d(64, 64)
        self.Conv3d_2c_3x3 = Unit3d(64, 192, 3)
        before = 192
        for name, widths in MIXED.items():
            self.add_module(name, Mixed(before, widths))
            before = widths.out
        self.logits = Logits(before)

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,T,H,W) RGB in [-1,1], T >= 9, sides of at least 193 px -> (B,400) before the softmax, the mean
        over what is left of time."""
        for name, layer in self.named_children():
            if name in POOL_BEFORE:
                x = max_pool_same(x, *POOL_BEFORE[name])
            if name == "logits":
                x = functional.avg_pool3d(x, (2, 7, 7), 1)
            x = layer(x)
        return x.mean((2, 3, 4))


class I3d:
    """A frozen net."""

    name = "i3d_k400"

    def __init__(self, net: I3dLayers) -> None:
        self._net = net.eval().requires_grad_(False)
        self.device = torch.device("cpu")

    def configure_inference(self, how: InferenceSettings) -> None:
        """Only the device counts: features are compared in float32."""
        self.device = torch.device(how.device)
        self._net = self._net.to(self.device)

    def logits(self, clips: Tensor) -> Tensor:
        """clips (B,T,3,H,W) float32 RGB in [0,1] where the net is -> (B,400) before the softmax. ValueError
        for fewer than 9 frames or a side under 193 px; the net learned from 224."""
        if clips.shape[1] < MIN_FRAMES or min(clips.shape[-2:]) < MIN_SIDE:
            raise ValueError(
                f"clips of {clips.shape[1]} frames of {tuple(clips.shape[-2:])} pixels: {self.name} needs "
                f"{MIN_FRAMES} frames and {MIN_SIDE} pixels a side"
            )
        return self._net(2 * clips.transpose(1, 2) - 1)


def load_i3d(weights: Mapping[str, Path]) -> I3d:
    """Raises InvalidFile naming missing, unknown and misshapen tensors."""
    net = load_pretrained_net(I3dLayers, weights[I3D_WEIGHTS_ID], I3D_WEIGHTS_ID)
    assert isinstance(net, I3dLayers)
    return I3d(net)
