"""The Inception of FID (Heusel et al. 2017): TensorFlow's graph of 2015-12-05 as mseitzer/pytorch-fid ported
it, up to the 2048 features of its last pooling. Another net than torchvision's Inception v3: other weights,
1008 classes, average poolings that do not count the padding, a maximum in the last block's pooling.

The layers carry pytorch-fid's names, which are torchvision's, so that its file is read as it is. Images are
resized as one of two libraries does; their distances do not compare. NVIDIA's TorchScript edition of the same
weights has other names and is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from models.perception.interfaces import InferenceSettings
from models.perception.torch_net import load_pretrained_net

INCEPTION_FID_WEIGHTS_ID = "inception_fid"
INPUT_SIDE = 299
FEATURES, CLASSES = 2048, 1008
BATCH_NORM_EPSILON = 1e-3
InceptionResize = Literal["pt", "clean"]
"""pt: mseitzer/pytorch-fid, bilinear without antialias. clean: GaParmar/clean-fid, PIL's bicubic in float."""


class FrozenBatchNorm(nn.Module):
    """The tensors of a batch norm that trains no more; the file may lack num_batches_tracked."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.running_mean = nn.Buffer(torch.zeros(channels))
        self.running_var = nn.Buffer(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=BATCH_NORM_EPSILON
        )


class ConvUnit(nn.Module):
    """Convolution without bias, batch norm, ReLU. A `kernel` (h,w) of odd sides at stride 1 keeps the side
    where `same`."""

    def __init__(
        self,
        before: int,
        channels: int,
        kernel: tuple[int, int] | int = 1,
        stride: int = 1,
        *,
        same: bool = True,
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if same else 0
        self.conv = nn.Conv2d(before, channels, sides, stride, padding, bias=False)
        self.bn: nn.Module = FrozenBatchNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)), inplace=True)

    def fold_batch_norm(self) -> None:
        """In place: it becomes part of the convolution."""
        bn = cast("FrozenBatchNorm", self.bn)
        weight, bias = fuse_conv_bn_weights(
            self.conv.weight, None, bn.running_mean, bn.running_var, BATCH_NORM_EPSILON, bn.weight, bn.bias
        )
        self.conv.weight, self.conv.bias, self.bn = weight, bias, nn.Identity()


def average_pool(x: Tensor) -> Tensor:
    """3x3 at stride 1; the padding is not counted."""
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class InceptionA(nn.Module):
    """Mixed_5b to 5d."""

    def __init__(self, before: int, pool_channels: int) -> None:
        super().__init__()
        self.branch1x1 = ConvUnit(before, 64)
        self.branch5x5_1, self.branch5x5_2 = ConvUnit(before, 48), ConvUnit(48, 64, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = ConvUnit(before, 64), ConvUnit(64, 96, 3)
        self.branch3x3dbl_3 = ConvUnit(96, 96, 3)
        self.branch_pool = ConvUnit(before, pool_channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch5x5_2(self.branch5x5_1(x)),
                self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
                self.branch_pool(average_pool(x)),
            ],
            dim=1,
        )


class InceptionB(nn.Module):
    """Mixed_6a: halves the side."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.branch3x3 = ConvUnit(before, 384, 3, 2, same=False)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = ConvUnit(before, 64), ConvUnit(64, 96, 3)
        self.branch3x3dbl_3 = ConvUnit(96, 96, 3, 2, same=False)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, functional.max_pool2d(x, 3, 2)], dim=1)


class InceptionC(nn.Module):
    """Mixed_6b to 6e: 7x7 as rows and columns."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        row, column = (1, 7), (7, 1)
        self.branch1x1 = ConvUnit(768, 192)
        self.branch7x7_1, self.branch7x7_2 = ConvUnit(768, inner), ConvUnit(inner, inner, row)
        self.branch7x7_3 = ConvUnit(inner, 192, column)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = ConvUnit(768, inner), ConvUnit(inner, inner, column)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = ConvUnit(inner, inner, row), ConvUnit(inner, inner, column)
        self.branch7x7dbl_5 = ConvUnit(inner, 192, row)
        self.branch_pool = ConvUnit(768, 192)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
                self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
                self.branch_pool(average_pool(x)),
            ],
            dim=1,
        )


class InceptionD(nn.Module):
    """Mixed_7a: halves the side."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = ConvUnit(768, 192), ConvUnit(192, 320, 3, 2, same=False)
        self.branch7x7x3_1, self.branch7x7x3_2 = ConvUnit(768, 192), ConvUnit(192, 192, (1, 7))
        self.branch7x7x3_3 = ConvUnit(192, 192, (7, 1))
        self.branch7x7x3_4 = ConvUnit(192, 192, 3, 2, same=False)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), wide, functional.max_pool2d(x, 3, 2)], dim=1)


class InceptionE(nn.Module):
    """Mixed_7b and 7c."""

    def __init__(self, before: int, pooling: Literal["average", "max"]) -> None:
        super().__init__()
        self.pooling = pooling
        self.branch1x1 = ConvUnit(before, 320)
        self.branch3x3_1 = ConvUnit(before, 384)
        self.branch3x3_2a, self.branch3x3_2b = ConvUnit(384, 384, (1, 3)), ConvUnit(384, 384, (3, 1))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = ConvUnit(before, 448), ConvUnit(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = ConvUnit(384, 384, (1, 3)), ConvUnit(384, 384, (3, 1))
        self.branch_pool = ConvUnit(before, 192)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = average_pool(x) if self.pooling == "average" else functional.max_pool2d(x, 3, 1, 1)
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(single),
                self.branch3x3_2b(single),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                self.branch_pool(pooled),
            ],
            dim=1,
        )


class InceptionFidLayers(nn.Module):
    """The whole classifier, under pytorch-fid's names."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvUnit(3, 32, 3, 2, same=False)
        self.Conv2d_2a_3x3, self.Conv2d_2b_3x3 = ConvUnit(32, 32, 3, same=False), ConvUnit(32, 64, 3)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = ConvUnit(64, 80), ConvUnit(80, 192, 3, same=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = (
            InceptionA(192, 32),
            InceptionA(256, 64),
            InceptionA(288, 64),
        )
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b, self.Mixed_6c = InceptionC(128), InceptionC(160)
        self.Mixed_6d, self.Mixed_6e = InceptionC(160), InceptionC(192)
        self.Mixed_7a = InceptionD()
        self.Mixed_7b, self.Mixed_7c = InceptionE(1280, "average"), InceptionE(2048, "max")
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,299,299), RGB in [-1,1] -> (B,2048), the mean over positions before the classifier."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (B,64,147,147)
        x = functional.max_pool2d(x, 3, 2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))  # (B,192,71,71)
        x = functional.max_pool2d(x, 3, 2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # (B,288,35,35)
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))  # (B,768,17,17)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (B,2048,8,8)
        return x.mean((2, 3))


def resize_for_inception(images: Tensor, resize: InceptionResize) -> Tensor:
    """images (B,3,H,W) float, RGB in [0,1] -> (B,3,299,299), as the net takes it after a library's resizing.

    Torch's bicubic with antialias is PIL's, which clean-fid has work on floats, channel by channel; what
    overshoots is clipped. In float64, as PIL keeps its coefficients: in float32 it is off by .003 levels.
    """
    size = (INPUT_SIDE, INPUT_SIDE)
    if resize == "pt":
        return 2 * functional.interpolate(images, size=size, mode="bilinear", align_corners=False) - 1
    resized = functional.interpolate(
        images.double(), size=size, mode="bicubic", align_corners=False, antialias=True
    )
    return ((255 * resized.clamp(0, 1) - 128) / 128).to(images.dtype)


class InceptionFid:
    """Features of images for Frechet and kernel distances, in float32."""

    name = "inception_fid"

    def __init__(self, net: InceptionFidLayers) -> None:
        """net: as `load_pretrained_net` gives it. Its batch norms are folded in place."""
        for unit in net.eval().requires_grad_(False).modules():
            if isinstance(unit, ConvUnit):
                unit.fold_batch_norm()
        self._net = net

    def configure_inference(self, how: InferenceSettings) -> None:
        """Only the device counts: distances are of features in float32."""
        device = torch.device(how.device)
        self._net = self._net.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def features(self, images: Tensor, resize: InceptionResize) -> Tensor:
        """images (B,3,H,W) float, RGB in [0,1] of whole grey levels, any side -> (B,2048), 0 or more."""
        return self._net(resize_for_inception(images, resize))


def load_inception_fid(weights: Mapping[str, Path]) -> InceptionFid:
    """Raises InvalidFile naming missing, unknown and misshapen tensors."""
    return InceptionFid(_load_layers(weights[INCEPTION_FID_WEIGHTS_ID]))


def _load_layers(path: Path) -> InceptionFidLayers:
    with torch.device("meta"):
        names = InceptionFidLayers().state_dict()
    counters = {
        name.replace("running_mean", "num_batches_tracked") for name in names if name.endswith("running_mean")
    }
    net = load_pretrained_net(InceptionFidLayers, path, INCEPTION_FID_WEIGHTS_ID, counters)
    return cast("InceptionFidLayers", net)


def check_weights_match_id(_weights_id: str, path: Path) -> None:
    """Whether an imported file is the net's; raises InvalidFile."""
    _load_layers(path)
