"""Stage `speech`: features of a clip's sound on its frame clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from msgspec import Struct

from models.perception.interfaces import InferenceSettings, SpeechEncoderOptions
from pipelines.engine.node import Inputs
from pipelines.errors import UserError
from storage.shards import Sample
from storage.uris import ExpandedPath

if TYPE_CHECKING:
    from models.perception.interfaces import SpeechEncoder
    from pipelines.cluster.runtime import RuntimeConfig

MEL_COLUMNS_PER_FRAME = 4
"""Mel columns a video frame: 10 ms each, 40 ms a frame."""
SAMPLES_PER_FRAME = 640
FPS = 25
WAV2VEC2_BLOCK_COUNTS = {"wav2vec2_base": 12, "wav2vec2_large": 24}
MAX_BATCH_FRAMES = 2400
"""Frames of clips whose sound is read before a net runs, 96 s or 6 MB: nets are faster on several clips."""


class SpeechFeaturesConfig(Struct, frozen=True, kw_only=True):
    encoder: Literal["log_mel", "headgan", "wav2vec2_base", "wav2vec2_large"] = "log_mel"
    """log_mel and headgan (the features of HeadGAN's authors, 300 a frame) need no weights. The others want
    `reenact weights import wav2vec2_base FOLDER` (or _large)."""
    dtype: Literal["float32", "float16"] = "float32"
    """As stored. float16 halves the bytes; a value is off by at most 0.05 % of itself."""
    mels: int = 80
    """log_mel: bands from 0 to 8 kHz."""
    window_ms: float = 25.0
    """log_mel: length of the Hann window; columns are 10 ms apart."""
    context: int = 0
    """log_mel: frames on either side whose columns are joined to a frame's own."""
    layer: int = -1
    """wav2vec: output of this block of the transformer; 0 = its input, -1 = of the last block."""
    align: Literal["centres", "inside"] = "centres"
    """wav2vec: centres = the net's 49.95 Hz output, interpolated at the centre of each frame. inside = 25 Hz
    already between convolutions and transformer, as in PIR and FaceFormer: all features 7.5 ms early."""
    window_seconds: float = 24.0
    """wav2vec: longer sound is read in windows of this length; a feature then moves by about 1 % of its
    spread, for attention and the first norm hear the window only."""
    overlap_seconds: float = 2.0
    """wav2vec: what a window hears before and after the frames that are kept from it."""
    audio_align: Literal["centred", "official"] = "centred"
    """headgan: where its 8 frames of sound lie. centred = about the middle of the frame; official = from the
    frame on, as released weights were trained."""
    transcripts: ExpandedPath = ""
    """headgan: a file of timed characters (pipelines/preprocess/transcripts.py). Empty: nobody says a letter,
    and `tokens` reads none."""

    def __post_init__(self) -> None:
        if not 8 <= self.mels <= 128:
            raise ValueError(f"mels {self.mels}: expected 8 to 128")
        if not 10 <= self.window_ms <= 32:
            raise ValueError(f"window_ms {self.window_ms}: expected 10 to 32")
        if not 0 <= self.context <= 12:
            raise ValueError(f"context {self.context}: expected 0 to 12")
        if not -1 <= self.layer <= WAV2VEC2_BLOCK_COUNTS.get(self.encoder, 24):
            raise ValueError(
                f"layer {self.layer}: expected -1 to {WAV2VEC2_BLOCK_COUNTS.get(self.encoder, 24)}"
            )
        if not 1 <= self.window_seconds <= 60:
            raise ValueError(f"window_seconds {self.window_seconds}: expected 1 to 60")
        if not 0 <= self.overlap_seconds <= self.window_seconds / 4:
            raise ValueError(
                f"overlap_seconds {self.overlap_seconds}: expected 0 to a quarter of window_seconds"
            )
        if self.transcripts and self.encoder != "headgan":
            raise ValueError(f"transcripts {self.transcripts!r}: encoder {self.encoder} reads none")

    @property
    def net(self) -> str | None:
        """The encoder's name in models.perception.NETS, if it is a net."""
        return self.encoder if self.encoder in WAV2VEC2_BLOCK_COUNTS else None

    @property
    def size(self) -> int:
        """D: numbers a frame."""
        others = {"headgan": 300, "wav2vec2_base": 768, "wav2vec2_large": 1024}
        return others.get(self.encoder, self.mels * MEL_COLUMNS_PER_FRAME * (1 + 2 * self.context))

    @property
    def tokens(self) -> str:
        """Label of what is trained on these features: where their characters come from."""
        return "transcripts" if self.transcripts else "none"


def digest_external_files(config: SpeechFeaturesConfig) -> dict[str, str]:
    """What the stage reads outside the store, for its key: the digest of the file of transcripts, not its
    place."""
    if config.encoder != "headgan" or not config.transcripts:
        return {}
    from pipelines.preprocess.sources.common.files import digest_each_file, find_metadata_file
    from pipelines.preprocess.transcripts import TRANSCRIPTS_SETTING

    path = find_metadata_file(config.transcripts, TRANSCRIPTS_SETTING)
    return {"transcripts": digest_each_file([path])[path]}


def encode_speech(
    inputs: Inputs,
    config: SpeechFeaturesConfig,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """Clips -> speech (T,D) for each; row k belongs to the frame shown from k/25 to (k+1)/25 s.

    log_mel: D = mels x 4 columns x (1 + 2 context). headgan: D = 300, all 0 for a clip whose recording has no
    sound. wav2vec: D = 768 (base) or 1024 (large).
    """
    settings = config
    if settings.encoder not in WAV2VEC2_BLOCK_COUNTS:
        features_of = headgan_audio_features if settings.encoder == "headgan" else mel_features
        for clip in inputs["clips"]:
            yield _sample(clip["__key__"], features_of(clip, settings), settings.dtype)
        return
    encoder = cast("SpeechEncoder", nets[settings.encoder])
    encoder.configure_inference(InferenceSettings(device="cuda" if runtime.gpu_share > 0 else "cpu"))
    options = _options(settings)
    for keys, sounds in batch_clip_sounds(inputs["clips"]):
        for key, features in zip(keys, encoder.encode(sounds, options), strict=True):
            yield _sample(key, features, settings.dtype)


def _options(settings: SpeechFeaturesConfig) -> SpeechEncoderOptions:
    return SpeechEncoderOptions(
        layer=settings.layer,
        align=settings.align,
        window=round(settings.window_seconds * FPS),
        context=round(settings.overlap_seconds * FPS),
    )


def batch_clip_sounds(clips: Iterable[Sample]) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Keys and sounds of clips in order, as many at once as AHEAD frames; each 640 T samples long."""
    keys: list[str] = []
    sounds: list[np.ndarray] = []
    for clip in clips:
        samples = clip["clip"]["frames"] * SAMPLES_PER_FRAME
        if keys and sum(map(len, sounds)) + samples > MAX_BATCH_FRAMES * SAMPLES_PER_FRAME:
            yield keys, sounds
            keys, sounds = [], []
        sound = clip["sound"][:samples]
        keys.append(clip["__key__"])
        sounds.append(np.pad(sound, (0, samples - len(sound))))
    if keys:
        yield keys, sounds


def _sample(key: str, features: np.ndarray, dtype: str) -> Sample:
    return {"__key__": key, "speech": cast_speech_features(features, dtype)}


def cast_speech_features(features: np.ndarray, dtype: str) -> np.ndarray:
    """features in the type they are stored in. Raises UserError where float16 cannot hold them."""
    largest = float(np.abs(features).max(initial=0))
    if dtype == "float16" and not largest <= float(np.finfo(np.float16).max):
        raise UserError(f"a feature of {largest:g} is too large for speech.dtype float16; use float32")
    return features.astype(dtype)


def mel_features(clip: Sample, settings: SpeechFeaturesConfig) -> np.ndarray:
    return log_mel_features(clip["sound"], clip["clip"]["frames"], settings)


def headgan_audio_features(clip: Sample, settings: SpeechFeaturesConfig) -> np.ndarray:
    """(T,300) float32. Sound is what the clip keeps, 16 kHz, where the authors take the recording's rate."""
    from models.perception.speech.headgan_audio import FEATURE_SIZE, compute_headgan_audio_features
    from pipelines.preprocess.transcripts import read_character_onsets

    about, frames = clip["clip"], clip["clip"]["frames"]
    if not about["has_sound"]:
        return np.zeros((frames, FEATURE_SIZE), np.float32)
    tokens = ()
    if settings.transcripts:
        start, seconds = about["start"] / FPS, (frames + 8) / FPS
        tokens = read_character_onsets(settings.transcripts, about["recording"], start, seconds)
    samples = frames * SAMPLES_PER_FRAME
    sound = clip["sound"][:samples]
    return compute_headgan_audio_features(
        np.pad(sound, (0, samples - len(sound))), frames, tokens, settings.audio_align
    )


def log_mel_features(sound: np.ndarray, frames: int, settings: SpeechFeaturesConfig) -> np.ndarray:
    """Log-mel of sound (n,) -> (T,D) float32. Beyond the clip's ends its end frames are repeated."""
    from models.perception.speech.logmel import HOP_LENGTH, SAMPLE_RATE, log_mel

    middle = HOP_LENGTH // 2  # the four columns of a frame lie at 5, 15, 25 and 35 ms of it
    columns = log_mel(
        sound[middle:],
        frames * MEL_COLUMNS_PER_FRAME,
        settings.mels,
        round(settings.window_ms * SAMPLE_RATE / 1000),
    )
    rows = columns.reshape(frames, MEL_COLUMNS_PER_FRAME * settings.mels)
    padded = np.pad(rows, ((settings.context, settings.context), (0, 0)), mode="edge")
    return np.concatenate([padded[at : at + frames] for at in range(2 * settings.context + 1)], axis=1)
