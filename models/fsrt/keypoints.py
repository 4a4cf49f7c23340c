"""FSRT's keypoint detector and latent expression extractor (specification: supplement 6; FOMM's hourglass).

Shapes: B images, K keypoints, C = width + 3 feature channels, G = cells of a heatmap's side, F = feature
map's side. Module names are those of the released checkpoints (README.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.fsrt.config import Architecture, KeypointDetectorConfig
from models.precision import at_least_float32

BLUR_KERNEL_SIZE = 13  # taps; sigma 1.5 for the fixed reduction by 4


class AntiAliasedDownsample(nn.Module):
    """Gaussian blur, then every fourth pixel: one strided depthwise convolution."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.arange(BLUR_KERNEL_SIZE, dtype=torch.float32) - BLUR_KERNEL_SIZE // 2
        line = torch.exp(-(taps**2) / (2 * 1.5**2))
        kernel = torch.outer(line, line)
        self.register_buffer(
            "weight", (kernel / kernel.sum()).expand(3, 1, BLUR_KERNEL_SIZE, BLUR_KERNEL_SIZE).clone()
        )

    def forward(self, image: Tensor) -> Tensor:
        return F.conv2d(image, self.weight, stride=4, padding=BLUR_KERNEL_SIZE // 2, groups=3)


class DownBlock(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.relu(self.norm(self.conv(x))), 2)


class UpBlock(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(F.interpolate(x, scale_factor=2.0))))


class Hourglass(nn.Module):
    """Halve `blocks` times, double back, with skips: (B,3,F,F) -> (B, width+3, F, F)."""

    def __init__(self, net: KeypointDetectorConfig) -> None:
        super().__init__()
        widths = [min(net.max_width, net.width * 2**i) for i in range(net.blocks + 1)]
        downs = [DownBlock(3 if i == 0 else widths[i], widths[i + 1]) for i in range(net.blocks)]
        ups = [
            UpBlock(widths[i + 1] * (1 if i == net.blocks - 1 else 2), widths[i])
            for i in reversed(range(net.blocks))
        ]
        self.encoder = nn.ModuleDict({"down_blocks": nn.ModuleList(downs)})
        self.decoder = nn.ModuleDict({"up_blocks": nn.ModuleList(ups)})

    def forward(self, x: Tensor) -> Tensor:
        skips = [x]
        for down in self.encoder["down_blocks"]:  # pyright: ignore[reportGeneralTypeIssues]
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in self.decoder["up_blocks"]:  # pyright: ignore[reportGeneralTypeIssues]
            x = torch.cat([up(x), skips.pop()], dim=1)
        return x


class KeypointDetector(nn.Module):
    """Frozen in every FSRT phase. 14,146,728 parameters at the published size."""

    def __init__(self, net: KeypointDetectorConfig) -> None:
        super().__init__()
        self.temperature = net.temperature
        self.down = AntiAliasedDownsample()
        self.predictor = Hourglass(net)
        self.kp = nn.Conv2d(net.feature_channels, net.keypoints, 7)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """image (B,3,S,S) in [0,1] -> keypoints (B,K,2) in [-1,1], features (B,C,F,F), heatmaps (B,K,G,G)."""
        # T = 0.1 makes the softmax sharp: a net in bf16 would move keypoints by up to 1.5 pixels of 256
        with torch.autocast(image.device.type, enabled=False):
            image = at_least_float32(image)
            # channels last: the blur and the small convolutions run 3x faster on a CPU
            features = self.predictor(self.down(image.contiguous(memory_format=torch.channels_last)))
            heatmap = (self.kp(features).flatten(2) / self.temperature).softmax(dim=-1)
            heatmap = heatmap.unflatten(2, (features.shape[-1] - 6, -1))
            keypoints = soft_argmax(heatmap)
        return keypoints, features, heatmap


def heatmap_cell_coordinates(cells: int, like: Tensor) -> Tensor:
    """Coordinate of each cell: 2i/(cells-1) - 1, so the outer cells lie on -1 and 1."""
    return torch.arange(cells, dtype=like.dtype, device=like.device) * (2 / (cells - 1)) - 1


def soft_argmax(heatmap: Tensor) -> Tensor:
    """(B,K,G,G) summing to 1 -> (B,K,2) x,y."""
    axis = heatmap_cell_coordinates(heatmap.shape[-1], heatmap)
    return torch.stack([(heatmap.sum(2) * axis).sum(-1), (heatmap.sum(3) * axis).sum(-1)], dim=-1)


def move_keypoints(source: Tensor, driving: Tensor, first: Tensor, scale: float = 1.0) -> Tensor:
    """(...,K,2) each -> k_s + a (k_d - k_d0), relative motion (supplement 7.3); a: `scale`. It may leave
    [-1,1]."""
    return source + scale * (driving - first)


class ExpressionExtractor(nn.Module):
    """Feature map read under each heatmap, then an MLP. 2,558,976 parameters at the published size."""

    def __init__(self, net: Architecture) -> None:
        super().__init__()
        self.keypoints = net.detector.keypoints
        width = self.keypoints * net.expression_per_keypoint
        self.expression = nn.Conv2d(net.detector.feature_channels, width, 7)
        self.expression_mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(),
            nn.Linear(2 * width, 4 * width), nn.ReLU(),
            nn.Linear(4 * width, 2 * width), nn.ReLU(),
            nn.Linear(2 * width, net.expression_size),
        )  # fmt: skip

    def forward(self, features: Tensor, heatmap: Tensor) -> Tensor:
        """features (B,C,F,F), heatmap (B,K,G,G), both without gradient -> e (B,E).

        The published form convolves first (7x7) and averages under the heatmaps after; both are linear, so
        averaging the 7x7 patches first gives the same numbers (1e-15 in float64) for 1/32 of the work, and
        none of it needs a gradient.
        """
        with torch.autocast(features.device.type, enabled=False):  # the regularisers compare these
            patches = pool_heatmap_patches(features, heatmap)  # (B,K,C,7,7)
            weight = self.expression.weight.unflatten(0, (self.keypoints, -1))  # (K,E/K,C,7,7)
            bias = self.expression.bias
            assert bias is not None
            mass = heatmap.sum((2, 3)).unsqueeze(-1)  # (B,K,1): 1 up to rounding
            read = torch.einsum("bkp,kep->bke", patches.flatten(2), weight.flatten(2))
            read = read + mass * bias.view(self.keypoints, -1)
            return self.expression_mlp(read.flatten(1))


@torch.no_grad()
def pool_heatmap_patches(features: Tensor, heatmap: Tensor, taps: int = 7) -> Tensor:
    """Mean patch of the feature map under each heatmap: (B,C,F,F), (B,K,G,G) -> (B,K,C,taps,taps)."""
    cells = heatmap.shape[-1]
    weights = heatmap.flatten(2)  # (B,K,G*G)
    features = features.to(weights.dtype).contiguous()
    columns = [
        weights @ features[:, :, y : y + cells, x : x + cells].flatten(2).transpose(1, 2)  # (B,K,C)
        for y in range(taps)
        for x in range(taps)
    ]
    return torch.stack(columns, dim=-1).unflatten(-1, (taps, taps))
