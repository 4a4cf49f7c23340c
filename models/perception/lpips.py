"""LPIPS v0.1, how different two images look to people (Zhang et al. 2018): maps of a net trained on ImageNet,
weighed by heads learnt from human judgements. AlexNet's is the metric; VGG16's is the authors' for losses.

Trunk and heads are two files: torchvision's, and the authors' heads as torchmetrics' wheel holds them.
Gradient reaches the images and never the weights, which stay as they are loaded, in eval mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from models.perception import alexnet, vgg16
from models.perception.interfaces import InferenceSettings
from models.perception.torch_net import load_pretrained_net

LPIPS_ALEX_WEIGHTS_ID, LPIPS_VGG_WEIGHTS_ID = "lpips_alex", "lpips_vgg"
"""Of the heads alone."""
RGB_SHIFT, RGB_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1,1]
NORM_EPSILON = 1e-10  # added to a position's length over channels
ROOT_EPSILON_OF_LOSSES = 1e-9
"""Under the root as well, in the copies of e4e, PTI and StelaBou/stylegan_directions_face_reenactment."""


class LpipsHeads(nn.Module):
    """A 1x1 convolution for each map, without bias, under the authors' names: lin0.model.1 to lin4.model.1.
    Weights (1,C,1,1) are 0 or more. They drop channels in training alone."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        for layer, width in enumerate(channels):
            head = nn.Sequential(nn.Dropout(), nn.Conv2d(width, 1, 1, bias=False))
            self.add_module(f"lin{layer}", nn.ModuleDict({"model": head}))


def normalise_channels(maps: Tensor, root_epsilon: float = 0.0) -> Tensor:
    """(B,C,h,w) -> each position over its length over channels; a position of zeros stays one.

    root_epsilon: under the root. 0 is the authors' own code, whose gradient there is 0 as well here.
    """
    if root_epsilon:
        length = (maps.square().sum(1, keepdim=True) + root_epsilon).sqrt()
    else:
        length = torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    return maps / (length + NORM_EPSILON)


def lpips_per_layer(first: Sequence[Tensor], second: Sequence[Tensor], heads: Sequence[Tensor]) -> Tensor:
    """Maps of L layers (B or 1,C,h,w), normalised over channels, of two stacks of images, and a weight for
    each channel (C,) -> (B,L): weighted squared difference, mean over positions."""
    layers = [
        ((a - b).square() * head[:, None, None]).sum(1).mean((1, 2))
        for a, b, head in zip(first, second, heads, strict=True)
    ]
    return torch.stack(layers, dim=1)


class Lpips:
    """A trunk and its heads. Float32 but where an autocast around the call, or images in float64, say
    otherwise."""

    def __init__(self, name: str, trunk: nn.Module, heads: LpipsHeads, min_image_side: int) -> None:
        self.name, self.min_image_side = name, min_image_side
        self._trunk = trunk.eval().requires_grad_(False)
        self._heads = [tensor.detach().flatten() for tensor in heads.state_dict().values()]
        self._shift, self._scale = (torch.tensor(rgb).view(3, 1, 1) for rgb in (RGB_SHIFT, RGB_SCALE))

    def configure_inference(self, how: InferenceSettings) -> None:
        """Only the device counts."""
        self.move_to(torch.device(how.device), torch.float32)

    def move_to(self, device: torch.device, dtype: torch.dtype) -> None:
        self._trunk = self._trunk.to(device, dtype).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._heads = [head.to(device, dtype) for head in self._heads]
        self._shift, self._scale = self._shift.to(device, dtype), self._scale.to(device, dtype)

    def unit_maps(self, images: Tensor, root_epsilon: float = 0.0) -> list[Tensor]:
        """images (B,3,H,W) float, RGB in [-1,1] -> five maps (B,C,h,w), normalised over channels. A loss that
        compares many images with one computes that one's once.

        Values outside [-1,1] are not clamped. Raises ValueError for images under 31 px a side (AlexNet) or 16
        px (VGG16).
        """
        sides, least = tuple(images.shape[-2:]), self.min_image_side
        if min(sides) < least:
            raise ValueError(f"images of {sides} pixels: {self.name} needs {least} a side")
        maps = self._trunk((images - self._shift) / self._scale)
        return [normalise_channels(one, root_epsilon) for one in maps]

    def distance_of_maps(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        """What `unit_maps` gives of B images, and of B or a single one -> distances (B,)."""
        return lpips_per_layer(first, second, self._heads).sum(1)

    def distance(self, first: Tensor, second: Tensor, root_epsilon: float = 0.0) -> Tensor:
        """Two (B,3,H,W) float, RGB in [-1,1] -> distances (B,), 0 of equal images. root_epsilon: 0 of the
        metric, ROOT_EPSILON_OF_LOSSES for parity with the losses of published code."""
        return self.distance_of_maps(
            self.unit_maps(first, root_epsilon), self.unit_maps(second, root_epsilon)
        )


def load_lpips_alex(weights: Mapping[str, Path]) -> Lpips:
    """The metric. Raises InvalidFile naming missing, unknown and misshapen tensors."""
    trunk = alexnet.load_alexnet_layers(weights[alexnet.ALEXNET_WEIGHTS_ID])
    heads = load_lpips_heads(weights[LPIPS_ALEX_WEIGHTS_ID], LPIPS_ALEX_WEIGHTS_ID, alexnet.TAP_CHANNELS)
    return Lpips("lpips_alex", trunk, heads, alexnet.MIN_IMAGE_SIDE)


def load_lpips_vgg(weights: Mapping[str, Path]) -> Lpips:
    """The variant for losses. Raises InvalidFile naming missing, unknown and misshapen tensors."""
    trunk = vgg16.load_vgg16_layers(weights[vgg16.VGG16_WEIGHTS_ID])
    heads = load_lpips_heads(weights[LPIPS_VGG_WEIGHTS_ID], LPIPS_VGG_WEIGHTS_ID, vgg16.TAP_CHANNELS)
    return Lpips("lpips_vgg", trunk, heads, vgg16.MIN_IMAGE_SIDE)


def load_lpips_heads(path: Path, weights_id: str, channels: Sequence[int]) -> LpipsHeads:
    heads = load_pretrained_net(partial(LpipsHeads, channels), path, weights_id)
    assert isinstance(heads, LpipsHeads)
    return heads
