"""dlib's 128-d face embedding in torch: batched, on CPU and GPU, with gradient to pixels and points.

The numbers are those of dlib's file, with the scales and shifts behind the convolutions folded into them; of
the same chip the embedding is dlib's to 1e-6. Two pictures of one person are some 0.24 apart (L2), of two
people 0.83; at dlib's own threshold of 0.6 some 5 % of pairs of people pass for one, more among faces unlike
those it was trained on. Never call it CSIM.
Legend: B faces, H, W sides of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.perception.faces.dlib_file import (
    EMBEDDING_SIZE,
    FEATURES,
    IMAGE_SIDE,
    STEM_SHAPE,
    ConvolutionShape,
    DlibConvolution,
    DlibResnetNumbers,
    read_dlib_resnet,
    residual_block_shapes,
)
from models.perception.faces.face_crops import CropSquares, sample_crops
from models.perception.interfaces import InferenceSettings
from models.perception.torch_net import TorchNet

DLIB_RESNET_WEIGHTS_ID = "dlib_resnet"
CHIP_POINTS = (
    (0.8595674595992, 0.2134981538014),
    (0.6460604764104, 0.2289674387677),
    (0.1205750620789, 0.2137274526848),
    (0.3340850613712, 0.2290642403242),
    (0.4901123135679, 0.6277975316475),
)
"""Where dlib's chip has the five points, in a unit square that CHIP_PADDING surrounds: the eye at the image's
right, outer and inner corner, the one at its left, outer and inner corner, and the base of the nose."""
CHIP_PADDING = 0.25  # dlib's: on each side, of the unit square
FIVE_OF_68_LANDMARKS = (45, 42, 36, 39, 33)
"""The five points among iBUG's 68 landmarks."""
FIVE_OF_MESH_VERTICES = (263, 362, 33, 133, 2)
"""The five points among MediaPipe's 468 mesh vertices."""


def face_chip_squares(points: Tensor) -> CropSquares:
    """points (B,5,2), pixels, in the order of CHIP_POINTS -> where the chips lie: the similarity that brings
    CHIP_POINTS nearest to the points, least squares in the image.

    Gradient reaches the points.
    """
    chip = torch.tensor(CHIP_POINTS, dtype=points.dtype, device=points.device)
    middle, mean = chip.mean(0), points.mean(1)  # (2,), (B,2)
    u, v = (chip - middle).unbind(-1)  # (5,)
    x, y = (points - mean[:, None]).unbind(-1)  # (B,5)
    spread = (u * u + v * v).sum()
    a, b = (u * x + v * y).sum(1) / spread, (u * y - v * x).sum(1) / spread  # scale times cosine, sine
    dx, dy = (0.5 - middle).unbind()  # from the points' mean to the chip's centre
    centre = mean + torch.stack([a * dx - b * dy, b * dx + a * dy], dim=1)
    return CropSquares(centre, torch.hypot(a, b) * (1 + 2 * CHIP_PADDING), torch.atan2(b, a))


def face_chips(images: Tensor, points: Tensor) -> Tensor:
    """images (B,3,H,W) float, points (B,5,2) pixels, in the order of CHIP_POINTS -> (B,3,150,150): faces in
    one place, of one size, upright; outside an image its border is repeated.

    Gradient reaches the images, and the points of faces up to 300 px.
    """
    return sample_crops(images, face_chip_squares(points), IMAGE_SIDE)


class ResidualBlock(nn.Module):
    def __init__(self, shapes: tuple[ConvolutionShape, ConvolutionShape]) -> None:
        super().__init__()
        self.first, self.second = convolution(shapes[0]), convolution(shapes[1])
        self.halves = shapes[0].stride == 2

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,h,w) -> (B,C',h',w')"""
        shortcut = functional.avg_pool2d(x, 2) if self.halves else x
        return functional.relu(add_padded(self.second(functional.relu(self.first(x))), shortcut))


def add_padded(one: Tensor, other: Tensor) -> Tensor:
    """The sum of maps that differ in channels and side: dlib fills the smaller up with zeros at the end."""
    sides = [max(a, b) for a, b in zip(one.shape[1:], other.shape[1:], strict=True)]  # C, h, w

    def fill(maps: Tensor) -> Tensor:
        after = [side - has for side, has in zip(sides, maps.shape[1:], strict=True)]
        return functional.pad(maps, (0, after[2], 0, after[1], 0, after[0])) if any(after) else maps

    return fill(one) + fill(other)


def convolution(shape: ConvolutionShape) -> nn.Conv2d:
    return nn.Conv2d(shape.before, shape.channels, shape.kernel, shape.stride, shape.padding)


class DlibResnetLayers(nn.Module):
    """From chips to embeddings."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.empty(3, 1, 1))
        self.stem = convolution(STEM_SHAPE)
        self.blocks = nn.ModuleList(ResidualBlock(shapes) for shapes in residual_block_shapes())
        self.projection = nn.Linear(FEATURES, EMBEDDING_SIZE, bias=False)

    def forward(self, chips: Tensor) -> Tensor:
        """(B,3,150,150), RGB in 0..255 -> (B,128)"""
        x = functional.relu(self.stem((chips - self.mean) / 256))  # (B,32,72,72)
        x = functional.max_pool2d(x, 3, 2)  # (B,32,35,35)
        for block in self.blocks:
            x = block(x)  # sides 35, 17, 8, 4, 2
        return self.projection(x.mean((2, 3)))

    def set_weights(self, numbers: DlibResnetNumbers) -> None:
        """Fill in the file's, with scales and shifts folded into the convolutions."""
        convolutions = [self.stem]
        for block in self.blocks:
            assert isinstance(block, ResidualBlock)
            convolutions += [block.first, block.second]
        for layer, one in zip(convolutions, numbers.convolutions, strict=True):
            fold_affine(layer, one)
        with torch.no_grad():
            self.mean.copy_(torch.tensor(numbers.mean).view(3, 1, 1))
            self.projection.weight.copy_(torch.from_numpy(numbers.projection.T))


def fold_affine(layer: nn.Conv2d, numbers: DlibConvolution) -> None:
    """Set the weights of a convolution to those of dlib's with its affine layer."""
    weight, bias, scale, shift = (torch.from_numpy(one) for one in numbers)
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.copy_(weight * scale.view(-1, 1, 1, 1))
        layer.bias.copy_(bias * scale + shift)


class DlibResnet:
    """The embedding of faces in tensors; images and points lie where `configure_inference` put the net."""

    name = "dlib_resnet"

    def __init__(self, net: DlibResnetLayers) -> None:
        self._net = TorchNet(net.to(memory_format=torch.channels_last))  # pyright: ignore[reportCallIssue]

    def configure_inference(self, how: InferenceSettings) -> None:
        self._net.configure_inference(how)

    def embed_chips(self, chips: Tensor) -> Tensor:
        """chips (B,3,150,150) float, RGB in [0,1], as `face_chips` cuts them -> (B,128) float32: close
        together (L2) for one person. Raises ValueError for chips of another size.
        """
        if tuple(chips.shape[1:]) != (3, IMAGE_SIDE, IMAGE_SIDE):
            raise ValueError(f"chips {tuple(chips.shape)}: expected (B, 3, {IMAGE_SIDE}, {IMAGE_SIDE})")
        return self._net.run_net(chips * 255, len(chips)).float()

    def embed_points(self, images: Tensor, points: Tensor) -> Tensor:
        """images (B,3,H,W), RGB, float in [0,1] or uint8, points (B,5,2) in their pixels, in the order of
        CHIP_POINTS -> (B,128) float32, NaN for faces without points. Gradient reaches images and points.
        """
        squares = face_chip_squares(points.detach())
        seen = (torch.isfinite(squares.side) & (squares.side > 0)).nonzero()[:, 0]
        out = images.new_full((len(images), EMBEDDING_SIZE), torch.nan, dtype=torch.float32)
        if len(seen) == 0:
            return out
        return out.index_copy(0, seen, self.embed_chips(face_chips(images[seen], points[seen])))

    def embed_landmarks(self, images: Tensor, landmarks: Tensor) -> Tensor:
        """As `embed_points`, by iBUG's 68 landmarks (B,68,2)."""
        return self.embed_points(images, landmarks[:, FIVE_OF_68_LANDMARKS])


def load_dlib_resnet(weights: Mapping[str, Path]) -> DlibResnet:
    """Raises InvalidFile for any file but dlib's, whole."""
    net = DlibResnetLayers()
    net.set_weights(read_dlib_resnet(weights[DLIB_RESNET_WEIGHTS_ID]))
    return DlibResnet(net)
