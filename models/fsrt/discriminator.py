"""The keypoint-aware discriminator of the adversarial phase (supplement 7.2; FOMM's discriminator with one
scale).

It sees an image and, as maps, where the driving frame's keypoints are: it can tell a sharp face in a wrong
pose from one in the right pose. Module names are those of the released checkpoints (`discs.1.*`). Legend: B
images, K keypoints, S side it works at, h side of the map of predictions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.fsrt.config import DiscriminatorConfig
from models.fsrt.keypoints import heatmap_cell_coordinates

DISCRIMINATOR_SCALE_KEY = "1"  # the published net has one scale only: the image as it is


def keypoint_heatmaps(keypoints: Tensor, side: int, variance: float) -> Tensor:
    """keypoints (B,K,2) on [-1,1], also outside -> (B,K,side,side): exp(-|g-k|^2 / (2 variance)).

    Pixels g lie on the align-corners grid: the outer ones on -1 and 1. Computed in float32 or better.
    """
    with torch.autocast(keypoints.device.type, enabled=False):
        points = keypoints if keypoints.dtype == torch.float64 else keypoints.float()
        gap = heatmap_cell_coordinates(side, points) - points.unsqueeze(-1)  # (B,K,2,side): x, then y
        line = torch.exp(-0.5 * gap.square() / variance)  # the Gaussian is a product of one in x and one in y
        return line[:, :, 1].unsqueeze(-1) * line[:, :, 0].unsqueeze(-2)


class DownBlock(nn.Module):
    """4x4 convolution without padding, instance norm, LeakyReLU, then half the side."""

    def __init__(self, before: int, after: int, norm: bool, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 4)
        self.norm = nn.InstanceNorm2d(after, affine=True) if norm else None
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        x = F.leaky_relu(x, 0.2)
        return F.avg_pool2d(x, 2) if self.pool else x


class PatchDiscriminator(nn.Module):
    """The discriminator of one scale: (B,3+K,S,S) -> maps of its blocks, predictions (B,1,h,h)."""

    def __init__(self, sizes: DiscriminatorConfig, keypoints: int) -> None:
        super().__init__()
        widths = [3 + keypoints, *sizes.channels]
        last = sizes.blocks - 1
        self.down_blocks = nn.ModuleList(
            DownBlock(widths[i], widths[i + 1], norm=i > 0, pool=i < last) for i in range(sizes.blocks)
        )
        self.conv = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        maps = []
        for block in self.down_blocks:
            x = block(x)
            maps.append(x)
        return maps, self.conv(x)


class Discriminator(nn.Module):
    """6,846,849 parameters at the published size. `keypoints` 0: it is not told any."""

    def __init__(self, sizes: DiscriminatorConfig, keypoints: int) -> None:
        super().__init__()
        self.side, self.variance, self.keypoints = sizes.size, sizes.variance, keypoints
        self.discs = nn.ModuleDict({DISCRIMINATOR_SCALE_KEY: PatchDiscriminator(sizes, keypoints)})

    def forward(self, images: Tensor, keypoints: Tensor) -> tuple[list[Tensor], Tensor]:
        """images (B,3,H,W) about [0,1], keypoints (B,K,2) of the driving frame, without gradient -> maps of
        the blocks (126, 61, 29 and 26 px a side as published) and predictions (B,1,h,h), 1 = real.
        """
        if images.shape[-2:] != (self.side, self.side):
            images = F.interpolate(images, (self.side, self.side), mode="bilinear", align_corners=True)
        seen = [images]
        if self.keypoints:
            seen.append(keypoint_heatmaps(keypoints.detach(), self.side, self.variance).to(images.dtype))
        return self.discs[DISCRIMINATOR_SCALE_KEY](torch.cat(seen, dim=1))
