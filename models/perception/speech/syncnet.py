"""SyncNet (Chung and Zisserman 2016): how well the lips of five frames go with a fifth of a second of sound.

    faces (B,T,3,224,224) -> lips (B,T-4,1024)     window t: frames t to t+4
    MFCC (B,C,13)         -> sound (B,W,1024)      window t: columns 4t to 4t+19, W = (C - 20) // 4 + 1

Window t of either begins at second t / 25; what belongs together lies close together. The layers carry the
names of joonson/syncnet_python, whose `syncnet_v2.model` is read as it is. Gradient reaches faces and MFCC
and never the weights, so that the net serves as a loss as well.

The lips' net sees five frames in its first layer alone: all windows go through it as one longer clip, and the
numbers are those of window after window.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.perception.interfaces import InferenceSettings
from models.perception.speech.mfcc import MFCC_COEFFICIENTS, mfcc
from models.perception.torch_net import load_pretrained_net

SYNCNET_WEIGHTS_ID = "syncnet"
FACE_SIDE = 224
"""Pixels of a face's side."""
WINDOW_FRAMES = 5
MFCC_COLUMNS, MFCC_COLUMNS_PER_FRAME = 20, 4
"""Of a window, and from a window to the next."""
EMBEDDING_SIZE, TRUNK_SIZE = 1024, 512
SAMPLES_PER_FRAME = 640
INT16_SCALE = 32_768  # of 16 bit sound that was read as floats in [-1,1]


def _conv(make: type[nn.Module], norm: type[nn.Module], *shape: object, **more: object) -> list[nn.Module]:
    """Convolution, batch norm, ReLU; the channels that come out are the second number."""
    return [make(*shape, **more), norm(shape[1]), nn.ReLU(inplace=True)]


def _conv2d(
    before: int, channels: int, kernel: int | tuple[int, int] = 3, padding: int = 1
) -> list[nn.Module]:
    return _conv(nn.Conv2d, nn.BatchNorm2d, before, channels, kernel, padding=padding)


def _conv3d(
    before: int, channels: int, kernel: tuple[int, int, int], stride: int = 1, padding: int = 0
) -> list[nn.Module]:
    """stride and padding: of height and width."""
    at = {"stride": (1, stride, stride), "padding": (0, padding, padding)}
    return _conv(nn.Conv3d, nn.BatchNorm3d, before, channels, kernel, **at)


def _spatial_max_pool(padding: int = 0) -> nn.MaxPool3d:
    return nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, padding, padding))


def _embedding_layers() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(TRUNK_SIZE, TRUNK_SIZE),
        nn.BatchNorm1d(TRUNK_SIZE),
        nn.ReLU(),
        nn.Linear(TRUNK_SIZE, EMBEDDING_SIZE),
    )


class SyncNetLayers(nn.Module):
    """Both halves, under the published names: netcnnlip, netfclip, netcnnaud, netfcaud."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_conv2d(1, 64), nn.MaxPool2d(1, 1),
            *_conv2d(64, 192), nn.MaxPool2d(3, (1, 2)),
            *_conv2d(192, 384), *_conv2d(384, 256), *_conv2d(256, 256), nn.MaxPool2d(3, 2),
            *_conv2d(256, TRUNK_SIZE, (5, 4), padding=0),
        )  # fmt: skip
        self.netfcaud = _embedding_layers()
        self.netcnnlip = nn.Sequential(
            *_conv3d(3, 96, (5, 7, 7), stride=2), _spatial_max_pool(),
            *_conv3d(96, 256, (1, 5, 5), stride=2, padding=1), _spatial_max_pool(padding=1),
            *_conv3d(256, 256, (1, 3, 3), padding=1), *_conv3d(256, 256, (1, 3, 3), padding=1),
            *_conv3d(256, 256, (1, 3, 3), padding=1), _spatial_max_pool(),
            *_conv3d(256, TRUNK_SIZE, (1, 6, 6)),
        )  # fmt: skip
        self.netfclip = _embedding_layers()

    def embed_lips(self, faces: Tensor) -> Tensor:
        """(B,3,T,224,224) float32 BGR in 0..255, T >= 5 -> (B,T-4,1024)"""
        maps = self.netcnnlip(faces)  # (B, 512, T-4, 1, 1)
        windows = maps.flatten(2).transpose(1, 2)  # (B, T-4, 512)
        return self.netfclip(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])

    def embed_speech(self, windows: Tensor) -> Tensor:
        """(N,1,13,20) -> (N,1024)"""
        return self.netfcaud(self.netcnnaud(windows).flatten(1))


class SyncNet:
    """A frozen net, in float32."""

    name = "syncnet"

    def __init__(self, net: SyncNetLayers) -> None:
        self._net = net.eval().requires_grad_(False)
        self.device = torch.device("cpu")

    def configure_inference(self, how: InferenceSettings) -> None:
        """Only the device counts: distances of embeddings are small beside what bfloat16 would round."""
        self.device = torch.device(how.device)
        self._net = self._net.to(self.device)

    def embed_lips(self, faces: Tensor) -> Tensor:
        """faces (B,T,3,224,224) float32 RGB in [0,1], 25 fps -> (B,T-4,1024): row t of frames t to t+4, not
        normalised. ValueError for fewer than five frames or another size."""
        if faces.ndim != 5 or faces.shape[1] < WINDOW_FRAMES or faces.shape[2:] != (3, FACE_SIDE, FACE_SIDE):
            raise ValueError(
                f"faces {tuple(faces.shape)}: expected (B,T,3,{FACE_SIDE},{FACE_SIDE}), T >= {WINDOW_FRAMES}"
            )
        return self._net.embed_lips(255 * faces.flip(2).transpose(1, 2))

    def embed_speech(self, coefficients: Tensor) -> Tensor:
        """MFCC (B,C,13) float32, 100 columns a second, of sound in the units of 16 bit integers ->
        (B,W,1024): row t of columns 4t to 4t+19, not normalised. ValueError for fewer than 20 columns."""
        if coefficients.ndim != 3 or coefficients.shape[1] < MFCC_COLUMNS:
            raise ValueError(
                f"MFCC {tuple(coefficients.shape)}: expected (B,C,{MFCC_COEFFICIENTS}), C >= {MFCC_COLUMNS}"
            )
        windows = coefficients.unfold(1, MFCC_COLUMNS, MFCC_COLUMNS_PER_FRAME)  # (B, W, 13, 20)
        return self._net.embed_speech(windows.flatten(0, 1)[:, None]).unflatten(0, windows.shape[:2])


def count_windows(frames: int, samples: int) -> int:
    """Windows that the authors' evaluation takes of a clip: one less than would fit into it, at least 0."""
    return max(0, min(frames, samples // SAMPLES_PER_FRAME) - WINDOW_FRAMES)


def speech_coefficients(sound: np.ndarray) -> np.ndarray:
    """sound (n,) float32 in [-1,1] at 16 kHz, n > 0 -> MFCC (C,13) float32 of it as 16 bit integers."""
    integers = np.clip(np.round(sound.astype(np.float64) * INT16_SCALE), -INT16_SCALE, INT16_SCALE - 1)
    return mfcc(integers).astype(np.float32)


def load_syncnet(weights: Mapping[str, Path]) -> SyncNet:
    """Raises InvalidFile naming missing, unknown and misshapen tensors."""
    net = load_pretrained_net(SyncNetLayers, weights[SYNCNET_WEIGHTS_ID], SYNCNET_WEIGHTS_ID)
    assert isinstance(net, SyncNetLayers)
    return SyncNet(net)
