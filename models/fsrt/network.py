"""FSRT's scene encoder and pixel decoder, in the fast formulation that reads the released weights unchanged.

Legend: B batch, S sources, H,W image side, K keypoints, E expression size, T latent tokens, D token size, P
query pixels. Coordinates are (x,y), the image spans [-1,1]. Module names are those of the released
checkpoints.

Inputs that are constant over an image (keypoint code, expression) never become per-pixel maps: the first
convolution and the first linear layer add their contribution once (`constant_response`, `Decoder.queries`).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.fsrt.config import Architecture
from models.fsrt.keypoints import ExpressionExtractor, KeypointDetector

RGB = 3
KeysValues = list[tuple[Tensor, Tensor]]  # per decoder block: k, v (B, heads, T, head size)


# --- positions ----------------------------------------------------------------------------------------------
def pixel_grid(
    height: int, width: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Tensor:
    """Pixel centres (H,W,2), x first."""
    x = (torch.arange(width, dtype=dtype, device=device) + 0.5 - width / 2) / (width / 2)
    y = (torch.arange(height, dtype=dtype, device=device) + 0.5 - height / 2) / (height / 2)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def positional_code(coordinates: Tensor, octaves: int, start: int) -> Tensor:
    """(..., N) -> (..., 2*N*octaves): all sines, then all cosines, coordinate by coordinate, octave by
    octave.

    Runs in the coordinates' own precision, never in bf16: the highest octave turns 2**14 times over the
    image.
    """
    with torch.autocast(coordinates.device.type, enabled=False):
        steps = torch.arange(start, start + octaves, dtype=coordinates.dtype, device=coordinates.device)
        phases = (coordinates.unsqueeze(-1) * (math.pi * 2**steps)).flatten(-2)
        return torch.cat([phases.sin(), phases.cos()], dim=-1)


# --- blocks shared by encoder and decoder -------------------------------------------------------------------
class PreNorm(nn.Module):
    """LayerNorm before a branch; the caller adds the residual."""

    def __init__(self, size: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.fn = fn

    def forward(self, x: Tensor, *args: Tensor) -> Tensor:
        return self.fn(self.norm(x), *args)


class MLP(nn.Module):
    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        # The released layout counts a dropout (0 in the paper) after each layer.
        self.net = nn.Sequential(nn.Linear(size, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, size))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B,T,heads*size) -> (B,heads,T,size)"""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    def __init__(self, size: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(size, 3 * heads * head_size, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head_size, size))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.to_qkv(x).chunk(3, dim=-1))
        return self.to_out(join_heads(F.scaled_dot_product_attention(q, k, v)))


class CrossAttention(nn.Module):
    """Queries from the pixels; keys and values from the latent tokens, computed once a scene by
    `keys_values`.
    """

    def __init__(self, size: int, tokens: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(size, heads * head_size, bias=False)
        self.to_kv = nn.Linear(tokens, 2 * heads * head_size, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head_size, size))

    def keys_values(self, z: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.to_kv(z).chunk(2, dim=-1)
        return split_heads(k, self.heads), split_heads(v, self.heads)

    def forward(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = split_heads(self.to_q(x), self.heads)
        return self.to_out(join_heads(F.scaled_dot_product_attention(q, k, v)))


class Transformer(nn.Module):
    """Pre-norm blocks, no final norm. With keys and values given, each block's attention looks at those."""

    def __init__(self, size: int, hidden: int, attention: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([PreNorm(size, one), PreNorm(size, MLP(size, hidden))]) for one in attention
        )

    def forward(self, x: Tensor, keys_values: KeysValues | None = None) -> Tensor:
        for i, layer in enumerate(self.layers):
            attend, mlp = layer  # pyright: ignore[reportGeneralTypeIssues]
            x = x + (attend(x) if keys_values is None else attend(x, *keys_values[i]))
            x = x + mlp(x)
        return x


# --- encoder ------------------------------------------------------------------------------------------------
class ConvBlock(nn.Module):
    """Two 3x3 convolutions without bias; the second halves the side."""

    def __init__(self, before: int, middle: int, after: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(before, middle, 3, padding=1, bias=False), nn.ReLU(),
            nn.Conv2d(middle, after, 3, stride=2, padding=1, bias=False), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def after_first(self, x: Tensor) -> Tensor:
        """The block from the output of its first convolution on."""
        return self.layers[1:](x)


def constant_response(weight: Tensor, constant: Tensor, height: int, width: int) -> Tensor:
    """What a padded 3x3 convolution makes of inputs that are constant over the image.

    weight (O,I,3,3), constant (N,I) -> (N,O,H,W). Only the border differs: nine cases, spread over the image.
    """
    taps = torch.einsum("oiyx,ni->noyx", weight, constant)
    inside = torch.tensor([[0, 1, 1], [1, 1, 1], [1, 1, 0]], dtype=taps.dtype, device=taps.device)
    cases = inside @ taps @ inside.T  # (N,O,3,3): first, inner, last row x first, inner, last column
    rows = torch.cat([cases[..., :1], cases[..., 1:2].expand(-1, -1, -1, width - 2), cases[..., 2:]], dim=-1)
    return torch.cat([rows[:, :, :1], rows[:, :, 1:2].expand(-1, -1, height - 2, -1), rows[:, :, 2:]], dim=-2)


class Encoder(nn.Module):
    """Source images -> latent tokens: patch CNN, then self-attention. 29,774,112 parameters at the published
    size.
    """

    def __init__(self, net: Architecture) -> None:
        super().__init__()
        self.octaves, self.start = net.pixel_octaves, net.start_octave
        self.keypoint_octaves = net.keypoint_octaves
        self.inputs = (RGB, net.keypoint_code, net.pixel_code, net.expression_size)
        self.joint = net.encoder_attention == "joint"
        widths = [net.patch_width * 2**i for i in range(net.patch_blocks + 1)]
        first = RGB + net.query_size
        self.conv_blocks = nn.ModuleList(
            ConvBlock(first if i == 0 else widths[i], widths[i], widths[i + 1])
            for i in range(net.patch_blocks)
        )
        self.per_patch_linear = nn.Conv2d(net.token_size, net.token_size, 1)
        attention: list[nn.Module] = [
            SelfAttention(net.token_size, net.encoder_heads, net.head_size) for _ in range(net.encoder_depth)
        ]
        self.transformer = Transformer(net.token_size, net.encoder_mlp, attention)

        if net.initial == "balanced":
            self.balance()

    @torch.no_grad()
    def balance(self) -> None:
        """Initial convolutions that keep the variance, each group of inputs counting the same.

        PyTorch's defaults, which the paper uses, shrink it about 2.4x a layer, and RGB is 3 of 483 inputs:
        tokens start out all but blind to the picture. 200,000 steps of warm-up overcome that, a short run
        does not.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        first = self.conv_blocks[0].layers[0].weight  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue]
        for group in first.split(self.inputs, dim=1):
            nn.init.normal_(group, std=(2 / (9 * group.shape[1] * len(self.inputs))) ** 0.5)

    def forward(self, images: Tensor, keypoints: Tensor, expression: Tensor) -> Tensor:
        """images (B,S,3,H,W), keypoints (B,S,K,2), expression (B,S,E) -> z (B,S*T,D)."""
        B, S = images.shape[:2]
        code = positional_code(keypoints.flatten(2), self.keypoint_octaves, self.start)
        constant = torch.cat([code, expression], dim=-1)  # (B,S,160+E)
        x = self.first_convolution(images.flatten(0, 1), constant.flatten(0, 1))
        x = self.conv_blocks[0].after_first(x)  # pyright: ignore[reportCallIssue]
        for block in self.conv_blocks[1:]:
            x = block(x)
        tokens = self.per_patch_linear(x).flatten(2).transpose(1, 2)  # (B*S,T,D)
        if self.joint:
            tokens = tokens.unflatten(0, (B, S)).flatten(1, 2)  # (B,S*T,D)
            return self.transformer(tokens)
        return self.transformer(tokens).unflatten(0, (B, S)).flatten(1, 2)

    def first_convolution(self, images: Tensor, constant: Tensor) -> Tensor:
        """The first 3x3 convolution over [RGB | keypoint code | pixel code | e], by linearity in three
        parts.
        """
        height, width = images.shape[-2:]
        weight = self.conv_blocks[0].layers[0].weight  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue]
        rgb, keypoints, pixels, expression = weight.split(self.inputs, dim=1)
        images = images.contiguous(memory_format=torch.channels_last)
        grid = pixel_grid(height, width, images.dtype, images.device)
        code = positional_code(grid, self.octaves, self.start).permute(2, 0, 1).unsqueeze(0)  # (1,64,H,W)
        constants = constant_response(torch.cat([keypoints, expression], dim=1), constant, height, width)
        return F.conv2d(images, rgb, padding=1) + F.conv2d(code, pixels, padding=1) + constants


# --- decoder ------------------------------------------------------------------------------------------------
class AllocationTransformer(nn.Module):
    """Query MLP and cross-attention blocks."""

    def __init__(self, net: Architecture) -> None:
        super().__init__()
        size = net.query_size
        self.input_mlp = nn.Sequential(
            nn.Linear(size, net.query_mlp), nn.ReLU(), nn.Linear(net.query_mlp, size)
        )
        attention: list[nn.Module] = [
            CrossAttention(size, net.token_size, net.decoder_heads, net.head_size)
            for _ in range(net.decoder_depth)
        ]
        self.transformer = Transformer(size, net.decoder_mlp, attention)

    def layers(self) -> tuple[nn.Linear, nn.Module, nn.Module]:
        first, relu, second = self.input_mlp
        assert isinstance(first, nn.Linear)
        return first, relu, second


class Decoder(nn.Module):
    """Latent tokens and query pixels -> RGB. Pixels never see each other, so any chunking of them is exact.

    15,310,131 parameters at the published size, 6,012,723 in the small variant.
    """

    def __init__(self, net: Architecture) -> None:
        super().__init__()
        self.octaves, self.start = net.pixel_octaves, net.start_octave
        self.keypoint_octaves = net.keypoint_octaves
        self.inputs = (net.keypoint_code, net.pixel_code, net.expression_size)
        self.allocation_transformer = AllocationTransformer(net)
        widths = [net.query_size, *net.render]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.render_mlp = nn.Sequential(*layers, nn.Linear(widths[-1], RGB))

    def forward(self, z: Tensor, pixels: Tensor, keypoints: Tensor, expression: Tensor) -> Tensor:
        """z (B,T,D), pixels (P,2) or (B,P,2), keypoints (B,K,2), expression (B,E) -> RGB (B,P,3), not
        clamped.
        """
        return self.decode(self.keys_values(z), self.queries(pixels, keypoints, expression))

    def keys_values(self, z: Tensor) -> KeysValues:
        """What the blocks need of a scene; z is not normalised."""
        layers = self.allocation_transformer.transformer.layers
        return [layer[0].fn.keys_values(z) for layer in layers]  # pyright: ignore[reportIndexIssue]

    def queries(self, pixels: Tensor, keypoints: Tensor, expression: Tensor) -> Tensor:
        """The input MLP over [keypoint code | pixel code | e]: a table over pixels plus one vector a frame ->
        (B,P,D).
        """
        first, relu, second = self.allocation_transformer.layers()
        to_keypoints, to_pixels, to_expression = first.weight.split(self.inputs, dim=1)
        code = positional_code(keypoints.flatten(1), self.keypoint_octaves, self.start)
        frame = F.linear(code, to_keypoints, first.bias) + F.linear(expression, to_expression)  # (B,hidden)
        table = F.linear(positional_code(pixels, self.octaves, self.start), to_pixels)
        return second(relu(table + frame.unsqueeze(1)))

    def decode(self, keys_values: KeysValues, queries: Tensor) -> Tensor:
        return self.render_mlp(self.allocation_transformer.transformer(queries, keys_values))

    def image(
        self, z: Tensor, side: int, keypoints: Tensor, expression: Tensor, most: int = 65_536
    ) -> Tensor:
        """A whole image per scene: z (B,T,D), keypoints (B,K,2), e (B,E) -> (B,3,side,side); `most` queries a
        pass.
        """
        keys_values = self.keys_values(z)
        pixels = pixel_grid(side, side, keypoints.dtype, keypoints.device).flatten(0, 1)
        parts = [
            self.decode(keys_values, self.queries(chunk, keypoints, expression))
            for chunk in pixels.split(max(1, most // len(z)))
        ]
        return torch.cat(parts, dim=1).transpose(1, 2).unflatten(2, (side, side))

    def video(
        self, keys_values: KeysValues, side: int, keypoints: Tensor, expression: Tensor, most: int = 65_536
    ) -> Tensor:
        """One scene (B = 1), many driving frames: keypoints (N,K,2), e (N,E) -> (N,3,side,side).

        The pixels of several frames form one query sequence, so keys and values are shared and never copied.
        """
        pixels = pixel_grid(side, side, keypoints.dtype, keypoints.device).flatten(0, 1)
        frames = []
        for k, e in zip(
            keypoints.split(max(1, most // len(pixels))),
            expression.split(max(1, most // len(pixels))),
            strict=True,
        ):
            parts = []
            for chunk in pixels.split(most):
                queries = self.queries(chunk, k, e)  # (n,p,D)
                rendered = self.decode(keys_values, queries.flatten(0, 1).unsqueeze(0))
                parts.append(rendered.view(*queries.shape[:2], RGB))
            frames.append(torch.cat(parts, dim=1))
        return torch.cat(frames).transpose(1, 2).unflatten(2, (side, side))


# --- the whole net ------------------------------------------------------------------------------------------
class Fsrt(nn.Module):
    """All parts under the names of the released checkpoints; `models/fsrt/task.py` puts them together."""

    def __init__(self, net: Architecture) -> None:
        super().__init__()
        self.kp_detector = KeypointDetector(net.detector)
        self.expression_encoder = ExpressionExtractor(net)
        self.encoder = Encoder(net)
        self.decoder = Decoder(net)
