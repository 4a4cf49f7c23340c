"""How perception stacks do on real videos and pictures, for which there is no truth: faces found, presence,
jitter, eyes, and the same of frames that are turned, shrunk and mirrored.

REENACT_BENCH_MEDIA=FOLDER python -m pytest -m bench -s tests/bench/bench_real_faces.py

REENACT_BENCH_SHEETS: a folder for contact sheets, to be looked at; empty = none are written.
REENACT_BENCH_STACKS: detector+landmarker by their names in NETS, with spaces between, as bench_face_truth.py
takes them.
REENACT_BENCH_FRAMES: of each video, from its start; 150.

Videos and pictures of the folder are read, and none of their pixels stay but in the sheets. Presence is the
stage's score: of landmarkers that do not tell, the detector's confidence. About five minutes of CPU for eight
videos.
"""

from __future__ import annotations

import os
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from pipelines import media
from pipelines.cluster.runtime import RuntimeConfig
from pipelines.preprocess.keypoints import find_keypoints
from tests.bench.bench_face_truth import Stack, load_stack, number, row
from tests.bench.real_faces import (
    CROP_SIDE,
    PlacedFaces,
    correlation,
    eye_openness,
    eyes_cell,
    face_cell,
    inner_gap,
    jitter,
    mirrored_back,
    place_faces,
    shrunk,
    turned,
    turned_back,
    write_contact_sheet,
)

FOLDER = os.environ.get("REENACT_BENCH_MEDIA", "")
SHEETS = os.environ.get("REENACT_BENCH_SHEETS", "")
STACKS = os.environ.get("REENACT_BENCH_STACKS", "dlib_hog+dlib68 mp_face+mesh468_iris").split()
FRAMES = int(os.environ.get("REENACT_BENCH_FRAMES", "150"))
VIDEOS, PICTURES = {".mp4", ".mov", ".mkv", ".webm"}, {".jpg", ".jpeg", ".png"}
EVERY = 25
"""Frames of a video between those that are looked at whole, turned, shrunk and mirrored."""
TURNS = (0, 20, 40, 60, 90, 180)
FACE_WIDTHS = (64, 32, 24)
CROP_SCALE = 2.0
"""Side of a crop, in the longer side of the face's box."""
FEW = 4
"""Frames of a video on its sheet, of the least open eyes, and of the most."""


class RealClip(NamedTuple):
    name: str
    whole: np.ndarray
    """(n,H,W,3) uint8: every EVERY-th frame as it is."""
    crops: np.ndarray
    """(T,256,256,3) uint8: consecutive frames, cut about the face."""

    @property
    def few(self) -> np.ndarray:
        """(n,256,256,3): the crops that are turned, shrunk and mirrored."""
        return self.crops[::EVERY]


@cache
def real_clips() -> list[RealClip]:
    """Of all files that the folder holds, by name."""
    files = sorted(p for p in Path(FOLDER).iterdir() if p.suffix.lower() in VIDEOS | PICTURES)
    detector = load_stack(STACKS[-1]).detector
    out = []
    for path in files:
        frames = _read(path)
        faces = [found[0, :4] for found in detector.detect(frames[::EVERY]) if len(found)]
        out.append(RealClip(path.stem, frames[::EVERY].copy(), _crops(frames, faces)))
    return out


def _read(path: Path) -> np.ndarray:
    """(T,H,W,3) uint8: a picture is one frame."""
    if path.suffix.lower() in PICTURES:
        return np.array(Image.open(path).convert("RGB"))[None]
    probed = media.probe_file(path)
    frames = media.stream_frames(path, probed, (probed["width"], probed["height"]))
    return np.stack([frame.copy() for frame, _ in islice(frames, FRAMES)])


def _crops(frames: np.ndarray, faces: list[np.ndarray]) -> np.ndarray:
    """One square for all frames, about the faces (4,) that were found; the middle where there are none."""
    height, width = frames.shape[1:3]
    box = np.median(faces, axis=0) if faces else np.array([0, 0, width, height]) / CROP_SCALE
    middle = (box[:2] + box[2:]) / 2 if faces else np.array([width, height]) / 2
    half = CROP_SCALE * (box[2:] - box[:2]).max() / 2
    left, top, right, bottom = (round(float(at)) for at in (*(middle - half), *(middle + half)))
    size, how = (CROP_SIDE, CROP_SIDE), Image.Resampling.BICUBIC
    cut = [Image.fromarray(frame).crop((left, top, right, bottom)).resize(size, how) for frame in frames]
    return np.stack([np.asarray(one) for one in cut])


def place(stack: Stack, frames: np.ndarray) -> PlacedFaces:
    return place_faces(stack.detector, stack.landmarker, frames)


def track(stack: Stack, clip: RealClip) -> PlacedFaces:
    """All crops of a clip through the stage, as in a run."""
    inputs = {"clips": [{"__key__": "000", "frames": clip.crops, "clip": {}}]}
    points = next(find_keypoints(inputs, stack.keypoints, stack.nets, RuntimeConfig()))
    return PlacedFaces(points["landmarks"], points["score"], points.get("dense"))


# --- the table ----------------------------------------------------------------------------------------------
def label(stack: Stack) -> str:
    return f"{stack.keypoints.detector}+{stack.keypoints.landmarker}{stack.backend}"


def print_clip(stack: Stack, clip: RealClip, found: PlacedFaces, reference: PlacedFaces) -> None:
    """reference: the first stack's, whose eyes the others' are compared with."""
    whole = [len(faces) for faces in stack.detector.detect(clip.whole)]
    seen = found.presence[found.seen]
    tremble = jitter(found.landmarks) if len(clip.crops) > 2 and len(seen) else None
    eyes = eye_openness(found.landmarks, found.dense).mean(1)
    others = eye_openness(reference.landmarks, reference.dense).mean(1)
    row(
        f"{clip.name[:22]:<22} {label(stack)[:23]}",
        f"{np.mean(np.array(whole) > 0):.0%} of {len(whole)}",
        f"{max(whole)}",
        f"{np.mean(found.seen):.0%}",
        f"{seen.min():.2f} {np.median(seen):.2f}" if len(seen) else "",
        f"{tremble.rms:.2f} {tremble.median:.2f}" if tremble else "",
        f"{np.nanmin(eyes):.2f} {np.nanmedian(eyes):.2f}" if len(seen) else "",
        number(correlation(eyes, others)),
    )


def print_changed(stack: Stack) -> None:
    """Frames turned, mirrored and shrunk: the share of those with a face that still have one, its presence,
    and how far its inner points lie from those of the frames as they were."""
    clips = [clip for clip in real_clips() if place(stack, clip.few).seen.any()]
    upright = [place(stack, clip.few) for clip in clips]
    for degrees in TURNS[1:]:
        found = [place(stack, turned(clip.few, degrees)) for clip in clips]
        back = [turned_back(one.landmarks, degrees, CROP_SIDE) for one in found]
        print_change(stack, f"turned by {degrees}", upright, found, back)
    found = [place(stack, np.ascontiguousarray(clip.few[:, :, ::-1])) for clip in clips]
    back = [mirrored_back(one.landmarks, CROP_SIDE) for one in found]
    print_change(stack, "mirrored", upright, found, back)
    for width in FACE_WIDTHS:
        changed = [shrunk_clip(clip.few, one, width) for clip, one in zip(clips, upright, strict=True)]
        found = [place(stack, one.frames) for one in changed]
        back = [one.to_crops(f.landmarks) for one, f in zip(changed, found, strict=True)]
        print_change(stack, f"{width} px wide", upright, found, back)


class ShrunkClip(NamedTuple):
    frames: np.ndarray
    """(n,360,640,3) uint8."""
    scales: np.ndarray
    """(n,) sides of the new over those of the old."""
    corners: np.ndarray
    """(n,2) left and top of the old in the new."""

    def to_crops(self, landmarks: np.ndarray) -> np.ndarray:
        return (landmarks - self.corners[:, None]) / self.scales[:, None, None]


def shrunk_clip(frames: np.ndarray, upright: PlacedFaces, width: int) -> ShrunkClip:
    """Frames (n,S,S,3) whose faces are made `width` px wide, jaw to jaw."""
    widths = np.ptp(upright.landmarks[..., 0], axis=1)
    widths = np.where(np.isfinite(widths), widths, np.nanmedian(widths))
    parts = [shrunk(frame, float(w), width) for frame, w in zip(frames, widths, strict=True)]
    return ShrunkClip(*(np.stack(part) for part in zip(*parts, strict=True)))


def print_change(
    stack: Stack, title: str, upright: list[PlacedFaces], found: list[PlacedFaces], back: list[np.ndarray]
) -> None:
    seen = np.concatenate([one.seen for one in upright])
    still = np.concatenate([one.seen for one in found])[seen]
    presence = np.concatenate([one.presence for one in found])[seen][still]
    pairs = zip(back, upright, strict=True)
    gap = np.concatenate([inner_gap(one, before.landmarks) for one, before in pairs])[seen][still]
    row(
        f"{label(stack)}: {title}",
        f"{still.mean():.0%} of {len(still)}",
        f"{presence.min():.2f} {np.median(presence):.2f}" if len(presence) else "",
        *(number(float(np.percentile(gap, share)), 1) for share in (50, 95) if len(gap)),
    )


# --- contact sheets -----------------------------------------------------------------------------------------
def write_eye_sheet(stack: Stack, tracked: list[PlacedFaces]) -> None:
    """Of each video the frames of the least open eyes and of the most, and the eyes of these."""
    rows, names = [], []
    for clip, found in zip(real_clips(), tracked, strict=True):
        if not found.seen.any() or len(clip.crops) < 2 * FEW:
            continue
        eyes = eye_openness(found.landmarks, found.dense).mean(1)
        order = np.argsort(np.where(np.isfinite(eyes), eyes, np.nanmedian(eyes)), kind="stable")
        chosen = [*order[:FEW], *order[-FEW:]]
        rows.append([face_cell(clip.crops[t], found.landmarks[t]) for t in chosen])
        names.append(clip.name)
        dense = [None if found.dense is None else found.dense[t] for t in chosen]
        rows.append(
            [eyes_cell(clip.crops[t], found.landmarks[t], d) for t, d in zip(chosen, dense, strict=True)]
        )
        names.append("openness " + ", ".join(f"{eyes[t]:.2f} (frame {t})" for t in chosen))
    titles = ["least open"] * FEW + ["most open"] * FEW
    write_contact_sheet(Path(SHEETS) / f"eyes {label(stack)}.png", rows, titles, names)


def write_change_sheet(stack: Stack) -> None:
    """A frame of each video and picture: as it is, turned, mirrored and shrunk."""
    rows, names = [], []
    for clip in real_clips():
        frame = clip.few[len(clip.few) // 2][None]
        upright = place(stack, frame)
        pictures = [turned(frame, degrees) for degrees in TURNS]
        pictures.append(np.ascontiguousarray(frame[:, :, ::-1]))
        if upright.seen.all():
            pictures += [shrunk_clip(frame, upright, width).frames for width in FACE_WIDTHS]
        else:
            pictures += [frame] * len(FACE_WIDTHS)
        found = [place(stack, picture) for picture in pictures]
        cells = [face_cell(p[0], one.landmarks[0]) for p, one in zip(pictures, found, strict=True)]
        rows.append(cells)
        names.append(f"{clip.name}: presence " + ", ".join(f"{one.presence[0]:.2f}" for one in found))
    titles = [f"turned by {d}" for d in TURNS] + ["mirrored"] + [f"{w} px wide" for w in FACE_WIDTHS]
    write_contact_sheet(Path(SHEETS) / f"changed {label(stack)}.png", rows, titles, names)


@pytest.mark.bench
@pytest.mark.skipif(not FOLDER, reason="REENACT_BENCH_MEDIA names no folder of videos and pictures")
def test_real_faces_are_found_whole_turned_shrunk_and_mirrored():
    stacks = [load_stack(name) for name in STACKS]
    tracked = [[track(stack, clip) for clip in real_clips()] for stack in stacks]
    print(f"\n{len(real_clips())} files, {sum(len(clip.crops) for clip in real_clips())} frames")
    row(
        "whole frames; crops of 256 px",
        "with a face",
        "most faces",
        "crops: seen",
        "presence",
        "jitter",
        "eyes: open",
        "r with first",
    )
    for n, clip in enumerate(real_clips()):
        for stack, found in zip(stacks, tracked, strict=True):
            print_clip(stack, clip, found[n], tracked[0][n])
    if SHEETS:
        for stack, found in zip(stacks, tracked, strict=True):
            write_eye_sheet(stack, found)
            write_change_sheet(stack)
    row("changed crops, each frame by itself", "still seen", "presence", "off by %", "95th of it")
    for stack in stacks:
        print_changed(stack)
    best = tracked[-1]
    assert all(f.seen.all() for f, c in zip(best, real_clips(), strict=True) if len(c.crops) > 1)
