"""Log-mel features of 16 kHz speech, ten milliseconds apart: the speech encoder that needs no weights.

X[t,f] = |sum_n w[n] x[hop t + n - window/2] exp(-2 pi i f n / fft)|^2, w = Hann
M[t,m] = log(sum_f B[m,f] X[t,f] + 1e-6), B = triangles of area 1 whose corners are equally spaced in mel,
mel(f) = 2595 log10(1 + f / 700) from 0 to 8 kHz. Column t is centred on second t / 100.
"""

from __future__ import annotations

from functools import cache

import numpy as np

SAMPLE_RATE = 16_000
HOP_LENGTH = 160
FFT_SIZE = 512
LOG_FLOOR = 1e-6


def log_mel(sound: np.ndarray, columns: int, mels: int, window: int = 400) -> np.ndarray:
    """sound (n,) float32 -> (columns, mels) float32; silence before its start and after its end."""
    padded = np.zeros((columns - 1) * HOP_LENGTH + window, np.float32)
    begin = window // 2
    inside = sound[: max(0, len(padded) - begin)]
    padded[begin : begin + len(inside)] = inside
    pieces = np.lib.stride_tricks.sliding_window_view(padded, window)[::HOP_LENGTH]
    # periodic Hann, as every STFT since librosa
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    power = np.abs(np.fft.rfft(pieces * hann, FFT_SIZE, axis=1)) ** 2
    return np.log(power @ mel_filter_bank(mels).T + LOG_FLOOR).astype(np.float32)


@cache
def mel_filter_bank(mels: int) -> np.ndarray:
    """(mels, FFT/2+1) float64 triangles, each of area 1 over frequency in units of 1 / RATE."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, mels + 2) / 2595) - 1)
    bins = np.arange(FFT_SIZE // 2 + 1) * SAMPLE_RATE / FFT_SIZE
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (right - left) * SAMPLE_RATE
