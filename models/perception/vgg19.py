"""VGG19's features up to relu5_1, for perceptual losses (Simonyan and Zisserman 2015; Johnson et al. 2016).

The layers carry torchvision's names, so that its published file is read as it is. Gradient reaches the images
and never the weights, which stay as they are loaded, in eval mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from models.perception.interfaces import InferenceSettings
from models.perception.torch_net import load_pretrained_net

VGG19_WEIGHTS_ID = "vgg19"
VGG19_NAMES = ("vgg19", "vgg19_random")
"""What its objects are called, trained or not."""
LAYER_CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)
"""Channels of each 3x3 convolution up to conv5_1; 0 halves the side."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0,1]
UNUSED_TENSORS = frozenset(
    f"{layer}.{kind}"
    for layer in ("classifier.0", "classifier.3", "classifier.6", "features.30", "features.32", "features.34")
    for kind in ("weight", "bias")
)
"""The rest of torchvision's file: the classifier, and the convolutions after relu5_1."""
MIN_IMAGE_SIDE = 16  # pixels of an image's side that leave one after four halvings
RANDOM_WEIGHTS_SEED = 19


def vgg_convolutions(channels: Sequence[int]) -> nn.Sequential:
    """Of VGG nets: 3x3 convolutions of these channels, each with its ReLU; 0 halves the side."""
    layers: list[nn.Module] = []
    before = 3
    for width in channels:
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        before = width or before
    return nn.Sequential(*layers)


class Vgg19Layers(nn.Module):
    """The convolutional part up to relu5_1, under torchvision's names: features.0 to features.28."""

    def __init__(self) -> None:
        super().__init__()
        self.features = vgg_convolutions(LAYER_CHANNELS)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B,3,H,W), mean and deviation taken off -> the map after the first ReLU of each size."""
        maps = []
        fresh = True  # the next ReLU is the first one of its size
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                fresh = True
            elif isinstance(layer, nn.ReLU) and fresh:
                maps.append(x)
                fresh = False
        return maps


class Vgg19:
    """models.perception.interfaces.PerceptualLossNet. `name` says whether its weights are published ones."""

    def __init__(self, net: Vgg19Layers, name: str) -> None:
        self.name = name
        self._net = net.eval().requires_grad_(False)
        like = next(net.parameters())
        self._mean = torch.tensor(IMAGENET_MEAN, dtype=torch.float32).view(3, 1, 1).to(like)
        self._std = torch.tensor(IMAGENET_STD, dtype=torch.float32).view(3, 1, 1).to(like)

    def configure_inference(self, how: InferenceSettings) -> None:
        """Only the device counts: the training's autocast decides the precision."""
        device = torch.device(how.device)
        self._net = self._net.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._mean, self._std = self._mean.to(device), self._std.to(device)

    def features(self, images: Tensor) -> list[Tensor]:
        """images (B,3,H,W) float, RGB in [0,1], sides of at least 16 px -> relu1_1 (B,64,H,W), relu2_1
        (B,128,H/2,W/2), relu3_1 (B,256,H/4,W/4), relu4_1 (B,512,H/8,W/8), relu5_1 (B,512,H/16,W/16).

        Values outside [0,1] are not clamped. Raises ValueError for smaller images.
        """
        if min(images.shape[-2:]) < MIN_IMAGE_SIDE:
            raise ValueError(
                f"images of {tuple(images.shape[-2:])} pixels: {self.name} needs {MIN_IMAGE_SIDE} a side"
            )
        return self._net((images - self._mean) / self._std)


def load_vgg19(weights: Mapping[str, Path]) -> Vgg19:
    """The net trained on ImageNet. Raises InvalidFile naming missing, unknown and misshapen tensors."""
    net = load_pretrained_net(Vgg19Layers, weights[VGG19_WEIGHTS_ID], VGG19_WEIGHTS_ID, UNUSED_TENSORS)
    assert isinstance(net, Vgg19Layers)
    return Vgg19(net, "vgg19")


def load_random_vgg19(weights: Mapping[str, Path]) -> Vgg19:
    """Untrained weights, the same in every process: normal with He's deviation, biases 0. No file needed.

    Random features still compare edges and textures at five sizes, but not as people do; the name says so.
    """
    with torch.device("meta"):  # draws none of the run's random numbers
        net = Vgg19Layers()
    net, source = net.to_empty(device="cpu"), torch.Generator().manual_seed(RANDOM_WEIGHTS_SEED)
    for layer in net.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=source)
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
    return Vgg19(net, "vgg19_random")
