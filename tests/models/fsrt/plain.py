"""FSRT as the paper writes it down: what models/fsrt/network.py must equal, and what it is timed against.

Every input of a pixel stands in its own channel, also what is constant over the image; attention is softmax(q
k^T / 8) v, with keys and values made anew in every call; the 7x7 convolution of the expression runs over the
whole feature map; the detector is called view by view. It reads the same weights. Legend as in network.py.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from models.fsrt import losses
from models.fsrt.augment import frame_to_crop_scale_shift
from models.fsrt.config import Architecture
from models.fsrt.keypoints import KeypointDetector
from models.fsrt.network import pixel_grid, positional_encoding
from models.fsrt.task import AugmentedFrames


# --- blocks -------------------------------------------------------------------------------------------------
def heads_of(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    def __init__(self, size: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(size, 3 * heads * head_size, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head_size, size))

    def forward(self, x: Tensor, z: None = None) -> Tensor:
        return self.to_out(attend(*(heads_of(part, self.heads) for part in self.to_qkv(x).chunk(3, -1))))


class CrossAttention(nn.Module):
    def __init__(self, size: int, tokens: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(size, heads * head_size, bias=False)
        self.to_kv = nn.Linear(tokens, 2 * heads * head_size, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head_size, size))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        k, v = (heads_of(part, self.heads) for part in self.to_kv(z).chunk(2, -1))
        return self.to_out(attend(heads_of(self.to_q(x), self.heads), k, v))


class MLP(nn.Module):
    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(size, hidden), nn.GELU(), nn.Dropout(0), nn.Linear(hidden, size))

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        return self.net(x)


class PreNorm(nn.Module):
    def __init__(self, size: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(size), fn

    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        return self.fn(self.norm(x), z)


class Transformer(nn.Module):
    def __init__(self, size: int, hidden: int, attention: list[nn.Module]) -> None:
        super().__init__()
        pairs = (nn.ModuleList([PreNorm(size, one), PreNorm(size, MLP(size, hidden))]) for one in attention)
        self.layers = nn.ModuleList(pairs)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        for attention, mlp in self.layers:
            x = attention(x, z) + x
            x = mlp(x, z) + x
        return x


class ConvBlock(nn.Module):
    def __init__(self, before: int, middle: int, after: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(before, middle, 3, padding=1, bias=False), nn.ReLU(),
            nn.Conv2d(middle, after, 3, stride=2, padding=1, bias=False), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


# --- nets ---------------------------------------------------------------------------------------------------
class ExpressionExtractor(nn.Module):
    def __init__(self, net: Architecture) -> None:
        super().__init__()
        self.keypoints, width = net.detector.keypoints, net.detector.keypoints * net.expression_per_keypoint
        self.expression = nn.Conv2d(net.detector.feature_channels, width, 7)
        self.expression_mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(),
            nn.Linear(2 * width, 4 * width), nn.ReLU(),
            nn.Linear(4 * width, 2 * width), nn.ReLU(),
            nn.Linear(2 * width, net.expression_size),
        )  # fmt: skip

    def forward(self, features: Tensor, heatmap: Tensor) -> Tensor:
        maps = self.expression(features).unflatten(1, (self.keypoints, -1))  # (B,K,E/K,G,G)
        return self.expression_mlp((maps * heatmap.unsqueeze(2)).sum((-2, -1)).flatten(1))


class Encoder(nn.Module):
    def __init__(self, net: Architecture) -> None:
        super().__init__()
        self.net = net
        widths = [net.patch_width * 2**i for i in range(net.patch_blocks + 1)]
        before = [3 + net.query_size, *widths[1:]]
        self.conv_blocks = nn.ModuleList(
            ConvBlock(before[i], widths[i], widths[i + 1]) for i in range(net.patch_blocks)
        )
        self.per_patch_linear = nn.Conv2d(net.token_size, net.token_size, 1)
        blocks = range(net.encoder_depth)
        sizes = (net.token_size, net.encoder_heads, net.head_size)
        self.transformer = Transformer(
            net.token_size, net.encoder_mlp, [SelfAttention(*sizes) for _ in blocks]
        )

    def forward(self, images: Tensor, keypoints: Tensor, expression: Tensor) -> Tensor:
        net, (B, S, _, H, W) = self.net, images.shape
        of_keypoints = positional_encoding(keypoints.flatten(2), net.keypoint_octaves, net.start_octave)
        of_pixels = positional_encoding(
            pixel_grid(H, W, images.dtype).expand(B, S, H, W, 2), net.pixel_octaves, net.start_octave
        )
        of_keypoints, expression = (
            c[:, :, None, None].expand(-1, -1, H, W, -1) for c in (of_keypoints, expression)
        )
        x = torch.cat([images.movedim(2, -1), of_keypoints, of_pixels, expression], dim=-1)
        x = x.flatten(0, 1).permute(0, 3, 1, 2).contiguous()  # (B*S,483,H,W)
        for block in self.conv_blocks:
            x = block(x)
        tokens = self.per_patch_linear(x).flatten(2).transpose(1, 2)
        return self.transformer(tokens.unflatten(0, (B, S)).flatten(1, 2))


class AllocationTransformer(nn.Module):
    def __init__(self, net: Architecture) -> None:
        super().__init__()
        size = net.query_size
        self.input_mlp = nn.Sequential(
            nn.Linear(size, net.query_mlp), nn.ReLU(), nn.Linear(net.query_mlp, size)
        )
        sizes = (size, net.token_size, net.decoder_heads, net.head_size)
        self.transformer = Transformer(
            size, net.decoder_mlp, [CrossAttention(*sizes) for _ in range(net.decoder_depth)]
        )

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.transformer(self.input_mlp(x), z)


class Decoder(nn.Module):
    def __init__(self, net: Architecture) -> None:
        super().__init__()
        self.net = net
        self.allocation_transformer = AllocationTransformer(net)
        widths = [net.query_size, *net.render]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.render_mlp = nn.Sequential(*layers, nn.Linear(widths[-1], 3))

    def forward(self, z: Tensor, pixels: Tensor, keypoints: Tensor, expression: Tensor) -> Tensor:
        """z (B,T,D), pixels (B,P,2), keypoints (B,K,2), e (B,E) -> (B,P,3)"""
        net, count = self.net, pixels.shape[1]
        of_keypoints = positional_encoding(keypoints.flatten(1), net.keypoint_octaves, net.start_octave)
        of_keypoints, expression = (c.unsqueeze(1).expand(-1, count, -1) for c in (of_keypoints, expression))
        of_pixels = positional_encoding(pixels, net.pixel_octaves, net.start_octave)
        queries = torch.cat([of_keypoints, of_pixels, expression], dim=-1)  # (B,P,480)
        return self.render_mlp(self.allocation_transformer(queries, z))

    def render_image(
        self, z: Tensor, side: int, keypoints: Tensor, expression: Tensor, most: int = 8192
    ) -> Tensor:
        """(B,3,side,side), `most` pixels a pass (65,536 at once would hold 3 GB of scores three times)"""
        pixels = pixel_grid(side, side, z.dtype).flatten(0, 1).expand(len(z), -1, 2)
        parts = [self(z, chunk, keypoints, expression) for chunk in pixels.split(most, dim=1)]
        return torch.cat(parts, dim=1).transpose(1, 2).unflatten(2, (side, side))


class Fsrt(nn.Module):
    """Takes the state of models.fsrt.network.Fsrt."""

    def __init__(self, net: Architecture) -> None:
        super().__init__()
        self.kp_detector = KeypointDetector(net.detector).eval().requires_grad_(False)
        self.expression_encoder = ExpressionExtractor(net)
        self.encoder = Encoder(net)
        self.decoder = Decoder(net)

    def keypoints_and_expressions(self, *images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Keypoints and expressions of some views (B,3,D,D), in one call"""
        with torch.no_grad():
            keypoints, features, heatmap = self.kp_detector(torch.cat(images))
        e = self.expression_encoder(features, heatmap)
        return list(keypoints.chunk(len(images))), list(e.chunk(len(images)))


# --- training steps, one source -----------------------------------------------------------------------------
class Scene:
    """What a step asks of the net before it renders pixels, in the order of the authors' code."""

    def __init__(self, net: Fsrt, views: AugmentedFrames) -> None:
        _, (self.source, self.driving) = net.keypoints_and_expressions(views.sources2[:, 0], views.driving)
        _, (self.source1, self.tight) = net.keypoints_and_expressions(
            views.sources1[:, 0], views.driving_tight
        )
        (of_source, of_driving), _ = net.keypoints_and_expressions(
            views.sources2_full[:, 0], views.driving2_full
        )
        scale, shift = (part.to(of_source).unsqueeze(1) for part in frame_to_crop_scale_shift(views.crop))
        source_keypoints = (of_source + shift) * scale
        self.keypoints = (of_driving + shift) * scale
        self.expression = torch.where(views.tight.unsqueeze(1), self.tight, self.driving)
        self.z = net.encoder(views.sources, source_keypoints.unsqueeze(1), self.source.unsqueeze(1))

    def expression_losses(self) -> dict[str, Tensor]:
        first, second = torch.cat([self.source1, self.driving]), torch.cat([self.source, self.tight])
        return {
            "invariance": losses.expression_colour_invariance_loss(
                self.source1, self.source, self.driving, self.tight
            ),
            "variance": losses.feature_variance_hinge_loss(first)
            + losses.feature_variance_hinge_loss(second),
            "covariance": losses.covariance_loss(first) + losses.covariance_loss(second),
        }


def warmup_step(net: Fsrt, views: AugmentedFrames, queries: Tensor) -> dict[str, Tensor]:
    """Phase 1's terms; queries (B,P): flat pixel numbers. Every view must be `moved`."""
    scene, side = Scene(net, views), views.target.shape[-1]
    grid = pixel_grid(side, side, views.target.dtype).flatten(0, 1)
    rendered = net.decoder(scene.z, grid[queries], scene.keypoints, scene.expression)
    wanted = views.target.flatten(2).transpose(1, 2).gather(1, queries.unsqueeze(-1).expand(-1, -1, 3))
    return {"pixel": losses.pixel_mse_loss(rendered, wanted), **scene.expression_losses()}


def lattice_of(corner: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """corner (B,2) dy,dx -> flat numbers of the pixels on that lattice of stride 2 (B,P/4), and the others"""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    on = [((rows % 2 == dy) & (columns % 2 == dx)).flatten() for dy, dx in corner.tolist()]
    return torch.stack([mask.nonzero().squeeze(1) for mask in on]), torch.stack(
        [(~mask).nonzero().squeeze(1) for mask in on]
    )


def image_step(
    net: Fsrt, views: AugmentedFrames, corner: Tensor, features: nn.Module | None = None, most: int = 16_384
) -> dict[str, Tensor]:
    """Phase 2's terms: a lattice rendered with gradient, the rest without; features: image -> maps."""
    scene, side = Scene(net, views), views.target.shape[-1]
    grid = pixel_grid(side, side, views.target.dtype).flatten(0, 1)
    mine, others = lattice_of(corner, side)
    rendered = net.decoder(scene.z, grid[mine], scene.keypoints, scene.expression)
    with torch.no_grad():
        asked = (scene.z.detach(), scene.keypoints, scene.expression.detach())
        rest = torch.cat(
            [net.decoder(asked[0], grid[part], *asked[1:]) for part in others.split(most, dim=1)], dim=1
        )
    images = []
    for i in range(len(mine)):  # sample by sample, as published
        flat = rendered.new_zeros(side * side, 3)
        flat = flat.index_copy(0, mine[i], rendered[i]).index_copy(0, others[i], rest[i])
        images.append(flat.T.unflatten(1, (side, side)))
    image = torch.stack(images)
    terms = {"pixel": losses.pixel_mse_loss(image, views.target), **scene.expression_losses()}
    if features is not None:
        with torch.no_grad():
            wanted = features(views.target)
        terms["perceptual"] = losses.perceptual_loss(features(image), wanted)
    return terms
