"""Stored frames as the net takes them, and pictures for people: what a step saw and made, as bytes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

FLOW_COLOUR_GAIN = 8.0  # a flow of this share of the side, one eighth, has the fullest colour


def frames_to_images(frames: Tensor, size: int) -> Tensor:
    """frames (B,n,S,S,3) uint8 -> (B,n,3,size,size) float32 in [-1,1], anti-aliased where S differs."""
    images = frames.movedim(-1, -3).float() / 127.5 - 1
    if images.shape[-1] == size:
        return images
    small = F.interpolate(images.flatten(0, 1), (size, size), mode="bilinear", antialias=True)
    return small.unflatten(0, images.shape[:2])


def images_to_uint8(images: Tensor) -> np.ndarray:
    """(...,3,H,W) in [-1,1], values outside clamped -> (...,H,W,3) uint8."""
    return conditions_to_uint8((images.float() + 1) / 2)


def conditions_to_uint8(images: Tensor) -> np.ndarray:
    """The same for conditions, which lie in [0,1]."""
    return (images.float().clamp(0, 1) * 255).round().byte().movedim(-3, -1).cpu().numpy()


def flow_to_colours(flow: Tensor) -> np.ndarray:
    """flow (B,2,H,W) pixels -> (B,H,W,3) uint8: white where nothing moves, the hue its direction (red: what
    is shown comes from the right), full where it is an eighth of the side or more.
    """
    flow = flow.float()
    x, y = flow[:, 0], flow[:, 1]
    fullness = (torch.hypot(x, y) * (FLOW_COLOUR_GAIN / flow.shape[-1])).clamp(max=1)
    direction = torch.atan2(y, x)
    shades = [(1 + torch.cos(direction - k * math.tau / 3)) / 2 for k in range(3)]
    return conditions_to_uint8(1 - fullness[:, None] * (1 - torch.stack(shades, dim=1)))
