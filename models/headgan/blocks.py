"""Blocks of both of HeadGAN's networks: encoder, SPADE and AdaIN blocks (supplement 3.1, Figure 1).

Legend: B samples, C channels, h,w side of a map, M channels of a guide, A length of an audio vector. Module
names are those of the released checkpoints.

Instance norm and spectral norm stay in float32 under autocast. With `recompute`, a training step keeps only
what is dear to compute again: of a SPADE layer its input, scale and shift; the normalised maps, and the
hidden ones (256 channels) where maps are large, are made anew in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint

from models.headgan.config import Architecture
from models.precision import at_least_float32

LEAKY_SLOPE = 0.2  # of LeakyReLU
MAX_FUSED_CHANNELS = 128
"""Channels up to which scale and shift come out of one convolution. One core, forward and backward: 32
channels at 256 px 0.42 s against 0.55 s, 128 at 64 px the same, 512 at 64 px 0.31 against 0.30 s: there the
weights, which must be copied side by side, are as large as the map.
"""


def disable_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Context in which autocast, if it is on, is off."""
    if not torch.amp.is_autocast_available(device.type):  # the meta device's
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


# --- convolutions -------------------------------------------------------------------------------------------
class SpectralConv(nn.Conv2d):
    """torch.nn.Conv2d, with `with_spectral_norm` perhaps."""

    def normalized_weight(self, device: torch.device) -> Tensor:
        """Divided by its largest singular value where spectral norm is on; never in bfloat16.

        In training mode each call moves the estimate of that value on by one power iteration, so a forward
        pass must call it once, and a repeated one not at all.
        """
        with disable_autocast(device):
            return self.weight

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.normalized_weight(input.device), self.bias)


def with_spectral_norm(conv: SpectralConv, on: bool) -> SpectralConv:
    """The convolution, with spectral norm where `on` (Miyato et al. 2018)."""
    return spectral_norm(conv) if on else conv  # pyright: ignore[reportReturnType]


def fold_spectral_norm(net: nn.Module) -> nn.Module:
    """For inference: every spectral norm worked into the weights it divides. Changes the net in place."""
    for module in net.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return net


def output_head(width: int, channels: int) -> nn.Sequential:
    """(B,width,h,w) -> (B,channels,h,w): 7x7 over reflected borders."""
    return nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(width, channels, 7))


# --- instance norm ------------------------------------------------------------------------------------------
def instance_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Instance norm (eps 1e-5), computed in float32 or better, in x's dtype."""
    with disable_autocast(x.device):
        return F.instance_norm(at_least_float32(x), weight=weight, bias=bias).to(x.dtype)


class InstanceNorm(nn.InstanceNorm2d):
    """With weights, in float32."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, input: Tensor) -> Tensor:
        return instance_norm(input, self.weight, self.bias)


# --- encoder ------------------------------------------------------------------------------------------------
class Encoder(nn.ModuleList):
    """(B,inputs,H,W) -> maps at H, H/2, H/4, ...: 7x7, then 3x3 of stride 2, each with instance norm and
    ReLU.
    """

    def __init__(self, inputs: int, net: Architecture) -> None:
        def normed(conv: SpectralConv) -> nn.Sequential:
            return nn.Sequential(with_spectral_norm(conv, net.spectral), InstanceNorm(conv.out_channels))

        widths = net.encoder_channels
        first = normed(SpectralConv(inputs, widths[0], 7, bias=False))
        super().__init__([nn.Sequential(nn.ReflectionPad2d(3), first, nn.ReLU(inplace=True))])
        for before, after in pairwise(widths):
            conv = SpectralConv(before, after, 3, stride=2, padding=1, bias=False)
            self.append(nn.Sequential(normed(conv), nn.ReLU(inplace=True)))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for layer in self:
            x = layer(x)
            maps.append(x)
        return maps


# --- blocks -------------------------------------------------------------------------------------------------
def recompute_in_backward(work: Callable[..., Tensor], *args: Any, recompute: bool) -> Tensor:
    """work(*args); with `recompute` the backward pass repeats it up to the last thing it needs of it.

    A convolution at its end is therefore not repeated: of it only the input is needed.
    """
    if not (recompute and torch.is_grad_enabled()):
        return work(*args)
    return checkpoint(work, *args, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore[reportReturnType]


def modulate_norm_leaky_relu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """LeakyReLU of scale * instance norm of x + shift."""
    return F.leaky_relu(torch.addcmul(shift, scale, instance_norm(x)), LEAKY_SLOPE, inplace=True)


class SpadeModulation(nn.Module):
    """Scale and shift of a normalised map, pixel by pixel, from a guide image (Park et al. 2019)."""

    def __init__(self, channels: int, guide: int, hidden: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(guide, hidden, 3, padding=1))
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, guide: Tensor, recompute: bool = False) -> tuple[Tensor, Tensor]:
        """guide (B,M,h,w) -> scale 1 + gamma and shift beta, (B,C,h,w) each."""
        shared, gamma, beta = self.mlp_shared[0], self.mlp_gamma, self.mlp_beta
        one = gamma.bias + 1  # pyright: ignore[reportOptionalOperand]
        if gamma.out_channels > MAX_FUSED_CHANNELS:
            hidden = F.relu(shared(guide), inplace=True)
            return F.conv2d(hidden, gamma.weight, one, padding=1), beta(hidden)

        def work(guide: Tensor) -> Tensor:
            hidden = F.relu(shared(guide), inplace=True)
            weight = torch.cat([gamma.weight, beta.weight])
            bias = torch.cat([one, beta.bias])  # pyright: ignore[reportArgumentType]
            return F.conv2d(hidden, weight, bias, padding=1)

        scale, shift = recompute_in_backward(work, guide, recompute=recompute).chunk(2, dim=1)
        return scale, shift


class SpadeBlock(nn.Module):
    """Twice [SPADE, LeakyReLU, 3x3 convolution]; adds its input where the net is residual."""

    def __init__(self, before: int, after: int, guide: int, net: Architecture) -> None:
        super().__init__()
        middle = min(before, after)
        self.conv_0 = with_spectral_norm(SpectralConv(before, middle, 3, padding=1), net.spectral)
        self.conv_1 = with_spectral_norm(SpectralConv(middle, after, 3, padding=1), net.spectral)
        self.norm_0 = SpadeModulation(before, guide, net.hidden)
        self.norm_1 = SpadeModulation(middle, guide, net.hidden)
        self.residual = net.residual
        if net.residual and before != after:
            self.conv_s = with_spectral_norm(SpectralConv(before, after, 1, bias=False), net.spectral)
            self.norm_s = SpadeModulation(before, guide, net.hidden)

    def forward(self, x: Tensor, guide: Tensor, recompute: bool = False) -> Tensor:
        """x (B,before,h,w), guide (B,M,H,W) of any side -> (B,after,h,w)."""
        if guide.shape[-2:] != x.shape[-2:]:
            guide = F.interpolate(guide, x.shape[-2:], mode="nearest")
        y = apply_spade_conv(x, guide, self.norm_0, self.conv_0, recompute)
        y = apply_spade_conv(y, guide, self.norm_1, self.conv_1, recompute)
        if not self.residual:
            return y
        if x.shape[1] != y.shape[1]:
            x = apply_spade_conv(x, guide, self.norm_s, self.conv_s, recompute)
        return x + y


def apply_spade_conv(
    x: Tensor, guide: Tensor, norm: SpadeModulation, conv: SpectralConv, recompute: bool
) -> Tensor:
    scale, shift = norm(guide, recompute)
    return modulate_then_convolve(x, scale, shift, conv, recompute)


def modulate_then_convolve(
    x: Tensor, scale: Tensor, shift: Tensor, conv: SpectralConv, recompute: bool
) -> Tensor:
    """The convolution of `modulate_norm_leaky_relu`, over zero borders."""
    weight = conv.normalized_weight(x.device)  # out here, as the backward pass may repeat `work`

    def work(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.conv2d(modulate_norm_leaky_relu(x, scale, shift), weight, conv.bias, padding=conv.padding)

    return recompute_in_backward(work, x, scale, shift, recompute=recompute)


class AdaInModulation(nn.Module):
    """Scale and shift of a normalised map, channel by channel, from a vector (Huang and Belongie 2017)."""

    def __init__(self, channels: int, audio: int) -> None:
        super().__init__()
        self.fc = nn.Linear(audio, 2 * channels)

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """audio (B,A) -> scale 1 + gamma and shift beta, (B,C,1,1) each."""
        gamma, beta = self.fc(audio)[..., None, None].chunk(2, dim=1)
        return 1 + gamma, beta


class AdaInBlock(nn.Module):
    """Twice [AdaIN, LeakyReLU, 3x3 convolution], never residual."""

    def __init__(self, channels: int, net: Architecture) -> None:
        super().__init__()
        self.conv1 = with_spectral_norm(SpectralConv(channels, channels, 3, padding=1), net.spectral)
        self.conv2 = with_spectral_norm(SpectralConv(channels, channels, 3, padding=1), net.spectral)
        self.norm1 = AdaInModulation(channels, net.audio)
        self.norm2 = AdaInModulation(channels, net.audio)

    def forward(self, x: Tensor, audio: Tensor, recompute: bool = False) -> Tensor:
        """x (B,C,h,w), audio (B,A) -> (B,C,h,w)."""
        for norm, conv in ((self.norm1, self.conv1), (self.norm2, self.conv2)):
            scale, shift = norm(audio)
            x = modulate_then_convolve(x, scale, shift, conv, recompute)
        return x
