"""The lip-sync expert of Wav2Lip (Prajwal et al. 2020): whether the lower half of a face goes with what is
heard, as a cosine.

    faces (B,5,3,48,96), the lower half of faces of 96 px     -> (B,512) of length 1
    mel spectrogram (B,80,16), .2 s of sound, in [-4,4]       -> (B,512) of length 1

All five frames lie in the channels of one picture. The layers carry the names of Rudrabha/Wav2Lip, whose
checkpoint of the expert is read as it is. It serves as a loss (of PIR, optionally): gradient reaches faces
and mel and never the weights.

Mel spectrogram, of sound in [-1,1] at 16 kHz: pre-emphasis .97; |STFT| of 800 samples under a Hann window,
200 apart, centred, the ends mirrored; 80 triangles of Slaney's mel scale and area from 55 to 7600 Hz; dB of
at least -100, less 20; [-100,0] dB onto [-4,4].
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.perception.interfaces import InferenceSettings
from models.perception.torch_net import load_pretrained_net

WAV2LIP_EXPERT_WEIGHTS_ID = "wav2lip_expert"
WINDOW_FRAMES, FACE_HEIGHT, FACE_WIDTH = 5, 48, 96
MEL_BANDS, MEL_COLUMNS = 80, 16
"""Of a window of five frames at 25 fps: .2 s."""
SAMPLE_RATE, FFT_SIZE, HOP_LENGTH = 16_000, 800, 200
MEL_COLUMNS_PER_FRAME = SAMPLE_RATE / HOP_LENGTH / 25
LOWEST_HERTZ, HIGHEST_HERTZ = 55, 7_600
PREEMPHASIS, LEAST_DECIBELS, REFERENCE_DECIBELS, LARGEST_VALUE = 0.97, -100, 20, 4
LINEAR_MEL_HERTZ, LINEAR_MELS, MEL_LOG_STEP = 200 / 3, 15, np.log(6.4) / 27
"""Slaney's scale: 66.7 Hz a mel up to 1 kHz, then 27 mels for a factor of 6.4."""


class ConvBlock(nn.Module):
    """Convolution and batch norm, with the input added where `residual`, then ReLU."""

    def __init__(
        self,
        before: int,
        channels: int,
        kernel: int = 3,
        stride: int | tuple[int, int] = 1,
        padding: int = 1,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Conv2d(before, channels, kernel, stride, padding), nn.BatchNorm2d(channels)
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv_block(x)
        return functional.relu(out + x if self.residual else out)


def _same_size(channels: int, count: int) -> list[ConvBlock]:
    return [ConvBlock(channels, channels, residual=True) for _ in range(count)]


class Wav2LipExpertLayers(nn.Module):
    """Both halves, under the published names."""

    def __init__(self) -> None:
        super().__init__()
        self.face_encoder = nn.Sequential(
            ConvBlock(3 * WINDOW_FRAMES, 32, kernel=7, padding=3),
            ConvBlock(32, 64, kernel=5, stride=(1, 2)), *_same_size(64, 2),
            ConvBlock(64, 128, stride=2), *_same_size(128, 3),
            ConvBlock(128, 256, stride=2), *_same_size(256, 2),
            ConvBlock(256, 512, stride=2), *_same_size(512, 2),
            ConvBlock(512, 512, stride=2), ConvBlock(512, 512, padding=0), ConvBlock(512, 512, 1, padding=0),
        )  # fmt: skip
        self.audio_encoder = nn.Sequential(
            ConvBlock(1, 32), *_same_size(32, 2),
            ConvBlock(32, 64, stride=(3, 1)), *_same_size(64, 2),
            ConvBlock(64, 128, stride=3), *_same_size(128, 2),
            ConvBlock(128, 256, stride=(3, 2)), *_same_size(256, 2),
            ConvBlock(256, 512, padding=0), ConvBlock(512, 512, 1, padding=0),
        )  # fmt: skip


class Wav2LipExpert:
    """A frozen net, in float32."""

    name = "wav2lip_expert"

    def __init__(self, net: Wav2LipExpertLayers) -> None:
        self._net = net.eval().requires_grad_(False)
        self.device = torch.device("cpu")

    def configure_inference(self, how: InferenceSettings) -> None:
        """Only the device counts."""
        self.device = torch.device(how.device)
        self._net = self._net.to(self.device)

    def embed_lips(self, faces: Tensor) -> Tensor:
        """faces (B,5,3,48,96) float32 RGB in [0,1], the lower half of faces of 96 px at 25 fps -> (B,512) of
        length 1"""
        shape = (WINDOW_FRAMES, 3, FACE_HEIGHT, FACE_WIDTH)
        if faces.shape[1:] != shape:
            raise ValueError(f"faces {tuple(faces.shape)}: expected (B,{','.join(map(str, shape))})")
        # The authors' pictures come from OpenCV: BGR.
        maps = self._net.face_encoder(faces.flip(2).flatten(1, 2))
        return functional.normalize(maps.flatten(1), dim=1)

    def embed_speech(self, mel: Tensor) -> Tensor:
        """mel (B,80,16) float32 in [-4,4] -> (B,512) of length 1"""
        if mel.shape[1:] != (MEL_BANDS, MEL_COLUMNS):
            raise ValueError(f"mel {tuple(mel.shape)}: expected (B,{MEL_BANDS},{MEL_COLUMNS})")
        return functional.normalize(self._net.audio_encoder(mel[:, None]).flatten(1), dim=1)


def first_mel_column(frame: int) -> int:
    """Of the window of sound that goes with five frames from `frame` on."""
    return int(MEL_COLUMNS_PER_FRAME * frame)


def mel_spectrogram(sound: np.ndarray) -> np.ndarray:
    """sound (n,) float in [-1,1] at 16 kHz, n > 400 -> (80, 1 + n // 200) float32 in [-4,4]"""
    emphasised = sound.astype(np.float64)
    emphasised[1:] -= PREEMPHASIS * sound[:-1]
    padded = np.pad(emphasised, FFT_SIZE // 2, mode="reflect")
    pieces = np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE)[::HOP_LENGTH]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT_SIZE) / FFT_SIZE)
    amplitude = slaney_mel_filters() @ np.abs(np.fft.rfft(pieces * hann, axis=1)).T
    decibels = 20 * np.log10(np.maximum(10 ** (LEAST_DECIBELS / 20), amplitude)) - REFERENCE_DECIBELS
    scaled = LARGEST_VALUE * (2 * (decibels - LEAST_DECIBELS) / -LEAST_DECIBELS - 1)
    return scaled.clip(-LARGEST_VALUE, LARGEST_VALUE).astype(np.float32)


@cache
def slaney_mel_filters() -> np.ndarray:
    """(80,401): triangles of area 1 over Hz between corners that are equally spaced in Slaney's mel."""
    first, last = (float(_hertz_to_mel(hertz)) for hertz in (LOWEST_HERTZ, HIGHEST_HERTZ))
    corners = _mel_to_hertz(np.linspace(first, last, MEL_BANDS + 2))
    bins = np.arange(FFT_SIZE // 2 + 1) * SAMPLE_RATE / FFT_SIZE
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (right - left)


def _hertz_to_mel(hertz: float) -> float:
    linear = hertz / LINEAR_MEL_HERTZ
    knee = LINEAR_MELS * LINEAR_MEL_HERTZ
    return linear if hertz < knee else LINEAR_MELS + np.log(hertz / knee) / MEL_LOG_STEP


def _mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    knee = LINEAR_MELS * LINEAR_MEL_HERTZ
    return np.where(
        mel < LINEAR_MELS, mel * LINEAR_MEL_HERTZ, knee * np.exp(MEL_LOG_STEP * (mel - LINEAR_MELS))
    )


def load_wav2lip_expert(weights: Mapping[str, Path]) -> Wav2LipExpert:
    """Raises InvalidFile naming missing, unknown and misshapen tensors."""
    net = load_pretrained_net(
        Wav2LipExpertLayers, weights[WAV2LIP_EXPERT_WEIGHTS_ID], WAV2LIP_EXPERT_WEIGHTS_ID
    )
    assert isinstance(net, Wav2LipExpertLayers)
    return Wav2LipExpert(net)
