"""Audio features of the driving file at the times of its frames, for models that are driven by sound too."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from pipelines import media
from pipelines.cluster.runtime import RuntimeConfig
from pipelines.errors import UserError
from pipelines.media import FPS
from pipelines.preprocess.speech import SpeechFeaturesConfig, encode_speech
from pipelines.runs.setting_values import SettingError, convert_settings

if TYPE_CHECKING:
    from models.reenactor import Reenactor
    from pipelines.animate.perception import PerceptionNets
    from pipelines.media.encoding import FrameTimeline
    from pipelines.media.probe_schema import Probe

ENCODED_SILENCE_FRAMES = 25
"""Frames of silence that are encoded; the features of the middle one are used."""


def trained_speech_config(reenactor: Reenactor) -> SpeechFeaturesConfig | None:
    """Settings of the speech encoder that a model was trained with; None for a model that reads no speech.

    Transcripts belong to the training recordings, so none is read. UserError for settings in a checkpoint
    that no encoder here has.
    """
    if "audio_features" not in reenactor.reads:
        return None
    settings = dict(reenactor.speech_settings)
    if "encoder" not in settings:
        raise UserError("the checkpoint does not name the speech encoder that the model was trained with")
    try:
        return replace(convert_settings(settings, SpeechFeaturesConfig), transcripts="")
    except SettingError as error:
        raise UserError(f"the checkpoint's speech encoder has {error}") from None


def audio_features_at(
    path: Path,
    probed: Probe,
    times: FrameTimeline,
    reenactor: Reenactor,
    nets: PerceptionNets,
    log: Callable[[str], None],
) -> np.ndarray | None:
    """Audio features at each frame of the timeline, (T,A) float32; None for a model that reads no speech. A
    file without sound counts as silent, which is logged.
    """
    settings = trained_speech_config(reenactor)
    if settings is None:
        return None
    if not probed["audio_rate"]:
        log(f"{path}: no sound: the model hears silence")
        return silence_features(len(times.stamps), reenactor, nets)
    if settings.encoder == "headgan" and reenactor.provenance.get("tokens") == "transcripts":
        log(f"{path}: no transcript: the model, which learned with letters, hears none")
    count = max(1, math.ceil(times.end * float(times.base) * FPS - 1e-6))
    features = compute_speech_features(media.read_sound(path, probed, 0, count), settings, nets)
    return reenactor.audio_features_from_speech(features)[feature_row_indices(times, count)]


def silence_features(frames: int, reenactor: Reenactor, nets: PerceptionNets) -> np.ndarray | None:
    """Audio features of frames without sound, (T,A) float32; None for a model that reads no speech.

    They are features of silence, as in pauses between words: zeros, which training gives clips without sound,
    are unknown to a model that never saw such a clip.
    """
    settings = trained_speech_config(reenactor)
    if settings is None:
        return None
    sound = np.zeros(ENCODED_SILENCE_FRAMES * media.SAMPLES_PER_FRAME, np.float32)
    row = reenactor.audio_features_from_speech(compute_speech_features(sound, settings, nets))[
        ENCODED_SILENCE_FRAMES // 2
    ]
    return np.tile(row, (frames, 1))


def compute_speech_features(
    sound: np.ndarray, settings: SpeechFeaturesConfig, nets: PerceptionNets
) -> np.ndarray:
    """sound (640 N,) float32, 16 kHz -> rows of 40 ms, (N,D) float32, as stage `speech` computes them."""
    frames = len(sound) // media.SAMPLES_PER_FRAME
    clip = {"__key__": "driving", "sound": sound, "clip": {"frames": frames, "has_sound": True}}
    runtime = RuntimeConfig(gpu_share=float(nets.device == "cuda"))
    (sample,) = encode_speech({"clips": [clip]}, settings, nets.others, runtime)
    return sample["speech"].astype(np.float32)


def feature_row_indices(times: FrameTimeline, rows: int) -> np.ndarray:
    """(T,) int: the row in whose 40 ms the middle of each frame lies."""
    begin = np.array(times.stamps)
    middle = (begin + np.append(begin[1:], times.end)) / 2 * float(times.base)
    return np.clip(np.floor(middle * FPS + 1e-6).astype(int), 0, rows - 1)
