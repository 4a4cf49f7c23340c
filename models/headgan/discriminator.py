"""The two discriminators (supplement 3.2): D compares an image with its condition, D_m a mouth with what is
heard.

Both are multi-scale PatchGANs of SPADE. Module names are those of the released checkpoints. Legend: B
samples, H,W side of its image, A length of an audio vector, N landmarks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.headgan.blocks import LEAKY_SLOPE, InstanceNorm, SpectralConv, with_spectral_norm
from models.headgan.config import RGB_CHANNELS, DiscriminatorConfig
from models.headgan.network import initialize_weights

FIRST_MOUTH_LANDMARK = 48
"""Landmarks from here on are the mouth's (68-point scheme)."""


class PatchDiscriminator(nn.ModuleDict):
    """The discriminator of one scale: (B,C,H,W) -> a map of each layer, then the predictions (B,1,h,h)."""

    def __init__(self, inputs: int, config: DiscriminatorConfig) -> None:
        super().__init__()
        widths = config.channels
        before = inputs
        for i, width in enumerate(widths):
            stride = 1 if i == len(widths) - 1 else 2
            conv = SpectralConv(before, width, 4, stride, padding=2, bias=i == 0)
            normed = (
                nn.Sequential(with_spectral_norm(conv, config.spectral), InstanceNorm(width)) if i else conv
            )
            self[f"model{i}"] = nn.Sequential(normed, nn.LeakyReLU(LEAKY_SLOPE, inplace=True))
            before = width
        self[f"model{len(widths)}"] = nn.Sequential(SpectralConv(before, 1, 4, padding=2))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for layer in self.values():
            x = layer(x)
            maps.append(x)
        return maps


class MultiScaleDiscriminator(nn.ModuleDict):
    """Discriminators at several scales. As published: D 5,537,410 parameters, D_m 6,145,666 (without audio
    5,531,266).
    """

    def __init__(self, inputs: int, config: DiscriminatorConfig) -> None:
        super().__init__(
            {f"discriminator_{i}": PatchDiscriminator(inputs, config) for i in range(config.scales)}
        )
        initialize_weights(self)

    def forward(self, given: Tensor | None, image: Tensor) -> list[list[Tensor]]:
        """image (B,3,H,W) in [-1,1]; given: condition (B,C,H,W), or audio (B,A), which is told at every
        pixel, or None -> for each scale the maps of its layers, the last of them predictions (B,1,h,h), 1 and
        above = real.
        """
        if given is not None and given.dim() == 2:
            given = given[..., None, None].expand(-1, -1, *image.shape[-2:])
        x = image if given is None else torch.cat([given.to(image.dtype), image], dim=1)
        scales = []
        for i, scale in enumerate(self.values()):
            if i:
                x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
            scales.append(scale(x))
        return scales


def image_discriminator(config: DiscriminatorConfig) -> MultiScaleDiscriminator:
    """D: the condition of frame t and its image."""
    return MultiScaleDiscriminator(2 * RGB_CHANNELS, config)


def mouth_discriminator(config: DiscriminatorConfig, audio: int) -> MultiScaleDiscriminator:
    """D_m: the audio vector of frame t, if there is any, and the crop of its mouth."""
    return MultiScaleDiscriminator(audio + RGB_CHANNELS, config)


# --- the mouth ----------------------------------------------------------------------------------------------
def mouth_centre(landmarks: Tensor) -> Tensor:
    """landmarks (B,N,2) in pixels, N >= 68 -> whole pixels (B,2) int64, x and y: the medians of the mouth's
    points. (C's two pupils, points 68 and 69, count there too; only the first 68 do here.)
    """
    if landmarks.dim() != 3 or landmarks.shape[1] < 68 or landmarks.shape[2] != 2:
        raise ValueError(f"landmarks {tuple(landmarks.shape)}: expected (B,N,2) with N 68 or more")
    return landmarks[:, FIRST_MOUTH_LANDMARK:68].double().quantile(0.5, dim=1).long()


def crop_around_centres(images: Tensor, centres: Tensor, side: int) -> Tensor:
    """images (B,C,H,W), centres (B,2) int64 x and y -> (B,C,side,side): [c - side/2, c + side/2), moved
    inside the image where it would stick out.
    """
    height, width = images.shape[-2:]
    if side > min(height, width):
        raise ValueError(f"a crop of {side} pixels from images of {height} x {width}")
    half, steps = side // 2, torch.arange(side, device=images.device)
    left = centres[:, 0].clamp(half, width - half) - half
    top = centres[:, 1].clamp(half, height - half) - half
    rows = (top[:, None] + steps)[:, None, :, None].expand(-1, images.shape[1], -1, width)
    columns = (left[:, None] + steps)[:, None, None, :].expand(-1, images.shape[1], side, -1)
    return images.gather(2, rows).gather(3, columns)
