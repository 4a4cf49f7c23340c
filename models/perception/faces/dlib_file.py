"""The file of dlib's face embedding, read without dlib: dlib_face_recognition_resnet_model_v1.dat.

dlib nests the templates of a net, but the parts that hold numbers come in order from the input to the
output, each behind its name. An integer is one byte (low 4 bits: how many bytes follow, bit 7: negative) and
those bytes, the lowest first; a float is two integers, mantissa and exponent of 2; a tensor is its version
(2), four integers (samples, channels, rows, columns) and raw float32.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.errors import InvalidFile

FILE_NAME, FILE_SIZE = "dlib_face_recognition_resnet_model_v1.dat", 22_466_066
LAYER_NAMES = ("input_rgb_image_sized", "con_4", "affine_", "fc_2")
_LAYER_PATTERN = re.compile(b"|".join(bytes([1, len(name)]) + name.encode() for name in LAYER_NAMES))
"""A name with its length before it."""
TENSOR_VERSION = 2
IMAGE_SIDE, FEATURES, EMBEDDING_SIZE = 150, 256, 128


class ConvolutionShape(NamedTuple):
    before: int
    """Channels that come in."""
    channels: int
    """Channels that go out."""
    kernel: int
    stride: int
    padding: int


class ResidualLevel(NamedTuple):
    channels: int
    blocks: int
    halves: bool
    """Whether the first block halves the side."""


LEVELS = (
    ResidualLevel(32, 3, False),
    ResidualLevel(64, 4, True),
    ResidualLevel(128, 3, True),
    ResidualLevel(256, 3, True),
    ResidualLevel(256, 1, True),
)
STEM_SHAPE = ConvolutionShape(3, 32, 7, 2, 0)


def residual_block_shapes() -> list[tuple[ConvolutionShape, ConvolutionShape]]:
    """The two convolutions of each of the 14 blocks. One that halves the side pads nothing in the first."""
    shapes, before = [], STEM_SHAPE.channels
    for level in LEVELS:
        for block in range(level.blocks):
            stride, padding = (2, 0) if level.halves and block == 0 else (1, 1)
            first = ConvolutionShape(before, level.channels, 3, stride, padding)
            shapes.append((first, ConvolutionShape(level.channels, level.channels, 3, 1, 1)))
            before = level.channels
    return shapes


class DlibConvolution(NamedTuple):
    """Numbers of a convolution and of the affine layer behind it."""

    weight: np.ndarray
    """(channels,before,k,k) float32"""
    bias: np.ndarray
    """(channels,) float32"""
    scale: np.ndarray
    """(channels,) float32: of each channel of what the convolution gives."""
    shift: np.ndarray
    """(channels,) float32: what is added then."""


class DlibResnetNumbers(NamedTuple):
    """What the file holds."""

    mean: tuple[float, float, float]
    """Red, green and blue, 0..255, that are taken off the pixels."""
    convolutions: tuple[DlibConvolution, ...]
    """29: the stem and two of each block."""
    projection: np.ndarray
    """(256,128) float32: features @ projection is the embedding."""


def read_dlib_resnet(path: Path) -> DlibResnetNumbers:
    """Raises InvalidFile for every other file, and for this one cut short or of changed structure."""
    data = path.read_bytes()
    found = [(match.group()[2:].decode(), match.end()) for match in _LAYER_PATTERN.finditer(data)]
    shapes = [STEM_SHAPE, *(shape for pair in residual_block_shapes() for shape in pair)]
    names = [name for name, _ in found]
    wanted = ["input_rgb_image_sized", *["con_4", "affine_"] * len(shapes), "fc_2"]
    if names != wanted or len(data) != FILE_SIZE:
        raise InvalidFile(
            f"{path}: {len(data):,} bytes with {names.count('con_4')} convolutions, "
            f"{names.count('affine_')} affine and {names.count('fc_2')} linear layers; expected "
            f"{FILE_SIZE:,} bytes with {len(shapes)}, {len(shapes)} and 1. Is it {FILE_NAME}, whole and "
            "unchanged?"
        )
    begins = [begin for _, begin in found]
    head = _DlibReader(path, data, begins[0])
    mean = head.read_float(), head.read_float(), head.read_float()
    head.expect_integers("the sides of the input", IMAGE_SIDE, IMAGE_SIDE)
    convolutions = [
        _read_convolution(
            _DlibReader(path, data, begins[1 + 2 * n]), _DlibReader(path, data, begins[2 + 2 * n]), shape
        )
        for n, shape in enumerate(shapes)
    ]
    linear = _DlibReader(path, data, begins[-1])
    linear.expect_integers("the sides of the linear layer", EMBEDDING_SIZE, FEATURES)
    projection = linear.read_tensor(FEATURES * EMBEDDING_SIZE).reshape(FEATURES, EMBEDDING_SIZE)
    return DlibResnetNumbers(mean, tuple(convolutions), projection)


def _read_convolution(
    convolution: _DlibReader, affine: _DlibReader, shape: ConvolutionShape
) -> DlibConvolution:
    n, k = shape.channels, shape.kernel
    numbers = convolution.read_tensor(n * shape.before * k * k + n)
    convolution.expect_integers(
        "channels, kernel, stride and padding of the convolution",
        n, k, k, shape.stride, shape.stride, shape.padding, shape.padding,
    )  # fmt: skip
    scale, shift = affine.read_tensor(2 * n).reshape(2, n)
    return DlibConvolution(numbers[:-n].reshape(n, shape.before, k, k), numbers[-n:], scale, shift)


class _DlibReader:
    """dlib's numbers, one after another."""

    def __init__(self, path: Path, data: bytes, at: int) -> None:
        self._path, self._data, self._at = path, data, at

    def read_integer(self) -> int:
        begin = self._at
        head = self._take(1)[0]
        size = head & 15
        if head & 0x70 or not 1 <= size <= 8:
            raise self._error(f"{head:#04x} at byte {begin:,} begins no integer")
        value = int.from_bytes(self._take(size), "little")
        return -value if head & 0x80 else value

    def read_float(self) -> float:
        begin = self._at
        mantissa, exponent = self.read_integer(), self.read_integer()
        if abs(exponent) > 64:
            raise self._error(f"the float at byte {begin:,} has the exponent {exponent}, expected -64 to 64")
        return mantissa * 2.0**exponent

    def expect_integers(self, what: str, *expected: int) -> None:
        begin = self._at
        found = tuple(self.read_integer() for _ in expected)
        if found != expected:
            raise self._error(f"{what} at byte {begin:,}: {found}, expected {expected}")

    def read_tensor(self, size: int) -> np.ndarray:
        """(size,) float32, all finite."""
        begin = self._at
        self.expect_integers("the version of the tensor", TENSOR_VERSION)
        shape = tuple(self.read_integer() for _ in range(4))
        if min(shape) < 1 or math.prod(shape) != size:
            raise self._error(f"the tensor at byte {begin:,} has shape {shape}, expected {size:,} numbers")
        numbers = np.frombuffer(self._take(4 * size), "<f4").astype(np.float32)
        if not np.isfinite(numbers).all():
            raise self._error(f"the tensor at byte {begin:,} holds numbers that are not finite")
        return numbers

    def _take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise self._error(f"{count:,} bytes from byte {self._at:,} on reach beyond its end")
        self._at += count
        return self._data[self._at - count : self._at]

    def _error(self, problem: str) -> InvalidFile:
        return InvalidFile(f"{self._path}: {problem}. Is it {FILE_NAME}, whole and unchanged?")
