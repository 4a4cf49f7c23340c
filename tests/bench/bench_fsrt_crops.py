"""FSRT's training crops on real frames: their sharpness against the authors' loader, and what they cost it.

REENACT_BENCH_VIDEO=FILE python -m pytest -m bench -s tests/bench/bench_fsrt_crops.py

The middle square of the video becomes one clip, its frames `views.vox_max` of at most 512 px; a video that is
large enough for that and shows one face near the middle is wanted.

Sharpness: variance of the Laplacian of the grey values, in grey levels squared, the median over frames.
`authors` is their rule by itself: the recording's frame in floats, cut, resized to 256 px once, bilinear.
`ours` comes through JPEG and 8 bit, as training reads it. `reduced first` is what a crop of a frame of 256 px
would show. Cost: CPU seconds of a sample as the reader's thread makes it, from a store, over those of reading
and decoding the same frames alone; the median of rounds that take turns.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import laplace
from torch.nn import functional as F

from models.fsrt import augment
from models.fsrt.config import (
    AugmentConfig,
    ImageLossRenderingConfig,
    TrainingSampleConfig,
    full_architecture,
)
from models.fsrt.image_task import WholeImageTask
from models.fsrt.task import FsrtReenactmentTask
from pipelines import media
from pipelines.dataset.sampler import SplitClips, make_sample
from pipelines.preprocess.clips import ClipsConfig, FrameCodecConfig, cut_clips
from pipelines.preprocess.keypoints import find_keypoints
from pipelines.preprocess.views import CropViewConfig, cut_vox_max
from storage import locations, shards
from storage.families import Family, ManifestRow, UnitRecord, encode_manifest, encode_pack_record
from storage.files import Store
from tests.bench.bench_face_truth import load_stack
from tests.video_files import RUNTIME

VIDEO = os.environ.get("REENACT_BENCH_VIDEO", "")
FRAMES, EVERY = 100, 5
SCALES = (1.25, 1.67, 2.0)
SHARPNESS_AIM, COST_AIM, COST_LIMIT = 0.95, 1.3, 1.7
"""The aim of the cost is not met (1.4 to 1.5 on two cores: resizing 0.25, drawing 0.15); the limit fails."""
SAMPLES, ROUNDS = 60, 7

pytestmark = [pytest.mark.bench, pytest.mark.skipif(not VIDEO, reason="REENACT_BENCH_VIDEO names no video")]


@pytest.fixture(scope="module")
def stages():
    """Clip, view as it is stored, the same without loss, landmarks: one sample each."""
    path = Path(VIDEO)
    probed = media.probe_file(path)
    side = min(probed["width"], probed["height"]) // 2 * 2
    left, top = (probed["width"] - side) // 4 * 2, (probed["height"] - side) // 4 * 2
    track = {"start": 0, "end": FRAMES, "fps": 25.0, "width": probed["width"], "height": probed["height"],
             "box": [left, top, left + side, top + side]}  # fmt: skip
    row = {"id": "rec", "identity": "ann", "tracks": [track]}
    inputs = {"recordings": [row], "download": [{"video": path, "probe": probed}]}
    settings = ClipsConfig(min_frames=10, scene_cuts="off")
    (clip,) = inputs["clips"] = list(cut_clips(inputs, settings, {}, RUNTIME))
    view, exact = (
        next(cut_vox_max(inputs, CropViewConfig(recipe="vox_max", frames=frames), {}, RUNTIME))
        for frames in (FrameCodecConfig(), FrameCodecConfig(codec="png"))
    )
    stack, decoded = load_stack("mp_face+mesh468_iris"), clip | {"frames": clip["frames"].decode()}
    points = next(find_keypoints({"clips": [decoded]}, stack.keypoints, stack.nets, RUNTIME))
    assert np.isfinite(points["landmarks"]).all(), f"{VIDEO}: not every frame shows a face"
    return SimpleNamespace(clip=clip, view=view, exact=exact, points=points)


# --- sharpness ----------------------------------------------------------------------------------------------
def sharpness(picture: np.ndarray) -> float:
    """picture (H,W,3) in grey levels"""
    return float(laplace(picture.astype(np.float64) @ (0.299, 0.587, 0.114)).var())


def cut_as_the_authors_do(frame: np.ndarray, cut: list[int], size: int = 256) -> np.ndarray:
    """frame (S,S,3) uint8, pixels cut off left, top, right, bottom -> (size,size,3) float64"""
    left, top, right, bottom = cut
    part = frame[top : len(frame) - bottom, left : len(frame) - right].astype(np.float64)
    rows = torch.from_numpy(part).permute(2, 0, 1)[None]
    resized = F.interpolate(rows, (size, size), mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0).numpy()


def cut_after_reducing(frame: np.ndarray, cut: list[int]) -> np.ndarray:
    """As `frames_to_images` did: first to 256 px, with anti-aliasing."""
    rows = torch.from_numpy(frame.astype(np.float32)).permute(2, 0, 1)[None]
    small = F.interpolate(rows, (256, 256), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    return cut_as_the_authors_do(small, [round(pixels * 256 / len(frame)) for pixels in cut])


def crops_by_kind(stages, side: int) -> dict[str, list[tuple[int, list[int]]]]:
    """Kind of crop -> frames with the pixels of `side` that are cut off: squares of each scale wherever they
    hold the middle of the face, and tight crops as they are drawn for the expression."""
    rng, found = np.random.default_rng(0), {f"scale {scale}": [] for scale in SCALES} | {"tight": []}
    landmarks = stages.points["landmarks"] / stages.clip["clip"]["size"]
    for t in range(0, len(landmarks), EVERY):
        middle = landmarks[t].mean(0)
        for scale in SCALES:
            spare = 1 - 1 / scale
            left, top = (rng.uniform(max(0, m - 0.8 / scale), min(spare, m - 0.2 / scale)) for m in middle)
            cut = np.rint(np.array([left, top, spare - left, spare - top]) * side).astype(int)
            found[f"scale {scale}"].append((t, cut.tolist()))
        tight = augment.sample_expression_crop(rng, landmarks[t] * augment.FRAME_SIZE, side)
        found["tight"].append((t, np.rint(tight * side).astype(int).tolist()))
    return found


def test_crops_are_as_sharp_as_the_authors(stages):
    stored, exact = stages.view["frames"].decode(), stages.exact["frames"].decode()
    side = stored.shape[1]
    print(f"\nframes of {side} px; variance of the Laplacian, median of {len(range(0, len(stored), EVERY))}")
    print(f"  {'crop':<12}{'authors':>10}{'ours':>10}{'share':>8}{'reduced first':>16}{'share':>8}")
    shares = {}
    for kind, crops in crops_by_kind(stages, side).items():
        theirs = [sharpness(cut_as_the_authors_do(exact[t], cut)) for t, cut in crops]
        ours = [
            sharpness(augment.crop_and_resize([stored[t]], np.array(cut) / side, 256)[0]) for t, cut in crops
        ]
        early = [sharpness(cut_after_reducing(exact[t], cut)) for t, cut in crops]
        shares[kind] = median(a / b for a, b in zip(ours, theirs, strict=True))
        before = median(a / b for a, b in zip(early, theirs, strict=True))
        print(
            f"  {kind:<12}{median(theirs):>10.1f}{median(ours):>10.1f}{shares[kind]:>8.3f}"
            f"{median(early):>16.1f}{before:>8.3f}"
        )
    assert all(share >= SHARPNESS_AIM for share in shares.values())


# --- cost ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def families(stages, tmp_path_factory) -> dict[str, Family]:
    """Node -> its family in a store of its own."""
    store = Store(str(tmp_path_factory.mktemp("store")))
    found, key = {}, stages.clip["__key__"]
    made = {"clips": stages.clip, "views.vox_max": stages.view, "keypoints": stages.points}
    for node, sample in made.items():
        with store.scratch_folder() as folder:
            with shards.ShardWriter(folder / "s.tar") as shard:
                record = shard.add(shards.encode_sample(sample | {"__key__": key}))
            store.put(folder / "s.tar", locations.pack_path(node, "p"))
        unit = UnitRecord(unit="rec", key="0", status="ok", digest="d", samples=(record,))
        store.write(locations.pack_record_path(node, "p"), encode_pack_record([unit]))
        store.write(locations.manifest_path(node, "k"), encode_manifest([ManifestRow.of(unit, "p")]))
        found[node] = Family(store, node, "k")
    return found


def tasks():
    """Phase -> its task at the published size, sources and frames a sample."""
    net, augmented = full_architecture(), AugmentConfig()
    images = ImageLossRenderingConfig()
    for sources in (1, 2):
        sampling = TrainingSampleConfig(sources=sources)
        with torch.device("meta"):
            yield f"warmup, {sources + 1} frames", FsrtReenactmentTask(net, sampling, augmented)
            yield f"perceptual, {sources + 1} frames", WholeImageTask(net, sampling, augmented, images)


def test_what_cropping_costs_the_loader(families):
    view, key = families["views.vox_max"], families["clips"].keys[0]
    fields = {"landmarks": families["keypoints"], "clip": families["clips"], "affine": view, "frame_at": view}
    asked: list[list[int]] = []

    class Watched:
        """The view, which notes the frames asked for."""

        def __getattr__(self, name):
            return getattr(view, name)

        def frames(self, key, indices):
            asked.append(list(indices))
            return view.frames(key, indices)

    watched = Watched()
    print(f"\nms of CPU a sample; frames of {view.frames(key, [0]).shape[1]} px (aim: {COST_AIM} x)")
    print(f"  {'':<24}{'decode':>9}{'sample':>9}{'ratio':>8}{'fields not kept':>18}")
    ratios = {}
    for name, task in tasks():
        tables = {"clips": SplitClips(watched, {n: watched if f is view else f for n, f in fields.items()},
                                      ((key,),))}  # fmt: skip
        spent: dict[str, list[float]] = {"decode": [], "sample": [], "not kept": []}
        for _ in range(ROUNDS):
            for kind in ("sample", "not kept"):
                asked.clear()
                began = time.process_time()
                for i in range(SAMPLES):
                    if kind == "not kept":
                        tables["clips"]._kept.clear()
                    make_sample(task, tables, 0, i, training=True)
                spent[kind].append(time.process_time() - began)
            began = time.process_time()
            for indices in list(asked):
                view.frames(key, indices)
            spent["decode"].append(time.process_time() - began)
        mean = {kind: median(some) / SAMPLES * 1e3 for kind, some in spent.items()}
        found = {
            kind: median(a / b for a, b in zip(spent[kind], spent["decode"], strict=True)) for kind in mean
        }
        ratios[name] = found["sample"]
        print(
            f"  {name:<24}{mean['decode']:>9.2f}{mean['sample']:>9.2f}{ratios[name]:>8.2f}"
            f"{found['not kept']:>18.2f}"
        )
    assert all(ratio <= COST_LIMIT for ratio in ratios.values())
