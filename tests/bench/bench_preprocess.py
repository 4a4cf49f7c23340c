"""CPU milliseconds a frame of each preprocessing stage, bare: no Ray, no store, one thread; with the nets of
dlib and of MediaPipe, on the same videos, in turn.

OMP_NUM_THREADS=1 python -m pytest -m bench -s tests/bench/bench_preprocess.py

OMP_NUM_THREADS: as the workers of preprocessing have it; with more threads numpy's wait, which counts too.
REENACT_BENCH_MEDIA: a folder of videos to measure besides those that are rendered.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from models.perception import net_on_backend
from pipelines.cluster.runtime import RuntimeConfig
from pipelines.media import probe_file
from pipelines.nets import load_nets
from pipelines.preprocess.clips import cut_clips
from pipelines.preprocess.clips_config import ClipsConfig
from pipelines.preprocess.download import download_or_render
from pipelines.preprocess.fit3dmm import Fit3dmmConfig, fit_clips
from pipelines.preprocess.keypoints import KeypointsConfig, find_keypoints
from pipelines.preprocess.recordings import DataConfig
from pipelines.preprocess.sources.synthetic import SyntheticConfig, list_recordings
from pipelines.preprocess.speech import SpeechFeaturesConfig, encode_speech
from storage.files import Store
from storage.shards import encode_sample

MEDIA = os.environ.get("REENACT_BENCH_MEDIA", "")
PEOPLE = 4
ROUNDS = 3
RUNTIME = RuntimeConfig()
CLIPS = {"demo": ClipsConfig(size=128, margin=0.15, lift=0.05, iou=0.15), "256 px": ClipsConfig()}
STACKS = {
    "dlib": ("dlib_hog", "dlib_hog", "dlib68"),
    "mediapipe": ("mp_face", "mp_face", "mesh468_iris"),
}
"""Detector of clips, detector and landmarker of keypoints."""

Inputs = dict[str, list[dict[str, Any]]]


def cpu() -> float:
    """CPU seconds of this process and of the ffmpeg processes it has waited for."""
    return sum(os.times()[:4])


def rendered_recordings() -> Iterator[Inputs]:
    settings = SyntheticConfig(identities=PEOPLE, test_identities=0, clips_per_identity=1, seconds=2.7)
    with TemporaryDirectory() as folder:
        head = load_nets(["analytic_head"], Store(folder))
    for row in list_recordings(settings):
        inputs: Inputs = {"recordings": [{**row, "source": "synthetic"}]}
        inputs["download"] = list(download_or_render(inputs, DataConfig(), head, RUNTIME))
        yield inputs


def media_recordings() -> Iterator[Inputs]:
    for path in sorted(Path(MEDIA).glob("*.mp4")):
        row = {"id": path.stem[:40], "identity": path.stem[:40], "tracks": [], "source": "folder"}
        yield {"recordings": [row], "download": [{"video": path, "probe": probe_file(path)}]}


def time_stages(recordings: list[Inputs], clips: ClipsConfig, stack: str) -> tuple[dict[str, float], int]:
    """Stage -> CPU seconds, and the frames of all clips."""
    of_clips, detector, landmarker = STACKS[stack]
    settings = {
        "clips": ClipsConfig(**{name: getattr(clips, name) for name in ("size", "margin", "lift", "iou")}
                             | {"detector": of_clips}),
        "keypoints": KeypointsConfig(detector=detector, landmarker=landmarker),  # pyright: ignore[reportArgumentType]
        "fit3dmm": Fit3dmmConfig(failed="keep"),
        "speech": SpeechFeaturesConfig(),
    }  # fmt: skip
    stages = {"clips": cut_clips, "keypoints": find_keypoints, "fit3dmm": fit_clips, "speech": encode_speech}
    names = [net_on_backend(name, "litert") for name in {of_clips, detector, landmarker}]
    with TemporaryDirectory() as folder:
        nets = load_nets([*names, "analytic_head"], Store(folder))
    spent, frames = dict.fromkeys([*stages, "encode"], 0.0), 0
    for recording in recordings:
        inputs = dict(recording)
        for name, stage in stages.items():
            begin = cpu()
            inputs[name] = list(stage(inputs, settings[name], nets, RUNTIME))
            middle = cpu()
            for sample in inputs[name]:
                encode_sample(sample)
            spent[name] += middle - begin
            spent["encode"] += cpu() - middle
            if name == "clips":  # as they are read back
                inputs[name] = [clip | {"frames": clip["frames"].decode()} for clip in inputs[name]]
        frames += sum(len(sample["frames"]) for sample in inputs["clips"])
    return spent, frames


@pytest.mark.bench
def test_stages_by_dlib_and_by_mediapipe():
    assert os.environ.get("OMP_NUM_THREADS") == "1", "run this as its first lines say"
    torch.set_num_threads(1)
    corpora = {"rendered": list(rendered_recordings())}
    if MEDIA:
        corpora["media"] = list(media_recordings())
    for corpus, recordings in corpora.items():
        for size, clips in CLIPS.items():
            best: dict[str, dict[str, float]] = {}
            for _ in range(ROUNDS):  # in turn, so that a busy minute meets both
                for stack in STACKS:
                    spent, frames = time_stages(recordings, clips, stack)
                    each = {name: 1000 * seconds / frames for name, seconds in spent.items()}
                    before = best.get(stack, each)
                    best[stack] = {name: min(value, before[name]) for name, value in each.items()}
            print(f"\n{corpus}, clips as {size}: CPU ms a frame")
            for name in next(iter(best.values())):
                print(f"  {name:10s}" + "".join(f"{stack:>12} {best[stack][name]:6.2f}" for stack in STACKS))
            sums = {s: sum(best[s][n] for n in ("clips", "keypoints", "fit3dmm")) for s in STACKS}
            print(f"  three stages: {sums}, ratio {sums['mediapipe'] / sums['dlib']:.2f}")
