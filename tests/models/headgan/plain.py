"""HeadGAN as the paper draws it: generator, discriminators and training step; what models/headgan must equal,
and what it is timed against.

A SPADE layer resizes its guide, then makes gamma and beta in two convolutions; every intermediate map stays
until the backward pass. It reads the same weights. Legend as in network.py.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from models.headgan.config import RGB_CHANNELS, Architecture, DiscriminatorConfig


def maybe(conv: nn.Conv2d, net: Architecture) -> nn.Module:
    return spectral_norm(conv) if net.spectral else conv


def encoder(inputs: int, net: Architecture) -> nn.ModuleList:
    widths = [inputs, *net.encoder_channels]
    layers = nn.ModuleList()
    for i, (before, after) in enumerate(zip(widths, net.encoder_channels, strict=False)):
        if i == 0:
            conv = nn.Conv2d(before, after, 7, bias=False)
        else:
            conv = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        normed = nn.Sequential(maybe(conv, net), nn.InstanceNorm2d(after, affine=True))
        layers.append(nn.Sequential(*([] if i else [nn.ReflectionPad2d(3)]), normed, nn.ReLU()))
    return layers


def head(width: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(width, channels, 7))


class Spade(nn.Module):
    def __init__(self, channels: int, guide: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.mlp_shared = nn.Sequential(nn.Conv2d(guide, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        shared = self.mlp_shared(F.interpolate(guide, x.shape[-2:], mode="nearest"))
        return self.norm(x) * (1 + self.mlp_gamma(shared)) + self.mlp_beta(shared)


class SpadeBlock(nn.Module):
    def __init__(self, before: int, after: int, guide: int, net: Architecture) -> None:
        super().__init__()
        middle = min(before, after)
        self.conv_0 = maybe(nn.Conv2d(before, middle, 3, padding=1), net)
        self.conv_1 = maybe(nn.Conv2d(middle, after, 3, padding=1), net)
        self.norm_0 = Spade(before, guide, net.hidden)
        self.norm_1 = Spade(middle, guide, net.hidden)
        self.residual = net.residual
        if self.residual and before != after:
            self.conv_s = maybe(nn.Conv2d(before, after, 1, bias=False), net)
            self.norm_s = Spade(before, guide, net.hidden)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        y = self.conv_0(F.leaky_relu(self.norm_0(x, guide), 0.2))
        y = self.conv_1(F.leaky_relu(self.norm_1(y, guide), 0.2))
        if not self.residual:
            return y
        if hasattr(self, "conv_s"):
            x = self.conv_s(F.leaky_relu(self.norm_s(x, guide), 0.2))
        return x + y


class AdaIn(nn.Module):
    def __init__(self, channels: int, audio: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.fc = nn.Linear(audio, 2 * channels)

    def forward(self, x: Tensor, audio: Tensor) -> Tensor:
        gamma, beta = self.fc(audio)[:, :, None, None].chunk(2, dim=1)
        return (1 + gamma) * self.norm(x) + beta


class AdaInBlock(nn.Module):
    def __init__(self, channels: int, net: Architecture) -> None:
        super().__init__()
        self.conv1 = maybe(nn.Conv2d(channels, channels, 3, padding=1), net)
        self.conv2 = maybe(nn.Conv2d(channels, channels, 3, padding=1), net)
        self.norm1, self.norm2 = AdaIn(channels, net.audio), AdaIn(channels, net.audio)

    def forward(self, x: Tensor, audio: Tensor) -> Tensor:
        x = self.conv1(F.leaky_relu(self.norm1(x, audio), 0.2))
        return self.conv2(F.leaky_relu(self.norm2(x, audio), 0.2))


def neighbours(x: Tensor, flow: Tensor) -> Tensor:
    """Bilinear warping written out: the four neighbours of each place, held inside the image."""
    B, C, H, W = x.shape
    columns = (torch.arange(W, dtype=flow.dtype) + flow[:, 0]).clamp(0, W - 1)
    rows = (torch.arange(H, dtype=flow.dtype)[:, None] + flow[:, 1]).clamp(0, H - 1)
    left, top = columns.detach().floor(), rows.detach().floor()
    total = torch.zeros_like(x)
    for row, near in ((top, 1 - (rows - top)), (top + 1, rows - top)):
        for column, close in ((left, 1 - (columns - left)), (left + 1, columns - left)):
            place = (row.clamp(max=H - 1) * W + column.clamp(max=W - 1)).long()  # (B,H,W)
            index = place.view(B, 1, -1).expand(-1, C, -1)
            total = total + x.flatten(2).gather(2, index).view(B, C, H, W) * (near * close).unsqueeze(1)
    return total


def warp(x: Tensor, flow: Tensor) -> Tensor:
    H, W = x.shape[-2:]
    rows, columns = torch.arange(H, device=x.device), torch.arange(W, device=x.device)
    across = 2 * (columns + flow[:, 0]) / (W - 1) - 1
    down = 2 * (rows[:, None] + flow[:, 1]) / (H - 1) - 1
    grid = torch.stack([across, down], dim=1)
    return F.grid_sample(x.to(grid), grid.permute(0, 2, 3, 1), padding_mode="border", align_corners=True)


class FlowNetwork(nn.Module):
    def __init__(self, net: Architecture) -> None:
        super().__init__()
        deep, after = net.encoder_channels[::-1], net.decoder_channels
        self.enc = encoder(2 * RGB_CHANNELS, net)
        self.dec_res = nn.ModuleList(
            SpadeBlock(deep[0], deep[0], net.window_channels, net) for _ in range(net.levels)
        )
        self.dec_main = nn.ModuleList(
            SpadeBlock(deep[i], after[i], net.window_channels, net) for i in range(net.levels)
        )
        self.dec_flow = head(net.width, 2)
        if net.mask:
            self.dec_mask = head(net.width, 1)


class RenderingNetwork(nn.Module):
    def __init__(self, net: Architecture) -> None:
        super().__init__()
        deep, after = net.encoder_channels[::-1], [*net.decoder_channels, net.width]
        self.cond_enc = encoder(net.window_channels, net)
        blocks = [SpadeBlock(deep[i], after[i], deep[i], net) for i in range(net.levels + 1)]
        self.cond_dec = nn.ModuleList([*blocks, SpadeBlock(net.width, net.width, RGB_CHANNELS, net)])
        if net.audio:
            self.cond_dec_audio = nn.ModuleList(AdaInBlock(width, net) for width in after)
        self.conv_img = head(net.width, RGB_CHANNELS)


class Generator(nn.Module):
    """With F only."""

    def __init__(self, net: Architecture) -> None:
        super().__init__()
        self.net = net
        self.flow_network = FlowNetwork(net)
        self.rendering_network = RenderingNetwork(net)

    def doubled(self, x: Tensor) -> Tensor:
        return nn.PixelShuffle(2)(x) if self.net.upsampling == "shuffle" else nn.Upsample(scale_factor=2)(x)

    def forward(
        self, window: Tensor, condition: Tensor, image: Tensor, audio: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> image, warped image, flow."""
        part, maps, x = self.flow_network, [], torch.cat([condition, image], dim=1)
        for layer in part.enc:
            x = layer(x)
            maps.append(x)
        for block in part.dec_res:
            x = block(x, window)
        for block in part.dec_main:
            x = self.doubled(block(x, window))
        flow = part.dec_flow(x)
        if self.net.mask:
            flow = flow * ((torch.tanh(part.dec_mask(x)) + 1) / 2)
        warped, smaller = [], flow
        for one in maps:
            warped.append(warp(one, smaller))
            smaller = nn.AvgPool2d(2)(smaller) / 2
        warped_image = warp(image, flow)
        return self.rendered(window, warped, warped_image, audio), warped_image, flow

    def rendered(self, window: Tensor, maps: list[Tensor], image: Tensor, audio: Tensor | None) -> Tensor:
        part, x = self.rendering_network, window
        for layer in part.cond_enc:
            x = layer(x)
        for i in range(self.net.levels + 1):
            x = part.cond_dec[i](x, maps[-i - 1])
            if audio is not None:
                x = part.cond_dec_audio[i](x, audio)
            if i < self.net.levels:
                x = self.doubled(x)
        x = part.cond_dec[self.net.levels + 1](x, image)
        return torch.tanh(part.conv_img(F.leaky_relu(x, 0.2)))


# --- the whole training step --------------------------------------------------------------------------------
class Scale(nn.ModuleDict):
    def __init__(self, inputs: int, sizes: DiscriminatorConfig) -> None:
        super().__init__()
        before, last = inputs, len(sizes.channels)
        for i, width in enumerate(sizes.channels):
            conv = nn.Conv2d(before, width, 4, 1 if i == last - 1 else 2, padding=2, bias=i == 0)
            if i:
                made = spectral_norm(conv) if sizes.spectral else conv
                conv = nn.Sequential(made, nn.InstanceNorm2d(width, affine=True))
            self[f"model{i}"] = nn.Sequential(conv, nn.LeakyReLU(0.2))
            before = width
        self[f"model{last}"] = nn.Sequential(nn.Conv2d(before, 1, 4, padding=2))


class Discriminator(nn.ModuleDict):
    def __init__(self, inputs: int, sizes: DiscriminatorConfig) -> None:
        super().__init__({f"discriminator_{i}": Scale(inputs, sizes) for i in range(sizes.scales)})

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        found = []
        for scale in self.values():
            maps = [x]
            for layer in scale.values():
                maps.append(layer(maps[-1]))
            found.append(maps[1:])
            x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        return found


class Given(NamedTuple):
    """What one step looks at; audio (B,A), centres (B,2) of mouths, the rest images (B,C,H,W)."""

    window: Tensor
    told: Tensor
    source: Tensor
    condition: Tensor
    target: Tensor
    audio: Tensor
    centres: Tensor


def whole_step(
    net: Generator,
    discriminator: Discriminator,
    mouth_discriminator: Discriminator,
    vgg: nn.Sequential,
    given: Given,
    mouth: int,
) -> tuple[Tensor, Tensor]:
    """-> what the generator minimises, what the discriminators minimise. As a reader of the supplement would
    write it: each term by itself, each discriminator sees real, rendered, and rendered cut off from the
    generator.
    """
    image, warped, _ = net(given.window, given.told, given.source, given.audio)
    of_generator = 50 * (image - given.target).abs().mean() + 50 * (warped - given.target).abs().mean()
    of_generator = of_generator + 10 * perceptual(vgg, image, given.target)
    of_generator = of_generator + 10 * perceptual(vgg, warped, given.target)
    heard = given.audio[:, :, None, None].expand(-1, -1, mouth, mouth)
    crops = [cut(one, given.centres, mouth) for one in (image, given.target)]
    pairs = ((discriminator, given.condition, image, given.target), (mouth_discriminator, heard, *crops))
    of_discriminators = torch.zeros(())
    for one, beside, rendered, real in pairs:
        fools, seen = one(torch.cat([beside, rendered], 1)), one(torch.cat([beside, real], 1))
        cut_off = one(torch.cat([beside, rendered.detach()], 1))
        for a, b, c in zip(fools, seen, cut_off, strict=True):
            near = sum((x - y.detach()).abs().mean() for x, y in zip(a[:-1], b[:-1], strict=True))
            of_generator = of_generator + (10 * 4 / len(a) * near - a[-1].mean()) / len(fools)
            of_discriminators = of_discriminators + (
                F.relu(1 - b[-1]).mean() + F.relu(1 + c[-1]).mean()
            ) / len(fools)
    return of_generator, of_discriminators


def perceptual(vgg: nn.Sequential, image: Tensor, target: Tensor) -> Tensor:
    """vgg: torchvision's `features` up to relu5_1; images in [-1,1], as they are."""
    total = torch.zeros(())
    real = target
    for i, layer in enumerate(vgg):
        image, real = layer(image), layer(real)
        if i in (1, 6, 11, 20, 29):
            total = total + (image - real.detach()).abs().mean()
    return total


def cut(images: Tensor, centres: Tensor, side: int) -> Tensor:
    height, half, found = images.shape[-1], side // 2, []
    for image, centre in zip(images, centres.tolist(), strict=True):
        x, y = (min(max(place, half), height - half) for place in centre)
        found.append(image[:, y - half : y + half, x - half : x + half])
    return torch.stack(found)
