"""AlexNet's five convolutions, the maps that LPIPS compares (Krizhevsky 2014, arXiv 1404.5997: one column).

The layers carry torchvision's names, so that its published file is read as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from torch import Tensor, nn

from models.perception.torch_net import load_pretrained_net

ALEXNET_WEIGHTS_ID = "alexnet"
TAP_CHANNELS = (64, 192, 384, 256, 256)
UNUSED_TENSORS = frozenset(f"classifier.{layer}.{kind}" for layer in (1, 4, 6) for kind in ("weight", "bias"))
"""The rest of torchvision's file."""
MIN_IMAGE_SIDE = 31  # pixels of an image's side that leave one after both poolings


class AlexNetLayers(nn.Module):
    """The convolutional part up to relu5, under torchvision's names: features.0 to features.11."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B,3,H,W), scaled as the weights expect, sides of at least 31 px -> the map after each ReLU: of 256
        px (B,64,63,63), (B,192,31,31), (B,384,15,15), (B,256,15,15), (B,256,15,15)."""
        maps = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                maps.append(x)
        return maps


def load_alexnet_layers(path: Path) -> AlexNetLayers:
    """Trained on ImageNet. Raises InvalidFile naming missing, unknown and misshapen tensors."""
    return cast("AlexNetLayers", load_pretrained_net(AlexNetLayers, path, ALEXNET_WEIGHTS_ID, UNUSED_TENSORS))


def check_weights_match_id(_weights_id: str, path: Path) -> None:
    """Whether an imported file is AlexNet's; raises InvalidFile."""
    load_alexnet_layers(path)
