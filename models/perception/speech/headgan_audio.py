"""What HeadGAN hears at a frame: 84 statistics of the sound around it and 8 characters of its transcript, 300
numbers, written from their formulas.

Short frames: x of N samples, half a video frame long, 16 of them begin in a video frame. K = N // 2 bins,
X = |FFT(x)|[:K] / K, e = 1e-8. Each gives 21 features and their change since the short frame before:

    zero crossings   sum |diff(sign x)| / 2 / (N - 1)
    energy           mean x^2
    energy entropy   -sum s log2(s + e), s = energies of 10 blocks / (all + e)
    centroid, spread of the frequencies (i + 1) fs / (2 K), weights X / max X; over fs / 2
    spectral entropy as the energy's, of X
    flux             sum (X / sum(X + e) - the same before)^2, 0 at first
    roll-off         first bin below which more than 90 % of sum X^2 lies, over K
    13 MFCC          of 40 triangles on X: 13 centres 66.7 Hz apart from 133 Hz, 27 by factors of 1.0711703

A video frame has the means, then the standard deviations, of the 42 over 8 frames of sound. The authors' 8
frames begin at the frame (`official`); ours lie about its middle (`centred`), so that what is heard ahead and
behind is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

AudioAlignment = Literal["centred", "official"]

SHORT_TERM_FEATURE_COUNT = 21
LOW_LEVEL_AUDIO_SIZE = 4 * SHORT_TERM_FEATURE_COUNT
"""Means and deviations of the short features and of their changes."""
CHARACTER_CLASSES, WINDOW_TOKENS = 27, 8
FEATURE_SIZE = LOW_LEVEL_AUDIO_SIZE + CHARACTER_CLASSES * WINDOW_TOKENS
HOPS_PER_VIDEO_FRAME = 16
"""Short frames that begin in a video frame."""
HOPS_PER_AUDIO_SPAN = 8 * HOPS_PER_VIDEO_FRAME
AUDIO_LEAD_HOPS = {"official": 0, "centred": 60}
"""Short frames by which a video frame's span begins before it. 60: the span's sound, 8 frames and a little,
then lies about the frame's middle to 20 samples."""
ASR_CHARACTER_FRAME_OFFSETS = {"official": 5, "centred": 1}
"""Frames after its number at which a frame's character is looked up. With the window from n - 4 to n + 3 the
8 are those of n + 1 ... n + 8, or at 3.5, 2.5, ... frames on either side of the frame's middle."""
SHORT_FRAMES_PER_PASS = 4096
"""Short frames in one pass: 10 MB."""
_E = 1e-8


@dataclass(frozen=True, slots=True)
class CharacterOnset:
    character: str
    start: float
    """Seconds from the clip's first frame; it holds until the next one starts."""


def compute_headgan_audio_features(
    sound: np.ndarray,
    frames: int,
    tokens: Sequence[CharacterOnset] = (),
    align: AudioAlignment = "centred",
    fps: float = 25.0,
) -> np.ndarray:
    """sound (n,) float in [-1,1], 16 kHz -> (frames,300) float32: 84 statistics, then 8 one-hots of 27.

    No tokens: all are of class 26, which stands for all that is not a letter.
    """
    low = low_level_audio_features(sound, frames, 16_000, fps, align)
    letters = encode_one_hot(stack_frame_windows(frame_character_classes(tokens, frames, fps, align)))
    return np.concatenate([low, letters], axis=1).astype(np.float32)


# --- sound --------------------------------------------------------------------------------------------------
def low_level_audio_features(
    sound: np.ndarray, frames: int, rate: int, fps: float = 25.0, align: AudioAlignment = "official"
) -> np.ndarray:
    """sound (n,) float -> (frames,84) float64. Spans are cut at the sound's ends; frames after the last span
    repeat it; a sound too short for one short frame gives zeros.
    """
    short = short_term_features(
        zero_mean_unit_peak(sound), rate, round(rate * 0.5 / fps), round(rate / HOPS_PER_VIDEO_FRAME / fps)
    )
    out = np.zeros((frames, LOW_LEVEL_AUDIO_SIZE))
    for frame in range(frames):
        begin = HOPS_PER_VIDEO_FRAME * frame - AUDIO_LEAD_HOPS[align]
        span = short[max(0, begin) : max(0, begin + HOPS_PER_AUDIO_SPAN)]
        if len(span):
            out[frame] = np.concatenate([span.mean(0), span.std(0)])
        elif frame:
            out[frame] = out[frame - 1]
    return out


def zero_mean_unit_peak(sound: np.ndarray) -> np.ndarray:
    """Without its mean, in units of its largest value."""
    sound = sound.astype(np.float64)
    largest = np.abs(sound).max(initial=0) + 1e-10
    return (sound - sound.mean()) / largest if len(sound) else sound


def short_term_features(sound: np.ndarray, rate: int, size: int, step: int) -> np.ndarray:
    """sound (n,) float64 -> (m,42): features of m short frames of `size` samples, `step` apart, and their
    changes (0 for the first).
    """
    if len(sound) < size:
        return np.zeros((0, 2 * SHORT_TERM_FEATURE_COUNT))
    pieces = np.lib.stride_tricks.sliding_window_view(sound, size)[::step]
    parts, before = [], None
    for first in range(0, len(pieces), SHORT_FRAMES_PER_PASS):
        some = pieces[first : first + SHORT_FRAMES_PER_PASS]
        spectrum = np.abs(np.fft.fft(some, axis=1)[:, : size // 2]) / (size // 2)
        parts.append(_features(some, spectrum, before, rate))
        before = spectrum[-1]
    found = np.concatenate(parts)
    change = np.diff(found, axis=0, prepend=found[:1])
    return np.concatenate([found, change], axis=1)


def _features(x: np.ndarray, spectrum: np.ndarray, before: np.ndarray | None, rate: int) -> np.ndarray:
    """x (m,N), spectrum (m,K), that of the short frame before (K,) -> (m,21)."""
    bins = spectrum.shape[1]
    crossings = np.abs(np.diff(np.sign(x), axis=1)).sum(1) / 2 / (x.shape[1] - 1)
    frequency = (np.arange(bins) + 1) * rate / (2 * bins)
    largest = spectrum.max(1, keepdims=True)
    weight = spectrum / np.where(largest > 0, largest, 1)
    total = weight.sum(1) + _E
    centroid = weight @ frequency / total
    spread = np.sqrt((np.square(frequency - centroid[:, None]) * weight).sum(1) / total)
    share = spectrum / (spectrum + _E).sum(1, keepdims=True)
    first = share[:1] if before is None else before[None] / (before + _E).sum()
    flux = np.square(np.diff(share, axis=0, prepend=first)).sum(1)
    energies = spectrum**2
    below = energies.cumsum(1) + _E > 0.9 * energies.sum(1, keepdims=True)
    columns = [
        crossings, np.square(x).mean(1), _entropy(x), centroid / (rate / 2), spread / (rate / 2),
        _entropy(spectrum), flux, below.argmax(1) / bins,
    ]  # fmt: skip
    return np.concatenate([np.stack(columns, axis=1), _mfcc(spectrum, rate)], axis=1)


def _entropy(values: np.ndarray) -> np.ndarray:
    """values (m,n) -> (m,): how evenly their energy is spread over 10 blocks, in bits."""
    energies, block = np.square(values), values.shape[1] // 10
    parts = energies[:, : 10 * block].reshape(len(values), 10, block).sum(2)
    share = parts / (energies.sum(1, keepdims=True) + _E)
    return -(share * np.log2(share + _E)).sum(1)


def _mfcc(spectrum: np.ndarray, rate: int) -> np.ndarray:
    """(m,K) -> (m,13)."""
    from scipy.fft import dct

    loud = np.log10(spectrum @ mel_filters(rate, spectrum.shape[1]).T + _E)
    return np.asarray(dct(loud, type=2, norm="ortho", axis=1))[:, :13]


@cache
def mel_filters(rate: int, bins: int) -> np.ndarray:
    """(40,bins) float64: triangles of area 1 over frequencies in Hz. Bins are taken as rate / bins apart, as
    in the authors' library, so that bands lie an octave lower than their names say.
    """
    low = 133.33 + 200 / 3 * np.arange(13)
    edges = np.concatenate([low, low[-1] * 1.0711703 ** np.arange(1, 30)])  # (42,)
    bank, frequency = np.zeros((40, bins)), np.arange(bins) * rate / bins
    for i, (lo, centre, hi) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        height = 2 / (hi - lo)
        a, b, c = (int(np.floor(edge * bins / rate)) + 1 for edge in (lo, centre, hi))
        rising, falling = slice(a, min(b, bins)), slice(b, min(c, bins))
        bank[i, rising] = height / (centre - lo) * (frequency[rising] - lo)
        bank[i, falling] = height / (hi - centre) * (hi - frequency[falling])
    return bank


# --- characters ---------------------------------------------------------------------------------------------
def character_class_index(character: str) -> int:
    """a to z -> 0 to 25, all else 26."""
    return (
        ord(character) - ord("a")
        if len(character) == 1 and "a" <= character <= "z"
        else CHARACTER_CLASSES - 1
    )


def frame_character_classes(
    tokens: Sequence[CharacterOnset], frames: int, fps: float, align: AudioAlignment
) -> np.ndarray:
    """tokens in order of time -> (frames,) int64: the class that each frame looks up; 26 before the first."""
    starts = np.array([token.start for token in tokens])
    classes = np.array([CHARACTER_CLASSES - 1, *(character_class_index(token.character) for token in tokens)])
    at = (np.arange(frames) + ASR_CHARACTER_FRAME_OFFSETS[align]) / fps
    return classes[np.searchsorted(starts, at, side="right")]


def stack_frame_windows(values: np.ndarray) -> np.ndarray:
    """values (T,) -> (T,8): those of frames n-4 to n+3, the ends repeated."""
    near = np.arange(len(values))[:, None] + np.arange(-4, 4)
    return values[np.clip(near, 0, len(values) - 1)]


def encode_one_hot(classes: np.ndarray) -> np.ndarray:
    """classes (T,8) -> (T,216) float32."""
    return np.eye(CHARACTER_CLASSES, dtype=np.float32)[classes].reshape(len(classes), -1)
