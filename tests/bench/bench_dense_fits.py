"""Algorithm 1 on the dense points of a face mesh, on real videos and pictures: what the fits miss, and the
NMFC that HeadGAN is shown, over the frames.

REENACT_BENCH_MEDIA=FOLDER python -m pytest -m bench -s tests/bench/bench_dense_fits.py

REENACT_BENCH_SHEETS: a folder for contact sheets, to be looked at; empty = none are written.
REENACT_BENCH_FRAMES: of each video, from its start; 150.

There is no truth: residuals say how well the head follows the points, whether or not they follow the face.
The speed needs no media: python -m pytest -m bench -s tests/bench/bench_dense_fits.py -k speed
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from models.headgan.conditions import FaceRenderer
from models.headgan.fitter import OFFICIAL_FITS
from models.headgan.motion import HeadMotion
from models.perception.head.default_head import get_analytic_head
from models.perception.head.dense_fit import DenseFitter
from models.perception.head.face_fitter import FaceFitSettings, fit_video, make_point_fitter
from models.perception.head.landmark_fit import FaceFit, face_size, landmark_fit_error
from models.perception.head.pose import euler_to_rotation, project, rotation_to_euler
from pipelines.cluster.runtime import RuntimeConfig
from pipelines.preprocess.keypoints import find_keypoints
from tests.bench.bench_face_truth import load_stack, number, row
from tests.bench.bench_real_faces import FOLDER, SHEETS, RealClip, real_clips
from tests.bench.face_truth import eye_distance
from tests.bench.real_faces import write_contact_sheet

STACK = "mp_face+mesh468_iris"
DENSE = replace(OFFICIAL_FITS, identity="clip")
FITS = {
    "landmarks": FaceFitSettings(),
    "as published": FaceFitSettings(backend="algorithm1", points="dense", orthonormal=False),
    "1 alignment": FaceFitSettings(backend="algorithm1", points="dense"),
    "1, fitted": FaceFitSettings(backend="algorithm1", points="dense", camera_target="fitted"),
    "5, fitted": DENSE,
    "5, fitted, frame": OFFICIAL_FITS,
    "5, fitted, ridge / 4": replace(DENSE, ridge=0.0),
}
"""The last one's ridge is filled in by `settings_of`."""
MODEL = get_analytic_head()
CROP_SIDE, SHEET_FRAMES = 256, 5
FRAMES, SPEED_LIMIT = 500, 0.2e-3


def settings_of(name: str) -> FaceFitSettings:
    if "ridge" not in name:
        return FITS[name]
    half = np.ptp(MODEL.dense_model()[0][:, 0]) / 2
    return replace(FITS[name], ridge=float(0.06 * half) ** 2 / 4)


class PointsOfClip(NamedTuple):
    landmarks: np.ndarray
    """(T,68,2)"""
    dense: np.ndarray
    """(T,468,3)"""


@cache
def points_of(name: str) -> PointsOfClip:
    stack = load_stack(STACK)
    (clip,) = [clip for clip in real_clips() if clip.name == name]
    inputs = {"clips": [{"__key__": "000", "frames": clip.crops, "clip": {}}]}
    found = next(find_keypoints(inputs, stack.keypoints, stack.nets, RuntimeConfig()))
    return PointsOfClip(found["landmarks"], found["dense"])


def fit_of(points: PointsOfClip, settings: FaceFitSettings) -> FaceFit:
    given = points.dense if settings.points == "dense" else points.landmarks
    return fit_video(MODEL, points.landmarks, given, settings)[0]


def lip_gap(landmarks: np.ndarray) -> np.ndarray:
    """(T,68,2) -> (T,) gap of the inner lips."""
    return np.linalg.norm(landmarks[:, 62] - landmarks[:, 66], axis=1)


def fitted_landmarks(fit: FaceFit) -> np.ndarray:
    """(T,68,2) of the fitted head."""
    ids = fit.id if fit.id.ndim == 2 else np.tile(fit.id, (len(fit.exp), 1))
    marks = MODEL.landmarks(MODEL.shape(ids, fit.exp))
    return project(marks, fit.scale, fit.rotation, fit.translation)[..., :2]


def motion_of(fit: FaceFit) -> HeadMotion:
    return HeadMotion(
        identity=np.broadcast_to(fit.id, (len(fit.exp), MODEL.n_id)).copy(), expression=fit.exp,
        scale=fit.scale, rotation=fit.rotation, translation=fit.translation,
    )  # fmt: skip


def print_fit(clip: RealClip, name: str, points: PointsOfClip, fit: FaceFit) -> tuple[float, float]:
    """One line; returns the median and the 95 % of the residual in % of the eyes' distance."""
    seen = np.isfinite(points.landmarks).all((1, 2))
    eyes, size = eye_distance(points.landmarks[seen]), face_size(points.landmarks[seen])
    settings, sub = settings_of(name), fit.select_frames(seen)
    inner = landmark_fit_error(MODEL, sub, points.landmarks[seen])
    own = (
        make_point_fitter(settings, MODEL).error(sub, points.dense[seen])
        if settings.points == "dense"
        else inner
    )
    lips = 100 * np.abs(lip_gap(fitted_landmarks(sub)) - lip_gap(points.landmarks[seen])) / eyes
    angles = rotation_to_euler(sub.rotation)
    shake = np.abs(np.diff(angles, 2, axis=0)).mean(0) if len(angles) > 2 else np.full(3, np.nan)
    shares = [np.percentile(100 * own / eyes, p) for p in (50, 95)]
    row(
        f"{clip.name[:22]:<22} {name:<20}",
        f"{shares[0]:.1f} {shares[1]:.1f}",
        f"{np.median(100 * own / size):.1f} {np.percentile(100 * own / size, 95):.1f}",
        f"{np.median(100 * inner / eyes):.1f} {np.percentile(100 * inner / eyes, 95):.1f}",
        f"{lips.mean():.1f}",
        " ".join(f"{one:.2f}" for one in shake),
        f"{np.abs(sub.exp).mean():.2f} {np.abs(sub.exp).max():.1f} {np.abs(sub.id).max():.1f}",
    )
    return float(shares[0]), float(shares[1])


def nmfc_cells(clip: RealClip, points: PointsOfClip, name: str, frames: list[int]) -> list[np.ndarray]:
    """For each frame the picture with the fitted head's NMFC half over it."""
    motion = motion_of(fit_of(points, settings_of(name))).select_frames(np.array(frames))
    drawn = FaceRenderer(MODEL, CROP_SIDE).render_nmfc(torch.from_numpy(motion.pack())).numpy()
    nmfc = 255 * np.moveaxis(drawn, 1, 3)
    covered = (nmfc > 0).any(3, keepdims=True)
    mixed = np.where(covered, 0.35 * clip.crops[frames] + 0.65 * nmfc, clip.crops[frames])
    return list(mixed.round().astype(np.uint8))


@pytest.mark.bench
@pytest.mark.skipif(not FOLDER, reason="REENACT_BENCH_MEDIA names no folder of real media")
def test_residuals_on_real_media():
    row(
        f"\n{'file':<22} {'fits':<20}",
        "% of eyes",
        "% of face",
        "51 points",
        "lips %",
        "jitter deg",
        "coefficients",
    )
    every: dict[str, list[tuple[float, float]]] = {name: [] for name in FITS}
    for clip in real_clips():
        points = points_of(clip.name)
        seen = np.flatnonzero(np.isfinite(points.landmarks).all((1, 2)))
        if not len(seen):
            print(f"{clip.name}: no face")
            continue
        for name in FITS:
            every[name].append(print_fit(clip, name, points, fit_of(points, settings_of(name))))
        if SHEETS:
            frames = [int(t) for t in seen[np.linspace(0, len(seen) - 1, SHEET_FRAMES).astype(int)]]
            shown = ["landmarks", "1 alignment", "5, fitted"]
            rows = [[clip.crops[t] for t in frames]] + [nmfc_cells(clip, points, n, frames) for n in shown]
            titles = [f"frame {t}" for t in frames]
            write_contact_sheet(Path(SHEETS) / f"nmfc_{clip.name}.png", rows, titles, ["frames", *shown])
    for name, found in every.items():
        median, high = np.array(found).T
        row(f"{name:<20} median over files", f"{number(np.median(median))} {number(np.median(high))}")
        assert np.median(median) < 12


@pytest.mark.bench
def test_speed_of_the_dense_mesh():
    """The floor: one product of the points with the solver, and as many singular values of 3 x 3 matrices."""
    mean, _, exp_basis = MODEL.dense_model()
    rng, count = np.random.default_rng(0), len(mean)
    shape = mean + np.einsum("ncj,tj->tnc", exp_basis, rng.normal(size=(FRAMES, MODEL.n_exp)) * 0.5)
    turned = euler_to_rotation(*rng.uniform(-25, 25, (3, FRAMES)))
    points = project(shape, rng.uniform(60, 80, FRAMES), turned, rng.uniform(100, 150, (FRAMES, 3)))
    points = points.astype(np.float32)
    solve = rng.normal(size=(3 * count, MODEL.n_id + MODEL.n_exp)).astype(np.float32)
    small = rng.normal(size=(FRAMES, 3, 3))

    def floor() -> None:
        points.reshape(FRAMES, -1) @ solve
        np.linalg.svd(small)

    def seconds(work, times: int = 7) -> float:
        spans = []
        for _ in range(times):
            start = time.process_time()
            work()
            spans.append(time.process_time() - start)
        return min(spans) / FRAMES

    least = seconds(floor)
    for rounds, target in ((1, "mean"), (1, "fitted"), (5, "fitted")):
        solver = DenseFitter.for_model(MODEL, "dense", rounds=rounds, camera_target=target, orthonormal=True)
        ours = seconds(lambda solver=solver: solver.fit_error(solver.fit_points(points), points))
        print(
            f"\n{count} points, {rounds} alignments, camera on {target}: {ours * 1e3:.3f} ms a frame with "
            f"its error, {ours / least:.1f} times one product and the singular values ({least * 1e3:.3f} ms)"
        )
        assert ours < SPEED_LIMIT
