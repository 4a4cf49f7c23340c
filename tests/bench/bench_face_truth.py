"""How well a perception stack sees rendered heads, whose truth is known: one table.

python -m pytest -m bench -s tests/bench/bench_face_truth.py

REENACT_BENCH_STACKS: detector+landmarker by their names in NETS, several with spaces between;
mp_face+mesh468_iris.torch is one on another backend than LiteRT.
REENACT_BENCH_RECORDINGS: fewer than the demo's 36.

The recordings are the demo's, at 320 px, as they were rendered: all frames go through the stages `keypoints`
and `fit3dmm`, errors of landmarks are told of every third. Then heads turned to the side, and small faces on
a grey canvas. About two minutes of CPU for the recordings, and a minute a stack.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from models.perception import net_on_backend
from models.perception.head.default_head import get_analytic_head
from models.perception.interfaces import FaceDetector, Landmarker
from pipelines import media
from pipelines.cluster.runtime import RuntimeConfig
from pipelines.nets import load_nets
from pipelines.preprocess.fit3dmm import Fit3dmmConfig, fit_clips
from pipelines.preprocess.keypoints import KeypointsConfig, find_keypoints
from pipelines.preprocess.sources.common.head_appearance import (
    sample_person_appearance,
    sample_synthetic_recording_appearance,
)
from pipelines.preprocess.sources.common.rendered_head import HeadRenderer, SyntheticHeadState
from pipelines.preprocess.sources.common.rows import BaseRecording
from pipelines.preprocess.sources.synthetic import (
    IMAGE_HEIGHT_UNITS,
    SyntheticConfig,
    list_recordings,
    render_synthetic_recording,
)
from storage.files import Store
from storage.shards import Sample
from tests.bench.face_truth import (
    MEASURES,
    Truth,
    box_of_landmarks,
    expression_agreement,
    mean_error_by_group,
    measure_agreement,
    motion_errors,
    overlap,
    pose_error,
    relative_errors,
    without_constant_offsets,
)

RECORDINGS = int(os.environ.get("REENACT_BENCH_RECORDINGS", "36"))
STACKS = os.environ.get("REENACT_BENCH_STACKS", "dlib_hog+dlib68 mp_face+mesh468_iris").split()
STORE = os.environ.get("REENACT_BENCH_STORE", "")
"""Where weights that no wheel brings lie; empty = a store without any."""
DEMO = SyntheticConfig(identities=RECORDINGS, test_identities=0, clips_per_identity=1, seconds=2.7)
SIDE = 320
EVERY = 3
"""Frames of which landmark errors are told; neighbours are nearly alike."""
YAWS = tuple(range(0, 100, 10))
FACE_WIDTHS = (96, 64, 48, 32, 24, 16)
CANVAS = (360, 640)
TURNED_PEOPLE = 8
DENSE = Fit3dmmConfig(backend="algorithm1", points="dense", failed="keep")
FITS = {
    "landmarks": Fit3dmmConfig(failed="keep"),
    "landmarks, eyelids x3": Fit3dmmConfig(eyelid_weight=3.0, failed="keep"),
    "algorithm1, 68": Fit3dmmConfig(backend="algorithm1", alignments=5, failed="keep"),
    "algorithm1, dense, published": DENSE,
    "algorithm1, dense, 5 alignments": replace(DENSE, alignments=5, camera_target="fitted"),
}
"""Those whose points a landmarker gives are told."""


class RenderedClip(NamedTuple):
    frames: np.ndarray
    """(T,320,320,3) uint8, through H.264 as the recordings are."""
    truth: Truth


@cache
def rendered_clips() -> list[RenderedClip]:
    return [render_clip(row) for row in list_recordings(DEMO)]


def render_clip(listed: BaseRecording) -> RenderedClip:
    video, truth = render_synthetic_recording(listed, get_analytic_head())
    with media.open_as_local_file(video) as path:
        frames, _ = media.read_frames(path, media.probe_file(path), (SIDE, SIDE))
    return RenderedClip(frames, truth)


@cache
def turned_heads() -> tuple[np.ndarray, np.ndarray]:
    """Frames (people,yaws,320,320,3) of calm faces, and their landmarks (people,yaws,68,2)."""
    model, frames, points = get_analytic_head(), [], []
    for row in list_recordings(
        SyntheticConfig(identities=TURNED_PEOPLE, test_identities=0, clips_per_identity=1)
    ):
        spec = json.loads(row["spec"])
        person = np.random.default_rng(spec["identity_seed"])
        appearance = sample_person_appearance(person, int(spec["identity"]), model)
        setting = sample_synthetic_recording_appearance(np.random.default_rng(row["seed"]), SIDE, SIDE)
        renderer = HeadRenderer(model, appearance, setting, SIDE, SIDE)
        poses = [
            SyntheticHeadState(
                np.array([0.0, yaw, 0.0]),
                SIDE / IMAGE_HEIGHT_UNITS,
                SIDE * np.array([0.5, 0.45, 0]),
                np.zeros(model.n_exp),
                np.zeros(2),
            )
            for yaw in YAWS
        ]
        frames.append([renderer.render_frame(pose) for pose in poses])
        points.append([renderer.project_landmarks(pose) for pose in poses])
    return np.array(frames), np.array(points)


@cache
def small_faces(width: int) -> tuple[np.ndarray, np.ndarray]:
    """The middle frame of each recording, shrunk until its face is `width` px wide, on a grey canvas: frames
    (n,360,640,3) uint8, and the faces' boxes (n,4)."""
    frames, boxes = [], []
    for clip in rendered_clips():
        middle = len(clip.frames) // 2
        box = box_of_landmarks(clip.truth["landmarks"][middle])
        side = round(SIDE * width / (box[2] - box[0]))
        small = Image.fromarray(clip.frames[middle]).resize((side, side), Image.Resampling.BICUBIC)
        canvas = np.full((*CANVAS, 3), 128, np.uint8)
        top, left = ((length - side) // 2 for length in CANVAS)
        canvas[top : top + side, left : left + side] = np.asarray(small)
        frames.append(canvas)
        boxes.append(box * side / SIDE + [left, top, left, top])
    return np.array(frames), np.array(boxes)


class Stack(NamedTuple):
    nets: Mapping[str, object]
    keypoints: KeypointsConfig
    backend: str
    """What is told behind the nets' names."""

    @property
    def detector(self) -> FaceDetector:
        return self.nets[self.keypoints.detector]  # pyright: ignore[reportReturnType]

    @property
    def landmarker(self) -> Landmarker:
        return self.nets[self.keypoints.landmarker]  # pyright: ignore[reportReturnType]


def load_stack(name: str) -> Stack:
    """detector+landmarker, and behind a point the backend where that is not litert."""
    names, _, backend = name.partition(".")
    detector, _, landmarker = names.partition("+")
    on_backend = [net_on_backend(net, backend or "litert") for net in (detector, landmarker)]
    with TemporaryDirectory() as folder:
        nets = load_nets(on_backend, Store(STORE or folder))
    settings = KeypointsConfig(detector=detector, landmarker=landmarker)  # pyright: ignore[reportArgumentType]
    return Stack(nets, settings, f".{backend}" if backend else "")


def keypoints_of(stack: Stack) -> list[Sample]:
    clips = [{"__key__": f"{n:03d}", "frames": c.frames, "clip": {}} for n, c in enumerate(rendered_clips())]
    return list(find_keypoints({"clips": clips}, stack.keypoints, stack.nets, RuntimeConfig()))


def fits_of(points: list[Sample], config: Fit3dmmConfig) -> list[Sample]:
    nets = {"analytic_head": get_analytic_head()}
    return list(fit_clips({"keypoints": points, "clips": []}, config, nets, RuntimeConfig()))


# --- the table ----------------------------------------------------------------------------------------------
def row(title: str, *values: str) -> None:
    print(f"  {title:<46}" + "".join(f"{value:>12}" for value in values))


def number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}"


def print_landmark_errors(stack: Stack, points: list[Sample]) -> None:
    clips = rendered_clips()
    seen = np.mean(np.concatenate([p["score"] > 0 for p in points]))
    errors = [
        relative_errors(p["landmarks"][::EVERY], c.truth["landmarks"][::EVERY])
        for p, c in zip(points, clips, strict=True)
    ]
    kinds = {"as they are": errors, "each clip's own mean off": motion_errors(errors)}
    if len(errors) > 1:
        kinds["the other half's offsets off"] = without_constant_offsets(errors)
    for kind, left in kinds.items():
        found = mean_error_by_group(left)
        row(f"{stack.keypoints.landmarker}{stack.backend}, {kind}", *map(number, found.values()))
    row(f"{stack.keypoints.detector}{stack.backend}, frames with a face", f"{seen:.1%}")


def print_measures(stack: Stack, points: list[Sample]) -> None:
    truths = [clip.truth for clip in rendered_clips()]
    found = measure_agreement([p["landmarks"] for p in points], truths)
    row(f"{stack.keypoints.landmarker}{stack.backend}", *(number(one.median) for one in found.values()))


def print_fits(stack: Stack, points: list[Sample]) -> None:
    truths = [clip.truth for clip in rendered_clips()]
    for name, config in FITS.items():
        if config.points not in points[0]:
            continue
        fits = fits_of(points, config)
        for fit in fits:
            fit["angles"][~fit["fit_valid"]] = np.nan
            fit["exp_coeffs"][~fit["fit_valid"]] = np.nan
        pose = pose_error([fit["angles"] for fit in fits], truths)
        motion = expression_agreement([fit["exp_coeffs"] for fit in fits], truths)
        values = [f"{left:.2f} {bias:+.1f}" for left, bias in zip(pose.unbiased, pose.bias, strict=True)] + [
            f"{one.mean:.2f} x{one.slope:.2f}" for one in motion.values()
        ]
        row(f"{stack.keypoints.landmarker}{stack.backend}, {name}", *values)


def print_yaws(stack: Stack) -> None:
    frames, points = turned_heads()
    found, placed, errors = [], [], []
    for k in range(len(YAWS)):
        boxes = np.full((len(frames), 4), np.nan, np.float32)
        for n, faces in enumerate(stack.detector.detect(frames[:, k])):
            true = box_of_landmarks(points[n, k])
            boxes[n] = next((face[:4] for face in faces if overlap(face[:4], true) > 0.3), boxes[n])
        marks = stack.landmarker.predict(frames[:, k], boxes).landmarks
        size = np.sqrt(np.ptp(points[:, k], axis=1).prod(1))
        off = np.linalg.norm(marks - points[:, k], axis=-1)[:, 17:].mean(1) / size
        found.append(np.isfinite(boxes).all(1).mean())
        placed.append(np.isfinite(off).mean())
        errors.append(100 * np.nanmean(off) if np.isfinite(off).any() else np.nan)
    row(f"{stack.keypoints.detector}{stack.backend}: share found", *map(number, found))
    row(f"{stack.keypoints.landmarker}{stack.backend}: share placed", *map(number, placed))
    row(f"{stack.keypoints.landmarker}{stack.backend}: inner 51, % of the face", *map(number, errors))


def print_sizes(stack: Stack) -> None:
    shares = []
    for width in FACE_WIDTHS:
        frames, boxes = small_faces(width)
        hits = [
            any(overlap(face[:4], box) > 0.3 for face in faces)
            for faces, box in zip(stack.detector.detect(frames), boxes, strict=True)
        ]
        shares.append(float(np.mean(hits)))
    row(f"{stack.keypoints.detector}{stack.backend}: share found", *map(number, shares))


@pytest.mark.bench
def test_faces_against_the_truth_they_were_rendered_from():
    stacks = [load_stack(name) for name in STACKS]
    points = [keypoints_of(stack) for stack in stacks]
    print(f"\n{RECORDINGS} rendered recordings of {len(rendered_clips()[0].frames)} frames, {SIDE} px")
    row("landmarks, % of the eyes' distance", "inner 51", "jaw", "brow", "nose", "eye", "mouth")
    for stack, found in zip(stacks, points, strict=True):
        print_landmark_errors(stack, found)
    row("measured on them, median r of clips", *MEASURES)
    for stack, found in zip(stacks, points, strict=True):
        print_measures(stack, found)
    angles = ("pitch, bias", "yaw, bias", "roll, bias")
    row(
        "fits: degrees; mean r of clips, slope",
        *angles,
        "jaw",
        "smile",
        "brow raise",
        "frown",
        "blink left",
        "right",
    )
    for stack, found in zip(stacks, points, strict=True):
        print_fits(stack, found)
    row("turned to the side by degrees", *map(str, YAWS))
    for stack in stacks:
        print_yaws(stack)
    row("face's width in px, of 640x360", *map(str, FACE_WIDTHS))
    for stack in stacks:
        print_sizes(stack)
