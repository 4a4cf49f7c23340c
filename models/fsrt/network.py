"""FSRT's scene encoder and pixel decoder, in the fast formulation that reads the released weights unchanged.

Legend: B batch, S sources, H,W image side, K keypoints, E expression size, T latent tokens, D token size, P
query pixels. Coordinates are (x,y), the image spans [-1,1]. Module names are those of the released
checkpoints.

Inputs that are constant over an image (keypoint code, expression) never become per-pixel maps: the first
convolution and the first linear layer add their contribution once (`convolve_constant_input`,
`Decoder.make_queries`).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.fsrt.config import Architecture
from models.fsrt.keypoints import ExpressionExtractor, KeypointDetector
from models.onednn import OnednnLinear, attention, onednn_linear

RGB_CHANNELS = 3
MAX_CPU_QUERIES = 4096
"""Queries of a pass on a CPU: 65,536 pixels take 11.0 s a core; 13.2 s in passes of 16,384, whose layers
leave the cache and come from fresh pages.
"""
KeysValues = list[tuple[Tensor, ...]]
"""Per decoder block: k, v (B, heads, T, head size), and `seen` (B,1,1,T) where some tokens are hidden."""


# --- positions ----------------------------------------------------------------------------------------------
def pixel_grid(
    height: int, width: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Tensor:
    """Pixel centres (H,W,2), x first."""
    x = (torch.arange(width, dtype=dtype, device=device) + 0.5 - width / 2) / (width / 2)
    y = (torch.arange(height, dtype=dtype, device=device) + 0.5 - height / 2) / (height / 2)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def positional_encoding(coordinates: Tensor, octaves: int, start: int) -> Tensor:
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

    def forward(self, x: Tensor, *args: Tensor | None) -> Tensor:
        return self.fn(self.norm(x), *args)


class MLP(nn.Module):
    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        # The released layout counts a dropout (0 in the paper) after each layer.
        self.net = nn.Sequential(
            OnednnLinear(size, hidden), nn.GELU(), nn.Identity(), OnednnLinear(hidden, size)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B,T,heads*size) -> (B,heads,T,size)"""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def attention_mask(present: Tensor, tokens: int) -> Tensor:
    """present (B,S) bool -> mask (B,1,1,S*tokens) bool: the keys that may be attended to."""
    return present.repeat_interleave(tokens, dim=1)[:, None, None]


class SelfAttention(nn.Module):
    def __init__(self, size: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = OnednnLinear(size, 3 * heads * head_size, bias=False)
        self.to_out = nn.Sequential(OnednnLinear(heads * head_size, size))

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.to_qkv(x).chunk(3, dim=-1))
        return self.to_out(merge_heads(attention(q, k, v, seen)))


class CrossAttention(nn.Module):
    """Queries from the pixels; keys and values from the latent tokens, computed once a scene by
    `keys_values`.
    """

    def __init__(self, size: int, tokens: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = OnednnLinear(size, heads * head_size, bias=False)
        self.to_kv = OnednnLinear(tokens, 2 * heads * head_size, bias=False)
        self.to_out = nn.Sequential(OnednnLinear(heads * head_size, size))

    def keys_values(self, z: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.to_kv(z).chunk(2, dim=-1)
        return split_heads(k, self.heads), split_heads(v, self.heads)

    def forward(self, x: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
        q = split_heads(self.to_q(x), self.heads)
        return self.to_out(merge_heads(attention(q, k, v, seen)))


class Transformer(nn.Module):
    """Pre-norm blocks, no final norm. With keys and values given, each block's attention looks at those."""

    def __init__(self, size: int, hidden: int, attention: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([PreNorm(size, one), PreNorm(size, MLP(size, hidden))]) for one in attention
        )

    def forward(self, x: Tensor, keys_values: KeysValues | None = None, seen: Tensor | None = None) -> Tensor:
        for i, layer in enumerate(self.layers):
            attend, mlp = layer  # pyright: ignore[reportGeneralTypeIssues]
            x = x + (attend(x, seen) if keys_values is None else attend(x, *keys_values[i]))
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

    def forward_after_first(self, x: Tensor) -> Tensor:
        """The block from the output of its first convolution on."""
        return self.layers[1:](x)


def convolve_constant_input(weight: Tensor, constant: Tensor, height: int, width: int) -> Tensor:
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
        self.inputs = (RGB_CHANNELS, net.keypoint_code_size, net.pixel_code_size, net.expression_size)
        self.joint = net.encoder_attention == "joint"
        widths = [net.patch_width * 2**i for i in range(net.patch_blocks + 1)]
        first = RGB_CHANNELS + net.query_size
        self.conv_blocks = nn.ModuleList(
            ConvBlock(first if i == 0 else widths[i], widths[i], widths[i + 1])
            for i in range(net.patch_blocks)
        )
        self.per_patch_linear = nn.Conv2d(net.token_size, net.token_size, 1)
        attending: list[nn.Module] = [
            SelfAttention(net.token_size, net.encoder_heads, net.head_size) for _ in range(net.encoder_depth)
        ]
        self.transformer = Transformer(net.token_size, net.encoder_mlp, attending)

        if net.initial == "balanced":
            self.balance_initial_weights()

    @torch.no_grad()
    def balance_initial_weights(self) -> None:
        """Initial convolutions that keep the variance, each group of inputs counting the same.

        PyTorch's defaults, which the paper uses, shrink it about 2.4x a layer, and RGB is 3 of 483 inputs:
        tokens start out all but blind to the picture. 200,000 steps of warm-up overcome that, a short run
        does not.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        first = self.conv_blocks[0].layers[0].weight  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue]
        groups = [group for group in first.split(self.inputs, dim=1) if group.shape[1]]
        for group in groups:
            nn.init.normal_(group, std=(2 / (9 * group.shape[1] * len(groups))) ** 0.5)

    def forward(
        self, images: Tensor, keypoints: Tensor, expression: Tensor, present: Tensor | None = None
    ) -> Tensor:
        """images (B,S,3,H,W), keypoints (B,S,K,2), expression (B,S,E) -> z (B,S*T,D).

        present (B,S) bool: sources that count. The others are hidden from them; their own tokens mean
        nothing and must stay hidden in the decoder too (`Decoder.keys_values`).
        """
        B, S = images.shape[:2]
        code = positional_encoding(keypoints.flatten(2), self.keypoint_octaves, self.start)
        constant = torch.cat([code, expression], dim=-1)  # (B,S,160+E)
        x = self.apply_first_convolution(images.flatten(0, 1), constant.flatten(0, 1))
        x = self.conv_blocks[0].forward_after_first(x)  # pyright: ignore[reportCallIssue]
        for block in self.conv_blocks[1:]:
            x = block(x)
        project = self.per_patch_linear  # a 1x1 convolution in the released layout
        patches = x.flatten(2).transpose(1, 2)
        tokens = onednn_linear(patches, project.weight.flatten(1), project.bias)  # (B*S,T,D)
        if self.joint:
            tokens = tokens.unflatten(0, (B, S)).flatten(1, 2)  # (B,S*T,D)
            seen = None if present is None else attention_mask(present, tokens.shape[1] // S)
            return self.transformer(tokens, seen=seen)
        return self.transformer(tokens).unflatten(0, (B, S)).flatten(1, 2)

    def apply_first_convolution(self, images: Tensor, constant: Tensor) -> Tensor:
        """The first 3x3 convolution over [RGB | keypoint code | pixel code | e], by linearity in three
        parts.
        """
        height, width = images.shape[-2:]
        weight = self.conv_blocks[0].layers[0].weight  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue]
        rgb, keypoints, pixels, expression = weight.split(self.inputs, dim=1)
        grid = pixel_grid(height, width, images.dtype, images.device)
        code = positional_encoding(grid, self.octaves, self.start).permute(2, 0, 1).unsqueeze(0)  # (1,64,H,W)
        # The whole patch CNN follows this layout. On a CPU, channels last make the backward pass of strided
        # convolutions 3x slower in float32 (encoder, both ways: 2.7 s, else 2.1 s).
        layout = torch.channels_last if images.device.type == "cuda" else torch.contiguous_format
        images, code = images.contiguous(memory_format=layout), code.contiguous(memory_format=layout)
        constants = convolve_constant_input(
            torch.cat([keypoints, expression], dim=1), constant, height, width
        )
        return F.conv2d(images, rgb, padding=1) + F.conv2d(code, pixels, padding=1) + constants


# --- decoder ------------------------------------------------------------------------------------------------
class AllocationTransformer(nn.Module):
    """Query MLP and cross-attention blocks."""

    def __init__(self, net: Architecture) -> None:
        super().__init__()
        size = net.query_size
        self.input_mlp = nn.Sequential(
            OnednnLinear(size, net.query_mlp), nn.ReLU(inplace=True), OnednnLinear(net.query_mlp, size)
        )
        attending: list[nn.Module] = [
            CrossAttention(size, net.token_size, net.decoder_heads, net.head_size)
            for _ in range(net.decoder_depth)
        ]
        self.transformer = Transformer(size, net.decoder_mlp, attending)

    def unpack_input_mlp(self) -> tuple[nn.Linear, nn.Module, nn.Module]:
        first, relu, second = self.input_mlp
        assert isinstance(first, nn.Linear)
        return first, relu, second


def max_queries_per_pass(most: int, device: torch.device) -> int:
    """Queries of a pass: on a CPU, more than MAX_CPU_QUERIES only cost time and memory."""
    return min(most, MAX_CPU_QUERIES) if device.type == "cpu" else most


class Decoder(nn.Module):
    """Latent tokens and query pixels -> RGB. Pixels never see each other, so any chunking of them is exact.

    15,310,131 parameters at the published size, 6,012,723 in the small variant.
    """

    def __init__(self, net: Architecture) -> None:
        super().__init__()
        self.octaves, self.start = net.pixel_octaves, net.start_octave
        self.keypoint_octaves = net.keypoint_octaves
        self.inputs = (net.keypoint_code_size, net.pixel_code_size, net.expression_size)
        self.allocation_transformer = AllocationTransformer(net)
        widths = [net.query_size, *net.render]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [OnednnLinear(before, after), nn.ReLU(inplace=True)]
        self.render_mlp = nn.Sequential(*layers, OnednnLinear(widths[-1], RGB_CHANNELS))

    def forward(
        self, z: Tensor, pixels: Tensor, keypoints: Tensor, expression: Tensor, present: Tensor | None = None
    ) -> Tensor:
        """z (B,T,D), pixels (P,2) or (B,P,2), keypoints (B,K,2), expression (B,E) -> RGB (B,P,3), not
        clamped.
        """
        return self.decode_queries(
            self.keys_values(z, present), self.make_queries(pixels, keypoints, expression)
        )

    def keys_values(self, z: Tensor, present: Tensor | None = None) -> KeysValues:
        """What the blocks need of a scene; z is not normalised. present (B,S) bool: sources to look at."""
        layers = self.allocation_transformer.transformer.layers
        pairs = [layer[0].fn.keys_values(z) for layer in layers]  # pyright: ignore[reportIndexIssue]
        if present is None:
            return pairs
        seen = attention_mask(present, z.shape[1] // present.shape[1])
        return [(*pair, seen) for pair in pairs]

    def make_queries(self, pixels: Tensor, keypoints: Tensor, expression: Tensor) -> Tensor:
        """The input MLP over [keypoint code | pixel code | e]: a table over pixels plus one vector a frame ->
        (B,P,D).
        """
        return self.fuse_pixel_motion_embeddings(
            self.embed_pixels(pixels), self.embed_motion(keypoints, expression)
        )

    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """pixels (...,2) -> what they add to the first layer (...,hidden), whatever the frame."""
        first, _, _ = self.allocation_transformer.unpack_input_mlp()
        _, to_pixels, _ = first.weight.split(self.inputs, dim=1)
        return onednn_linear(positional_encoding(pixels, self.octaves, self.start), to_pixels)

    def embed_motion(self, keypoints: Tensor, expression: Tensor) -> Tensor:
        """What a frame adds to the first layer, whatever the pixel: (B,K,2), (B,E) -> (B,hidden)."""
        first, _, _ = self.allocation_transformer.unpack_input_mlp()
        to_keypoints, _, to_expression = first.weight.split(self.inputs, dim=1)
        code = positional_encoding(keypoints.flatten(1), self.keypoint_octaves, self.start)
        return F.linear(code, to_keypoints, first.bias) + F.linear(expression, to_expression)

    def fuse_pixel_motion_embeddings(self, table: Tensor, frame: Tensor) -> Tensor:
        """Rows of the pixel table (P,hidden) or (B,P,hidden) and frames (B,hidden) -> queries (B,P,D)."""
        _, relu, second = self.allocation_transformer.unpack_input_mlp()
        return second(relu(table + frame.unsqueeze(1)))

    def decode_queries(self, keys_values: KeysValues, queries: Tensor) -> Tensor:
        """queries (B,P,D) -> RGB (B,P,3)"""
        render, attend = self.render_mlp, self.allocation_transformer.transformer
        B, P = queries.shape[:2]
        each = max(1, max_queries_per_pass(B * P, queries.device) // B)
        return torch.cat([render(attend(part, keys_values)) for part in queries.split(each, dim=1)], dim=1)

    def render_image(
        self,
        z: Tensor,
        side: int,
        keypoints: Tensor,
        expression: Tensor,
        most: int = 65_536,
        present: Tensor | None = None,
    ) -> Tensor:
        """A whole image per scene: z (B,T,D), keypoints (B,K,2), e (B,E) -> (B,3,side,side); `most` queries a
        pass.
        """
        keys_values, frame = self.keys_values(z, present), self.embed_motion(keypoints, expression)
        pixels = pixel_grid(side, side, keypoints.dtype, keypoints.device).flatten(0, 1)
        parts = [
            self.decode_queries(
                keys_values, self.fuse_pixel_motion_embeddings(self.embed_pixels(chunk), frame)
            )
            for chunk in pixels.split(max(1, max_queries_per_pass(most, z.device) // len(z)))
        ]
        return torch.cat(parts, dim=1).transpose(1, 2).unflatten(2, (side, side))

    def render_video(
        self, keys_values: KeysValues, side: int, keypoints: Tensor, expression: Tensor, most: int = 65_536
    ) -> Tensor:
        """One scene (B = 1), many driving frames: keypoints (N,K,2), e (N,E) -> (N,3,side,side).

        The pixels of several frames form one query sequence, so keys and values are shared and never copied;
        all frames share the pixel table.
        """
        pixels = pixel_grid(side, side, keypoints.dtype, keypoints.device).flatten(0, 1)
        most = max_queries_per_pass(most, keypoints.device)
        frames = self.embed_motion(keypoints, expression)  # (N,hidden)
        images = keypoints.new_empty(len(frames), len(pixels), RGB_CHANNELS)
        for chunk, part in zip(pixels.split(most), images.split(most, dim=1), strict=True):
            table = self.embed_pixels(chunk)
            for frame, pixels_of in zip(
                *(x.split(max(1, most // len(pixels))) for x in (frames, part)), strict=True
            ):
                queries = self.fuse_pixel_motion_embeddings(table, frame).flatten(0, 1)  # (n*p,D)
                pixels_of.copy_(self.decode_queries(keys_values, queries.unsqueeze(0)).view_as(pixels_of))
        return images.transpose(1, 2).unflatten(2, (side, side))


# --- the whole net ------------------------------------------------------------------------------------------
class Fsrt(nn.Module):
    """All parts under the names of the released checkpoints; `models/fsrt/task.py` puts them together."""

    def __init__(self, net: Architecture) -> None:
        super().__init__()
        self.kp_detector = KeypointDetector(net.detector)
        self.expression_encoder = ExpressionExtractor(net)
        self.encoder = Encoder(net)
        self.decoder = Decoder(net)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """torch.compile of the large parts, in place; arguments as there, `dynamic=False` wanted.

        For GPUs: on a CPU it takes a minute and is slower than models/onednn.py, which it cannot use. Names
        in the state stay as they are. Every new size of a batch compiles anew.
        """
        for part in (self.encoder, self.decoder.allocation_transformer.transformer, self.decoder.render_mlp):
            part.compile(*args, **kwargs)
