"""CPU milliseconds a frame of each preprocessing stage, bare: no Ray, no store, one thread; with the nets of
dlib and of MediaPipe, on the same videos, in turn.

python -m pytest -m bench -s tests/bench/bench_preprocess.py

REENACT_BENCH_MEDIA: a folder of videos to measure besides those that are rendered.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from threadpoolctl import threadpool_limits

from models.perception import net_on_backend
from models.perception.faces.blazeface import SHORT_RANGE_NET
from models.perception.faces.face_mesh import IRIS_NET, MESH_NET
from models.perception.litert_net import LiteRtNet
from models.weights import find_third_party_weights
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
from storage.weight_files import find_packaged_file

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
        "clips": replace(clips, detector=of_clips),
        "keypoints": KeypointsConfig(detector=detector, landmarker=landmarker),  # pyright: ignore[reportArgumentType]
        "fit3dmm": Fit3dmmConfig(failed="keep"),
        "speech": SpeechFeaturesConfig(),
    }
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
    torch.set_num_threads(1)
    with threadpool_limits(1):  # as workers have it: threads of numpy's that wait would count too
        compare_stacks()


def compare_stacks() -> None:
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
            floor, spent_by = bare_keypoints_nets(), best["mediapipe"]["keypoints"]
            print(f"  keypoints of mediapipe: {spent_by / floor:.2f} times its nets alone, {floor:.2f}")


def bare_keypoints_nets() -> float:
    """CPU milliseconds a frame of nothing but the nets: a detection and a first pass in one frame of three,
    the mesh and two eyes in each."""
    names = {"mp_face_short": SHORT_RANGE_NET, "mp_mesh468": MESH_NET, "mp_iris": IRIS_NET}
    each = {}
    for name, how in names.items():
        path = find_packaged_file(find_third_party_weights(name))
        assert path is not None
        each[name] = best_invocation(LiteRtNet(path, how))
    return each["mp_face_short"] / 3 + each["mp_mesh468"] * 4 / 3 + each["mp_iris"] * 2


def best_invocation(net: LiteRtNet) -> float:
    """CPU milliseconds of one image."""
    image, times = torch.rand(1, 3, net.input_side, net.input_side), []
    for _ in range(100):
        begin = time.process_time()
        net(image)
        times.append(time.process_time() - begin)
    return 1000 * min(times)
