"""What a model hears while it is driven: speech features of the driving file on the times of its frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines import media
from pipelines.errors import UserError
from pipelines.media import FPS
from pipelines.preprocess.speech import SpeechConfig, encode_speech

if TYPE_CHECKING:
    from models.reenactor import Reenactor
    from pipelines.media.encoding import Timeline

SILENT = 25
"""Frames of silence of which the middle one's features are taken."""


def encoder_of(reenactor: Reenactor) -> SpeechConfig | None:
    """The speech encoder that a model learned with; None for one that hears nothing.

    Transcripts are of the recordings that it learned from, so none is read. Raises ValueError for settings
    that a checkpoint tells and no encoder here has.
    """
    from pydantic import TypeAdapter, ValidationError

    if "speech" not in reenactor.reads:
        return None
    told = dict(reenactor.hears)
    if "encoder" not in told:
        raise UserError("the checkpoint does not tell which speech encoder the model learned with")
    try:
        return replace(TypeAdapter(SpeechConfig).validate_python(told), transcripts="")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"the checkpoint tells of a speech encoder with {where}: {first['msg']}") from None


def heard_at(
    path: Path,
    probed: Mapping[str, Any],
    times: Timeline,
    reenactor: Reenactor,
    nets: Mapping[str, Any],
    device: str,
    say: Callable[[str], None],
) -> np.ndarray | None:
    """What the model hears at each frame of the timeline, (T,A) float32; None of a model that hears nothing.
    A file without sound is silent, and said to be. nets: the encoder by its name, if it is a net.
    """
    settings = encoder_of(reenactor)
    if settings is None:
        return None
    if not probed["audio_rate"]:
        say(f"{path}: no sound: the model hears silence")
        return silence(len(times.shown), reenactor, nets, device)
    if settings.encoder == "headgan" and reenactor.labels.get("tokens") == "transcripts":
        say(f"{path}: no transcript: the model, which learned with letters, hears none")
    count = max(1, math.ceil(times.end * float(times.base) * FPS - 1e-6))
    features = speech_of(media.read_sound(path, probed, 0, count), settings, nets, device)
    return reenactor.heard(features)[rows_of(times, count)]


def silence(frames: int, reenactor: Reenactor, nets: Mapping[str, Any], device: str) -> np.ndarray | None:
    """What the model hears at each frame where there is no sound, (T,A) float32; None of a model that hears
    nothing.

    Features of silence, such as pauses between words have: zeros, which training gives clips without sound,
    mean nothing to a model that never saw such a clip.
    """
    settings = encoder_of(reenactor)
    if settings is None:
        return None
    sound = np.zeros(SILENT * media.SAMPLES_A_FRAME, np.float32)
    row = reenactor.heard(speech_of(sound, settings, nets, device))[SILENT // 2]
    return np.tile(row, (frames, 1))


def speech_of(sound: np.ndarray, settings: SpeechConfig, nets: Mapping[str, Any], device: str) -> np.ndarray:
    """sound (640 N,) float32, 16 kHz -> rows of 40 ms, (N,D) float32, as stage `speech` makes them of a clip
    that long."""
    frames = len(sound) // media.SAMPLES_A_FRAME
    clip = {"__key__": "driving", "sound": sound, "clip": {"frames": frames, "has_sound": True}}
    runtime = SimpleNamespace(gpu_share=int(device == "cuda"))
    config = SimpleNamespace(speech=settings, runtime=runtime)
    (sample,) = encode_speech({"clips": [clip]}, config, nets)
    return sample["speech"].astype(np.float32)


def rows_of(times: Timeline, rows: int) -> np.ndarray:
    """(T,) int: the row in whose 40 ms the middle of each frame lies."""
    begin = np.array(times.shown)
    middle = (begin + np.append(begin[1:], times.end)) / 2 * float(times.base)
    return np.clip(np.floor(middle * FPS + 1e-6).astype(int), 0, rows - 1)
