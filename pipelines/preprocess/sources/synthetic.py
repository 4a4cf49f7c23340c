"""Source `synthetic`: talking heads made by our own code, each recording with the truth it was rendered from.

A recording is a person (identity, tones, hair: fixed by corpus seed and identity number) in a setting
(clothes, wall, light: the recording's own seed) who speaks syllables with pauses, blinks, raises the brows
and turns the head. The sound is made from the same syllables, so that its loudness and formants follow the
mouth. Same row, same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from pipelines.preprocess.sources.common.rows import BaseRecording, ListedRecording

if TYPE_CHECKING:
    from models.perception.head.morphable import MorphableModel
    from pipelines.preprocess.sources.common.rendered_head import SyntheticHeadState

SYNTHETIC_VIDEO_FPS = 25
SOUND_RATE = 16_000
IMAGE_HEIGHT_UNITS = (
    5.9  # image height in model units: brows to chin fill about a third of it, crown to chin half
)
# vowel: jaw opening and lip shape in sigmas, then the first three formants in Hz
VOWEL_SHAPES_AND_FORMANTS = {
    "a": (2.6, 0.2, 0.0, 750, 1250, 2550), "e": (1.8, 0.8, 0.0, 530, 1850, 2500),
    "i": (0.9, 1.2, 0.0, 300, 2250, 3000), "o": (2.0, 0.0, 1.0, 500, 900, 2400),
    "u": (0.8, 0.0, 1.5, 320, 800, 2250), "@": (1.5, 0.1, 0.1, 500, 1500, 2500),
}  # fmt: skip
FORMANT_WIDTHS = (90.0, 120.0, 180.0)
MAX_HARMONIC_HZ = 4000.0  # Hz


class SyntheticConfig(Struct, frozen=True, kw_only=True):
    identities: int = 8
    """People in the corpus."""
    test_identities: int = 2
    """The last so many people are the test split."""
    clips_per_identity: int = 3
    """Recordings of each person: another setting and other speech each."""
    seconds: float = 4.0
    """Length of a recording."""
    width: int = 320
    """Width of the raw video in pixels, even."""
    height: int = 320
    """Height of the raw video in pixels, even; the face takes about a third, the head half of it."""
    seed: int = 0
    """Another seed is another corpus."""

    def __post_init__(self) -> None:
        if not 1 <= self.identities <= 9999:
            raise ValueError(f"identities {self.identities}: expected 1 to 9999")
        if not 0 <= self.test_identities <= self.identities:
            raise ValueError(
                f"test_identities {self.test_identities}: expected 0 to {self.identities} (identities)"
            )
        if not 1 <= self.clips_per_identity <= 99:
            raise ValueError(f"clips_per_identity {self.clips_per_identity}: expected 1 to 99")
        if not 0.2 <= self.seconds <= 600:
            raise ValueError(f"seconds {self.seconds}: expected 0.2 to 600")
        for name, value in (("width", self.width), ("height", self.height)):
            if not 160 <= value <= 1024 or value % 2:
                raise ValueError(f"{name} {value}: expected an even number from 160 to 1024")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed {self.seed}: expected 0 to {2**31 - 1}")


def list_recordings(config: SyntheticConfig) -> list[ListedRecording]:
    """A row a recording, by identity then recording."""
    rows: list[ListedRecording] = []
    for person in range(config.identities):
        identity = f"syn{person:03d}"
        split = "test" if person >= config.identities - config.test_identities else "train"
        for clip in range(config.clips_per_identity):
            spec = {
                "identity": person,
                "identity_seed": _seed(config.seed, person),
                "seconds": config.seconds,
                "width": config.width,
                "height": config.height,
            }
            rows.append(
                {
                    "id": f"{identity}-{clip:02d}",
                    "identity": identity,
                    "split": split,
                    "uri": "",
                    "sha256": "",
                    "seed": _seed(config.seed, person, clip),
                    "spec": json.dumps(spec, sort_keys=True, separators=(",", ":")),
                    "tracks": [],
                }
            )
    return rows


def _seed(*parts: int) -> int:
    """31 bits that depend on every part, so that one more person changes nobody else."""
    digest = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


def render_synthetic_recording(
    row: BaseRecording, model: MorphableModel
) -> tuple[bytes, dict[str, np.ndarray]]:
    """A row of `list_recordings` -> the video (mp4: H.264 25 fps, AAC 16 kHz mono) and its truth, a row a
    frame.

    Truth: angles (T,3) degrees, exp (T,n_exp), id (n_id,), scale (T,), translation (T,3) and rotation (T,3,3)
    of pixel = s R X + T, landmarks (T,68,2) pixels of the raw frame, jaw (T,) sigmas, loudness (T,) RMS.
    """
    from pipelines.media.mp4_bytes import encode_mp4
    from pipelines.preprocess.sources.common.head_appearance import (
        sample_person_appearance,
        sample_synthetic_recording_appearance,
    )
    from pipelines.preprocess.sources.common.rendered_head import HeadRenderer

    spec = json.loads(row["spec"])
    height, width = int(spec["height"]), int(spec["width"])
    appearance = sample_person_appearance(
        np.random.default_rng(spec["identity_seed"]), int(spec["identity"]), model
    )
    rng = np.random.default_rng(int(row["seed"]))
    renderer = HeadRenderer(
        model, appearance, sample_synthetic_recording_appearance(rng, height, width), height, width
    )
    frames = max(1, round(float(spec["seconds"]) * SYNTHETIC_VIDEO_FPS))
    speech = synthesize_speech(rng, frames, np.random.default_rng(spec["identity_seed"] + 1).uniform(95, 230))
    poses = sample_talking_head_poses(rng, speech, height, width, model.exp_names)
    cameras = [renderer.head_camera(pose) for pose in poses]
    video = encode_mp4(
        (renderer.render_frame(pose) for pose in poses), SYNTHETIC_VIDEO_FPS, preset="veryfast",
        sound=speech.sound, sound_rate=SOUND_RATE,
    )  # fmt: skip
    truth = {
        "angles": np.stack([pose.angles for pose in poses]),
        "exp": np.stack([pose.exp for pose in poses]),
        "id": appearance.id,
        "scale": np.array([pose.scale for pose in poses]),
        "rotation": np.stack([rotation for rotation, _ in cameras]),
        "translation": np.stack([translation for _, translation in cameras]),
        "landmarks": np.stack([renderer.project_landmarks(pose) for pose in poses]),
        "jaw": speech.jaw,
        "loudness": frame_loudness(speech.sound, frames),
    }
    return video, {name: value.astype(np.float32) for name, value in truth.items()}


# --- speech -------------------------------------------------------------------------------------------------
class SpeechMotionAndSound(Struct, frozen=True):
    """T frames of mouth, sigmas each (T,), and the sound (T * 640,) float32 in [-1,1]."""

    jaw: np.ndarray
    wide: np.ndarray
    pucker: np.ndarray
    stress: np.ndarray
    sound: np.ndarray


def synthesize_speech(rng: np.random.Generator, frames: int, pitch: float) -> SpeechMotionAndSound:
    """Words of one to four syllables with pauses; pitch in Hz is the speaker's."""
    step = SOUND_RATE // 100  # curves are drawn at 100 Hz
    count = frames * SOUND_RATE // SYNTHETIC_VIDEO_FPS
    curves = _syllables(rng, count // step + 1)
    envelope, jaw = curves[0], curves[1]
    at = np.arange(count) / step
    ticks = np.arange(curves.shape[1])
    loud, tone = np.interp(at, ticks, envelope), np.interp(at, ticks, curves[7])
    phase = 2 * np.pi * np.cumsum(pitch * (0.92 + 0.2 * tone)) / SOUND_RATE
    voice = _voice(phase, pitch, curves[4:7], step)
    breath = rng.normal(0, 1, count) * np.interp(at, ticks, curves[8])
    breath = np.diff(breath, prepend=0.0)  # consonants: noise that leans to the high frequencies
    sound = 0.9 * loud * voice / (np.abs(voice).max() + 1e-9) + 0.02 * breath + rng.normal(0, 5e-4, count)
    frame_at = (np.arange(frames) + 0.5) * 100 / SYNTHETIC_VIDEO_FPS
    jaw, wide, pucker, stress = (np.interp(frame_at, ticks, c) for c in (jaw, *curves[2:4], curves[7]))
    return SpeechMotionAndSound(jaw, wide, pucker, stress, np.clip(sound, -1, 1).astype(np.float32))


def _syllables(rng: np.random.Generator, ticks: int) -> np.ndarray:
    """-> (9, ticks) at 100 Hz: envelope, jaw, wide, pucker, three formants, stress, consonant noise."""
    curves = np.zeros((9, ticks))
    curves[4:7] = np.array(VOWEL_SHAPES_AND_FORMANTS["@"][3:], float)[:, None]
    names = list(VOWEL_SHAPES_AND_FORMANTS)
    at = int(rng.integers(5, 25))
    while at < ticks:
        stressed = int(rng.integers(0, 2))
        for syllable in range(int(rng.integers(1, 5))):
            length = int(rng.integers(15, 27))
            vowel = VOWEL_SHAPES_AND_FORMANTS[names[int(rng.integers(len(names)))]]
            strength = rng.uniform(0.75, 1.0) * (1.15 if syllable == stressed else 0.85)
            span = slice(at, min(at + length, ticks))
            shape = np.sin(np.pi * (np.arange(length) + 0.5) / length)[: span.stop - span.start]
            curves[0, span] = strength * shape**0.8 * (0.3 + 0.27 * vowel[0])
            curves[1:4, span] = strength * np.array(vowel[:3])[:, None] * shape
            curves[4:7, span] = np.array(vowel[3:], float)[:, None]
            curves[7, span] = shape * (syllable == stressed)
            if rng.random() < 0.6:
                curves[8, slice(max(0, at - 4), min(at + 3, ticks))] = rng.uniform(0.3, 1)
            at += length
            if at >= ticks:
                break
        at += int(rng.integers(6, 22)) if rng.random() < 0.8 else int(rng.integers(40, 80))
    kernel = np.hanning(9) / np.hanning(9).sum()  # muscles and formants glide over about 50 ms
    padded = np.pad(curves, ((0, 0), (4, 4)), mode="edge")
    return np.stack([np.convolve(c, kernel, mode="valid") for c in padded])


def _voice(phase: np.ndarray, pitch: float, formants: np.ndarray, step: int) -> np.ndarray:
    """Glottal phase (n,) and formants (3,ticks) -> a pulse train heard through them: a sum of harmonics."""
    at = np.arange(len(phase)) / step
    ticks = np.arange(formants.shape[1])
    total = np.zeros(len(phase))
    for k in range(1, int(MAX_HARMONIC_HZ / pitch) + 1):
        frequency = k * pitch
        gain = np.zeros(len(ticks))
        for formant, width, weight in zip(formants, FORMANT_WIDTHS, (1.0, 0.6, 0.3), strict=True):
            gain += weight / (1 + ((frequency - formant) / width) ** 2)
        total += np.interp(at, ticks, gain / k**0.4) * np.sin(k * phase)
    return total


def frame_loudness(sound: np.ndarray, frames: int) -> np.ndarray:
    """Sound (n,) -> RMS (frames,) over each video frame."""
    n = SOUND_RATE // SYNTHETIC_VIDEO_FPS
    padded = np.zeros(frames * n)
    padded[: min(len(sound), frames * n)] = sound[: frames * n]
    return np.sqrt((padded.reshape(frames, n) ** 2).mean(1))


# --- motion -------------------------------------------------------------------------------------------------
def _wander(
    rng: np.random.Generator, frames: int, reach: float, slowest: float = 0.12, fastest: float = 0.55
) -> np.ndarray:
    """(T,) smooth motion that stays within +-reach and uses most of it: five slow waves (Hz)."""
    t = np.arange(frames) / SYNTHETIC_VIDEO_FPS
    rates = rng.uniform(slowest, fastest, 5)
    phases, weights = rng.uniform(0, 2 * np.pi, 5), rng.uniform(0.5, 1, 5)
    waves = (weights[:, None] * np.sin(2 * np.pi * rates[:, None] * t + phases[:, None])).sum(0)
    return reach * np.tanh(waves / 1.3)


def _blinks(rng: np.random.Generator, frames: int) -> np.ndarray:
    """(T,) 0 open .. 1 shut: a blink of a fifth of a second every two to four seconds."""
    shut = np.zeros(frames)
    at = int(rng.integers(8, 50))
    while at < frames:
        for offset, value in enumerate((0.45, 1.0, 0.95, 0.55, 0.2)):
            if at + offset < frames:
                shut[at + offset] = value
        at += int(rng.integers(45, 110))
    return shut


def sample_talking_head_poses(
    rng: np.random.Generator, speech: SpeechMotionAndSound, height: int, width: int, names: Sequence[str]
) -> list[SyntheticHeadState]:
    """What head, eyes and face do while the mouth speaks: one pose a frame, `names` are the expressions'."""
    from models.perception.head.analytic_components import FULL_BLINK_SIGMAS
    from pipelines.preprocess.sources.common.rendered_head import SyntheticHeadState

    frames, unit = len(speech.jaw), height / IMAGE_HEIGHT_UNITS
    yaw, pitch, roll = _wander(rng, frames, 26), _wander(rng, frames, 10), _wander(rng, frames, 9)
    angles = np.stack([pitch + 3 * speech.stress, yaw, roll], axis=-1)
    scale = unit * rng.uniform(0.94, 1.1) * (1 + _wander(rng, frames, 0.05))
    home = np.array([width * rng.uniform(0.46, 0.54), height * rng.uniform(0.43, 0.48), 0.0])
    drift = np.stack([_wander(rng, frames, 0.2), _wander(rng, frames, 0.08), np.zeros(frames)], axis=-1)
    chest = home + unit * drift
    blink = FULL_BLINK_SIGMAS * _blinks(rng, frames)
    smile = 0.6 + _wander(rng, frames, 0.6, 0.05, 0.2)
    moves = {
        "jaw_open": speech.jaw,
        "lip_corner_pull": smile * (1 - 0.3 * np.clip(speech.pucker, 0, 1)),
        "lip_pucker": speech.pucker,
        "mouth_wide": speech.wide,
        "brow_raise": 0.9 * speech.stress + _wander(rng, frames, 0.8, 0.1, 0.3),
        "brow_frown": _wander(rng, frames, 0.7, 0.1, 0.3) - 0.2,
        "blink_left": blink,
        "blink_right": blink,
        "upper_lip_raise": 0.12 * speech.jaw,
        "lower_lip_drop": 0.35 * speech.jaw + 0.3 * speech.wide,
    }
    exp = np.zeros((frames, len(names)), np.float32)
    for name, value in moves.items():
        exp[:, names.index(name)] = value
    # eyes look at the camera as far as they turn, with small jumps
    jumps = rng.normal(0, 3, (frames // 18 + 2, 2)).repeat(18, axis=0)[:frames]
    gaze = np.clip(-0.7 * angles[:, :2], -16, 16) + jumps
    return [SyntheticHeadState(*fields) for fields in zip(angles, scale, chest, exp, gaze, strict=True)]
