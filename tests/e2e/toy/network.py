import torch.nn.functional as F
from torch import Tensor, nn


class Toy(nn.Module):
    """An image is a source image plus what four numbers add to it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * size**2, 4))
        self.generator = nn.Sequential(nn.Linear(4, 3 * size**2), nn.Unflatten(1, (3, size, size)))
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(3 * size**2, 1))


def images(frames: Tensor, size: int) -> Tensor:
    """(B,S,S,3) uint8 -> (B,3,size,size) in [0,1]"""
    return F.interpolate(frames.permute(0, 3, 1, 2).float() / 255, (size, size), mode="area")
