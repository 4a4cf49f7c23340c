"""Mel-frequency cepstral coefficients as the package python_speech_features 0.6 computes them by default:
what SyncNet hears.

    x'[n] = x[n] - .97 x[n-1];  25 ms of it every 10 ms, no window function;  P = |FFT|^2 / 512, of 512
    E[m] = log(sum of P under triangle m), 26 of height 1, corners equally spaced in 2595 log10(1 + f / 700)
    c[k] = (1 + 11 sin(pi k / 22)) DCT-II(E)[k], k < 13;  c[0] = log(sum of P)

Corners lie on whole bins of the FFT. Numbers are float64.
"""

from __future__ import annotations

from functools import cache

import numpy as np

SAMPLE_RATE = 16_000
MFCC_HOP = 160
"""Samples from a column to the next: 10 ms, four columns a frame at 25 fps."""
MFCC_WINDOW, MFCC_FFT = 400, 512
MFCC_COEFFICIENTS, MEL_BANDS, LIFTER = 13, 26, 22
PREEMPHASIS = 0.97
_LEAST = np.finfo(np.float64).eps
"""Stands for a power of 0, whose logarithm there is none of."""


def mfcc(samples: np.ndarray) -> np.ndarray:
    """samples (n,) at 16 kHz, n > 0, in the units of 16 bit integers -> (1 + ceil((n - 400) / 160), 13): the
    last window is filled up with zeros, and sound of up to 400 samples has one."""
    signal = samples.astype(np.float64)
    if signal.ndim != 1 or not len(signal):
        raise ValueError(f"samples {signal.shape}: expected (n,) with n > 0")
    emphasised = np.concatenate([signal[:1], signal[1:] - PREEMPHASIS * signal[:-1]])
    columns = 1 + max(0, -(-(len(signal) - MFCC_WINDOW) // MFCC_HOP))
    padded = np.zeros((columns - 1) * MFCC_HOP + MFCC_WINDOW)
    padded[: len(signal)] = emphasised
    pieces = np.lib.stride_tricks.sliding_window_view(padded, MFCC_WINDOW)[::MFCC_HOP]
    power = np.abs(np.fft.rfft(pieces, MFCC_FFT, axis=1)) ** 2 / MFCC_FFT  # (columns, 257)
    bands = np.log(_never_zero(power @ _mel_triangles().T))
    lifter = 1 + LIFTER / 2 * np.sin(np.pi * np.arange(MFCC_COEFFICIENTS) / LIFTER)
    cepstra = bands @ _dct_matrix().T * lifter
    cepstra[:, 0] = np.log(_never_zero(power.sum(1)))
    return cepstra


def _never_zero(power: np.ndarray) -> np.ndarray:
    return np.where(power == 0, _LEAST, power)


@cache
def _mel_triangles() -> np.ndarray:
    """(26,257): from one whole bin up to the next and down to the one after."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, MEL_BANDS + 2) / 2595) - 1)
    corners = np.floor((MFCC_FFT + 1) * hertz / SAMPLE_RATE).astype(int)
    triangles = np.zeros((MEL_BANDS, MFCC_FFT // 2 + 1))
    for band, (left, centre, right) in enumerate(zip(corners, corners[1:], corners[2:], strict=False)):
        rising, falling = np.arange(left, centre), np.arange(centre, right)
        triangles[band, rising] = (rising - left) / (centre - left)
        triangles[band, falling] = (right - falling) / (right - centre)
    return triangles


@cache
def _dct_matrix() -> np.ndarray:
    """(13,26): the first rows of the orthonormal DCT-II."""
    k, m = np.arange(MFCC_COEFFICIENTS)[:, None], np.arange(MEL_BANDS)
    matrix = np.sqrt(2 / MEL_BANDS) * np.cos(np.pi * k * (2 * m + 1) / (2 * MEL_BANDS))
    matrix[0] /= np.sqrt(2)
    return matrix
