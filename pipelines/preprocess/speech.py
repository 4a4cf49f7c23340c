"""Stage `speech`: features of a clip's sound on its frame clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.engine.node import Sample

COLUMNS = 4
"""Mel columns a video frame: 10 ms each, 40 ms a frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeechConfig:
    mels: int = 80
    """Bands from 0 to 8 kHz."""
    window_ms: float = 25.0
    """Length of the Hann window; columns are 10 ms apart."""
    context: int = 0
    """Frames on either side whose columns are joined to a frame's own."""

    def __post_init__(self) -> None:
        if not 8 <= self.mels <= 128:
            raise ValueError(f"mels {self.mels}: expected 8 to 128")
        if not 10 <= self.window_ms <= 32:
            raise ValueError(f"window_ms {self.window_ms}: expected 10 to 32")
        if not 0 <= self.context <= 12:
            raise ValueError(f"context {self.context}: expected 0 to 12")


def encode_speech(inputs: Mapping[str, list[Sample]], config: Any, nets: Mapping[str, Any]) -> list[Sample]:
    """Clips -> speech (T,D) float32, D = mels x 4 columns x (1 + 2 context); frame k shows from k/25 to
    (k+1)/25 s."""
    settings = config.speech
    return [
        {
            "__key__": clip["__key__"],
            "speech": frame_features(clip["sound"], clip["clip"]["frames"], settings),
        }
        for clip in inputs["clips"]
    ]


def frame_features(sound: np.ndarray, frames: int, settings: Any) -> np.ndarray:
    """sound (n,) -> (T,D). Beyond the clip's ends the first and last frames are repeated."""
    from models.perception.logmel import HOP, RATE, log_mel

    middle = HOP // 2  # the four columns of a frame lie at 5, 15, 25 and 35 ms of it
    columns = log_mel(
        sound[middle:], frames * COLUMNS, settings.mels, round(settings.window_ms * RATE / 1000)
    )
    rows = columns.reshape(frames, COLUMNS * settings.mels)
    padded = np.pad(rows, ((settings.context, settings.context), (0, 0)), mode="edge")
    return np.concatenate([padded[at : at + frames] for at in range(2 * settings.context + 1)], axis=1)
