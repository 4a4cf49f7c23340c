"""HeadGAN's generator: dense flow network F, rendering network R (supplement 3.1, Tables 1 and 2).

Legend: B samples, H,W image side, C channels, A length of an audio vector. Images are RGB in [-1,1],
conditions (NMFC or sketch) 3 channels in [0,1]. The driving window holds the conditions of frames t-2, t-1, t
on its channels, oldest first. Flow is in pixels: out(x,y) = in(x + dx, y + dy), x right, y down. Module names
are those of the released checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from models.headgan.blocks import LEAKY_SLOPE, AdaInBlock, Encoder, SpadeBlock, disable_autocast, output_head
from models.headgan.config import RGB_CHANNELS, Architecture
from models.precision import at_least_float32

XAVIER_GAIN = 0.02  # C's, of Xavier's normal initial weights


class GeneratorOutput(NamedTuple):
    """What the generator makes of a driving window."""

    image: Tensor
    """(B,3,H,W) RGB in [-1,1]."""
    warped: Tensor
    """(B,3,H,W) the reference image, warped; as it is where there is no F."""
    flow: Tensor | None
    """(B,2,H,W) pixels, float32; None without F."""
    mask: Tensor | None
    """(B,1,H,W) in [0,1], by which the flow has been multiplied; None without mask head."""
    maps: list[Tensor]
    """The reference's maps, warped, at H, H/2, H/4."""


# --- warping ------------------------------------------------------------------------------------------------
def warp_image(x: Tensor, flow: Tensor) -> Tensor:
    """x (B,C,h,w), flow (B,2,h,w) in pixels of that size -> (B,C,h,w) in x's dtype: bilinear, and beyond the
    border its value. In float32 or better: bfloat16 places a pixel 0.5 off at 256.
    """
    height, width = flow.shape[-2:]
    with disable_autocast(x.device):
        flow = at_least_float32(flow)
        columns = torch.arange(width, dtype=flow.dtype, device=flow.device)
        rows = torch.arange(height, dtype=flow.dtype, device=flow.device).unsqueeze(-1)
        across = (columns + flow[:, 0]) * (2 / (width - 1)) - 1
        down = (rows + flow[:, 1]) * (2 / (height - 1)) - 1
        grid = torch.stack([across, down], dim=-1)  # (B,h,w,2)
        out = F.grid_sample(x.to(grid.dtype), grid, padding_mode="border", align_corners=True)
        return out.to(x.dtype)


def warp_maps(maps: Sequence[Tensor], flow: Tensor) -> list[Tensor]:
    """Maps at H, H/2, H/4, ... by a flow (B,2,H,W), which is averaged and halved for each."""
    warped = []
    for i, one in enumerate(maps):
        if i:
            flow = F.avg_pool2d(flow, 2) / 2
        warped.append(warp_image(one, flow))
    return warped


# --- networks -----------------------------------------------------------------------------------------------
def upsample(x: Tensor, net: Architecture) -> Tensor:
    """Twice the side: pixel shuffle (a quarter of the channels), or repeated pixels."""
    if net.upsampling == "shuffle":
        return F.pixel_shuffle(x, 2)
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class FlowNetwork(nn.Module):
    """F: where each pixel of the driven head is in the reference image. 30,604,610 parameters as in S, with
    the mask head 30,606,179.
    """

    def __init__(self, net: Architecture) -> None:
        super().__init__()
        self.net = net
        deep = net.encoder_channels[::-1]
        self.enc = Encoder(2 * RGB_CHANNELS, net)
        self.dec_res = nn.ModuleList(
            SpadeBlock(deep[0], deep[0], net.window_channels, net) for _ in range(net.levels)
        )
        self.dec_main = nn.ModuleList(
            SpadeBlock(before, after, net.window_channels, net)
            for before, after in zip(deep, net.decoder_channels, strict=False)
        )
        self.dec_flow = output_head(net.width, 2)
        self.dec_mask = output_head(net.width, 1) if net.mask else None

    def forward(
        self, window: Tensor, deepest: Tensor, recompute: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """window (B,9,H,W), the encoder's deepest map of the reference (B,512,H/4,W/4) -> flow (B,2,H,W),
        mask (B,1,H,W) or None.
        """
        x = deepest
        for block in self.dec_res:
            x = block(x, window, recompute)
        for block in self.dec_main:
            x = upsample(block(x, window, recompute), self.net)
        with disable_autocast(x.device):
            x = at_least_float32(x)
            flow = self.dec_flow(x)
            if self.dec_mask is None:
                return flow, None
            mask = (self.dec_mask(x).tanh() + 1) / 2
            return flow * mask, mask


class RenderingNetwork(nn.Module):
    """R: the driving window, guided by what is warped and what is heard, becomes the image. 21,144,323
    parameters.
    """

    def __init__(self, net: Architecture) -> None:
        super().__init__()
        self.net = net
        deep, after = net.encoder_channels[::-1], [*net.decoder_channels, net.width]
        self.cond_enc = Encoder(net.window_channels, net)
        self.cond_dec = nn.ModuleList(
            SpadeBlock(before, out, before, net) for before, out in zip(deep, after, strict=True)
        )
        self.cond_dec.append(SpadeBlock(net.width, net.width, RGB_CHANNELS, net))
        if net.audio:
            self.cond_dec_audio = nn.ModuleList(AdaInBlock(width, net) for width in after)
        self.conv_img = output_head(net.width, RGB_CHANNELS)

    def forward(
        self,
        window: Tensor,
        maps: Sequence[Tensor],
        warped: Tensor,
        audio: Tensor | None = None,
        recompute: bool = False,
    ) -> Tensor:
        """window (B,9,H,W), the reference's warped maps at H, H/2, H/4 and its warped image (B,3,H,W),
        audio (B,A) -> RGB (B,3,H,W) in [-1,1].

        Raises ValueError where a net that hears is given no audio, or one that does not is given some.
        """
        if (audio is not None) != bool(self.net.audio):
            found = "none" if audio is None else tuple(audio.shape)
            raise ValueError(f"audio {found}: this net takes vectors of {self.net.audio} (0: none)")
        x = self.cond_enc(window)[-1]
        for level in range(self.net.levels + 1):
            x = self.cond_dec[level](x, maps[-1 - level], recompute)
            if audio is not None:
                x = self.cond_dec_audio[level](x, audio, recompute)
            if level < self.net.levels:
                x = upsample(x, self.net)
        x = self.cond_dec[-1](x, warped, recompute)
        return self.conv_img(F.leaky_relu(x, LEAKY_SLOPE)).tanh()


# --- the whole net ------------------------------------------------------------------------------------------
class ReferenceEncoder(nn.Module):
    """In place of F where there is no flow: its encoder alone, under C's name."""

    def __init__(self, net: Architecture) -> None:
        super().__init__()
        self.cond_enc = Encoder(2 * RGB_CHANNELS, net)


class Generator(nn.Module):
    """G: 51,748,933 parameters as in S, 51,750,502 as in C.

    recompute: in training, trade a little time for two fifths of the memory that activations take.
    """

    def __init__(self, net: Architecture, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        if net.flow:
            self.flow_network = FlowNetwork(net)
        else:
            self.frames_encoder = ReferenceEncoder(net)
        self.rendering_network = RenderingNetwork(net)
        self.has_flow = net.flow
        if net.initial == "xavier":
            initialize_weights(self)

    def forward(
        self, window: Tensor, condition: Tensor, image: Tensor, audio: Tensor | None = None
    ) -> GeneratorOutput:
        """window (B,9,H,W) of the driving frames; condition (B,3,H,W) and image (B,3,H,W) of the reference;
        audio (B,A) of the driving frame.
        """
        return self.render(window, image, self.encode_reference(condition, image), audio)

    def encode_reference(self, condition: Tensor, image: Tensor) -> list[Tensor]:
        """A reference's maps at H, H/2, H/4. They serve every driving window."""
        encoder = self.flow_network.enc if self.has_flow else self.frames_encoder.cond_enc
        return encoder(torch.cat([condition, image], dim=1))

    def render(
        self, window: Tensor, image: Tensor, maps: Sequence[Tensor], audio: Tensor | None = None
    ) -> GeneratorOutput:
        """`forward` from the maps of `encode` on. One reference (first dimension 1) serves a batch of
        windows.
        """
        image, *maps = (one.expand(len(window), -1, -1, -1) for one in (image, *maps))
        flow = mask = None
        if self.has_flow:
            flow, mask = self.flow_network(window, maps[-1], self.recompute)
            maps = warp_maps(maps, flow)
            image = warp_image(image, flow)
        rendered = self.rendering_network(window, maps, image, audio, self.recompute)
        return GeneratorOutput(rendered, image, flow, mask, maps)


@torch.no_grad()
def initialize_weights(net: nn.Module) -> None:
    """Initial weights of generator and discriminators: Xavier's normal with gain 0.02, biases 0; where
    spectral norm divides the scale out, weights stay PyTorch's (C, as it comes out there). Flow, modulation
    and image so begin near 0.
    """
    for module in net.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if module.bias is not None:
            module.bias.zero_()
        if not is_parametrized(module):
            nn.init.xavier_normal_(module.weight, gain=XAVIER_GAIN)
