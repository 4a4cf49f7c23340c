"""VGG16's convolutions, the maps that LPIPS compares in its second variant (Simonyan and Zisserman 2015).

The layers carry torchvision's names, so that its published file is read as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from torch import Tensor, nn

from models.perception.torch_net import load_pretrained_net
from models.perception.vgg19 import vgg_convolutions

VGG16_WEIGHTS_ID = "vgg16"
LAYER_CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
"""Channels of each 3x3 convolution; 0 halves the side."""
TAP_CHANNELS = (64, 128, 256, 512, 512)
TAPS = (3, 8, 15, 22, 29)
"""The last ReLU of each size."""
UNUSED_TENSORS = frozenset(f"classifier.{layer}.{kind}" for layer in (0, 3, 6) for kind in ("weight", "bias"))
"""The rest of torchvision's file."""
MIN_IMAGE_SIDE = 16  # pixels of an image's side that leave one after four halvings


class Vgg16Layers(nn.Module):
    """The convolutional part up to relu5_3, under torchvision's names: features.0 to features.29."""

    def __init__(self) -> None:
        super().__init__()
        self.features = vgg_convolutions(LAYER_CHANNELS)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B,3,H,W), scaled as the weights expect, sides of at least 16 px -> relu1_2 (B,64,H,W), relu2_2
        (B,128,H/2,W/2), relu3_3 (B,256,H/4,W/4), relu4_3 (B,512,H/8,W/8), relu5_3 (B,512,H/16,W/16)."""
        maps = []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in TAPS:
                maps.append(x)
        return maps


def load_vgg16_layers(path: Path) -> Vgg16Layers:
    """Trained on ImageNet. Raises InvalidFile naming missing, unknown and misshapen tensors."""
    return cast("Vgg16Layers", load_pretrained_net(Vgg16Layers, path, VGG16_WEIGHTS_ID, UNUSED_TENSORS))


def check_weights_match_id(_weights_id: str, path: Path) -> None:
    """Whether an imported file is VGG16's; raises InvalidFile."""
    load_vgg16_layers(path)
