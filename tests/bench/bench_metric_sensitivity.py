"""What each metric sees: every embedded metric on frames that were changed in a known way, as in the table of
pipelines/eval/README.md.

python -m pytest -m bench -s tests/bench/bench_metric_sensitivity.py

REENACT_BENCH_PEOPLE: rendered people, each with one clip; 6. REENACT_BENCH_FRAMES: of each clip; 50.

The truth is the frames of rendered heads at 256 px; each "method" is the same frames after one change. All
goes through the features' stages and the scoring that a run uses. Some five minutes of CPU.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

from models.perception import net_on_backend
from models.perception.head.default_head import get_analytic_head
from pipelines import media
from pipelines.cluster.runtime import RuntimeConfig
from pipelines.eval.features import FEATURE_STAGES, FRAMES_FEATURE, METRIC_FEATURES, with_input_features
from pipelines.eval.methods import Method
from pipelines.eval.metrics import DEFAULT_METRICS, METRICS
from pipelines.eval.records import MetricRecord, own_frame_metric_records
from pipelines.eval.score import _with_set_values, driving_feature_means, score_pairs
from pipelines.media.mp4_bytes import decode_mp4, encode_mp4
from pipelines.nets import load_nets
from pipelines.preprocess.sources.synthetic import (
    SyntheticConfig,
    list_recordings,
    render_synthetic_recording,
)
from storage.files import Store
from tests.eval.conftest import KeptFamily, UnitSamples

PEOPLE = int(os.environ.get("REENACT_BENCH_PEOPLE", "6"))
FRAMES = int(os.environ.get("REENACT_BENCH_FRAMES", "50"))
SIDE, SAMPLES_PER_FRAME = 256, 640
LATE = 5
"""Frames by which the delayed sound comes late."""


class TalkingClip(NamedTuple):
    frames: np.ndarray
    """(T,256,256,3) uint8"""
    sound: np.ndarray
    """(T * 640,) float32"""


@cache
def clips() -> dict[str, TalkingClip]:
    seconds = FRAMES / 25 + 0.2
    people = SyntheticConfig(identities=PEOPLE, test_identities=0, clips_per_identity=1, seconds=seconds)
    found = {}
    for row in list_recordings(people):
        video, _ = render_synthetic_recording(row, get_analytic_head())
        with media.open_as_local_file(video) as path:
            probed = media.probe_file(path)
            frames, _ = media.read_frames(path, probed, (SIDE, SIDE))
            sound = media.read_sound(path, probed, 0, len(frames))
        key = f"{row['identity']}#{row['id']}#000000#{FRAMES:06d}"
        found[key] = TalkingClip(frames[:FRAMES], sound[: FRAMES * SAMPLES_PER_FRAME])
    return found


# --- changes ------------------------------------------------------------------------------------------------
def through_codec(crf: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda frames: decode_mp4(encode_mp4(frames, crf=crf))


def blurred(frames: np.ndarray) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in frames])


def noisy(frames: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 8, frames.shape)
    return np.clip(frames + noise, 0, 255).round().astype(np.uint8)


def shifted(frames: np.ndarray) -> np.ndarray:
    return np.concatenate([frames[:, :, :1], frames[:, :, :-1]], axis=2)


def frozen(frames: np.ndarray) -> np.ndarray:
    return np.repeat(frames[:1], len(frames), axis=0)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nothing": lambda frames: frames,
    "H.264 crf 18": through_codec(18),
    "H.264 crf 28": through_codec(28),
    "H.264 crf 38": through_codec(38),
    "blur, sigma 1.5 px": blurred,
    "noise, sigma 8": noisy,
    "shift by 1 px": shifted,
    "frozen first frame": frozen,
}
OTHER_PERSON, DELAYED_SOUND = "another person's clip", "sound 0.2 s late"


def changed_frames(change: str) -> dict[str, np.ndarray]:
    """Clip -> the frames of the method."""
    keys = list(clips())
    if change == OTHER_PERSON:
        return {key: clips()[other].frames for key, other in zip(keys, [*keys[1:], keys[0]], strict=True)}
    how = CHANGES.get(change, CHANGES["nothing"])
    return {key: how(clips()[key].frames) for key in keys}


def changed_sound(change: str, sound: np.ndarray) -> np.ndarray:
    if change != DELAYED_SOUND:
        return sound
    late = LATE * SAMPLES_PER_FRAME
    return np.concatenate([np.zeros(late, np.float32), sound[:-late]])


# --- features and scores ------------------------------------------------------------------------------------
@cache
def nets() -> Mapping[str, object]:
    """Those that need no file beyond wheels."""
    wanted = {net for name in features() for net in METRIC_FEATURES[name].nets}
    names = [net_on_backend(name, "litert") for name in sorted(wanted)]
    with TemporaryDirectory() as folder:
        return load_nets(names, Store(folder))


def features() -> list[str]:
    metrics = [METRICS[name] for name in DEFAULT_METRICS]
    used = dict.fromkeys(name for one in metrics for name in (one.feature, one.compared_with[0]))
    return with_input_features(name for name in used if name != FRAMES_FEATURE)


def feature_families(frames: Mapping[str, np.ndarray], change: str, truth: bool) -> dict[str, KeptFamily]:
    """Feature -> its samples of each clip."""
    found: dict[str, KeptFamily] = {}
    for name in features():
        feature = METRIC_FEATURES[name]
        module, _, function = FEATURE_STAGES[name].partition(":")
        stage = getattr(importlib.import_module(module), function)
        samples = []
        for key, images in frames.items():
            inputs: dict[str, Any] = {"generated": UnitSamples([{"__key__": key, "frames": images}])}
            if feature.pair_fields and not truth:
                inputs["truth"] = UnitSamples([{"__key__": key, "frames": clips()[key].frames}])
            for other in feature.input_features:
                inputs[other] = UnitSamples([{"__key__": key, **found[other].read(key)}])
            if feature.driving_fields:
                inputs |= driving_inputs(key, change)
            samples += list(stage(inputs, None, nets(), RuntimeConfig()))
        found[name] = KeptFamily(samples)
    return found


def driving_inputs(key: str, change: str) -> dict[str, Any]:
    pair = {
        "id": key, "source_recording": "", "source_clip": key, "source_frames": [0], "driving_recording": "",
        "driving_clip": key, "driving_frames": list(range(FRAMES)), "sound_clip": "",
    }  # fmt: skip
    facts = {"has_sound": True, "audible": 1.0}
    sound = changed_sound(change, clips()[key].sound)
    clip = {"__key__": key, "sound": sound, "clip": facts}
    return {"pairs": UnitSamples([pair]), "clips": UnitSamples([clip])}


@cache
def truth_families(change: str = "nothing") -> dict[str, KeptFamily]:
    """Real frames, beside the driving sound: as it is, or late."""
    frames = {key: clip.frames for key, clip in clips().items()}
    own = {f"truth.{name}": one for name, one in feature_families(frames, change, truth=True).items()}
    return {"truth": KeptFamily([{"__key__": key, "frames": one} for key, one in frames.items()]), **own}


def measure(change: str) -> dict[str, MetricRecord]:
    """Metric -> its value over the changed frames of all clips."""
    frames = changed_frames(change)
    families = {
        **(truth_families(change) if change == DELAYED_SOUND else truth_families()),
        "generated": KeptFamily([{"__key__": key, "frames": one} for key, one in frames.items()]),
        **feature_families(frames, change, truth=False),
    }
    people = {key: key.split("#")[0] for key in frames}
    centres = driving_feature_means(DEFAULT_METRICS, families, people)
    scored = score_pairs(list(frames), DEFAULT_METRICS, families, centres)
    values = _with_set_values(scored.values, scored.sets)
    records = own_frame_metric_records(values, Method(name=change, kind="baseline"), DEFAULT_METRICS)
    return {record.name: record for record in records}


@pytest.mark.bench
def test_what_each_metric_sees():
    table = {change: measure(change) for change in (*CHANGES, OTHER_PERSON, DELAYED_SOUND)}
    print()
    print("| metric | " + " | ".join(table) + " |")
    print("|---" * (1 + len(table)) + "|")
    for name in DEFAULT_METRICS:
        cells = [f"{record.value:.4g}" if record.value is not None else "–" for record in
                 (records[name] for records in table.values())]  # fmt: skip
        print(f"| `{name}` | " + " | ".join(cells) + " |")

    def values(metric: str, *changes: str) -> list[float]:
        found = [table[change][metric].value for change in changes]
        assert None not in found, metric
        return [value for value in found if value is not None]

    def moved(change: str, *metrics: str) -> None:
        """The change makes them worse than nothing does, by more than a tenth of what crf 38 does."""
        for metric in metrics:
            least = 0.1 * abs(np.subtract(*values(metric, "H.264 crf 38", "nothing")))
            worse = float(np.subtract(*values(metric, change, "nothing")))
            worse *= -1 if METRICS[metric].better == "up" else 1
            assert worse > least, (metric, change)

    moved("blur, sigma 1.5 px", "l1", "psnr_frame", "ssim", "lpips_efflite0_unlearned", "fd_efflite0")
    moved("noise, sigma 8", "l1", "psnr_frame", "ssim", "flicker", "fd_efflite0", "lpips_efflite0_unlearned")
    moved("shift by 1 px", "l1", "psnr_frame", "ssim", "akd_l1_mesh", "akd_l1_dlib", "nme_mesh")
    moved("frozen first frame", "flicker", "jitter_mesh", "pose_mesh", "lmd_mesh", "akd_l1_mesh")
    moved(OTHER_PERSON, "csim_dlib_centred", "id_l2_dlib", "l1", "akd_l1_mesh")
    on_time, late = (table[change]["mouth_sound_corr_mesh"].value for change in ("nothing", DELAYED_SOUND))
    assert on_time is not None
    assert late is not None
    print(f"mouth against sound: {on_time:.3f} on time, {late:.3f} late")
    lag = values("mouth_sound_lag_mesh", "nothing", DELAYED_SOUND)
    assert lag[1] - lag[0] > 0.5 * LATE, lag
    for metric in ("l1", "ssim", "akd_l1_mesh", "csim_dlib_centred"):
        assert values(metric, DELAYED_SOUND) == values(metric, "nothing"), metric
    for metric in ("l1", "psnr_frame", "ssim", "lpips_efflite0_unlearned", "akd_l1_mesh"):
        rates = values(metric, "nothing", "H.264 crf 18", "H.264 crf 28", "H.264 crf 38")
        assert rates == sorted(rates, reverse=METRICS[metric].better == "up"), metric
    ideal = {"l1": 0, "psnr_frame": 100, "ssim": 1, "akd_l1_mesh": 0, "csim_dlib_centred": 1, "id_l2_dlib": 0}
    for metric, value in ideal.items():
        assert values(metric, "nothing") == pytest.approx([value], abs=1e-9), metric
