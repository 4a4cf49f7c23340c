"""Fitting a morphable model to clips: time a frame, and against the published way.

python -m pytest -m bench -s tests/bench/bench_fit3dmm.py

HeadGAN's code solves bounded least squares frame by frame (trust region, 1e-10). Here it is written plainly
with scipy, on the same aligned points.
"""

import time

import numpy as np
import pytest

from models.perception.head.default_head import get_analytic_head
from models.perception.head.dense_fit import DenseFitter
from models.perception.head.landmark_fit import LandmarkFitOptions, fit_landmarks
from models.perception.head.pose import euler_to_rotation, project

FRAMES, POINTS, N_ID, N_EXP = 500, 1035, 157, 28


def best(work, times=5):
    spans = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        spans.append(time.perf_counter() - start)
    return min(spans)


@pytest.fixture(scope="module")
def clip():
    """500 frames of a model of HeadGAN's size: its mean and bases at 1035 points, and the image's points."""
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(POINTS, 3))
    bases = rng.normal(size=(POINTS, 3, N_ID)) * 0.02, rng.normal(size=(POINTS, 3, N_EXP)) * 0.02
    id, exp = rng.normal(size=N_ID) * 0.3, rng.normal(size=(FRAMES, N_EXP)) * 0.5
    shape = mean + bases[0] @ id + np.einsum("ncj,tj->tnc", bases[1], exp)
    rotation = euler_to_rotation(*rng.uniform(-25, 25, (3, FRAMES)))
    points = project(shape, rng.uniform(60, 80, FRAMES), rotation, rng.uniform(100, 150, (FRAMES, 3)))
    return (mean, *bases), points.astype(np.float32)


@pytest.mark.bench
def test_dense_points_against_the_published_solver(clip):
    from scipy.optimize import lsq_linear

    parts, points = clip
    solver = DenseFitter(*parts)
    ours = best(lambda: solver.fit_points(points))
    with_error = best(lambda: solver.fit_error(solver.fit_points(points), points))
    similarity = solver.align_points(points)
    basis = np.concatenate(parts[1:], axis=2).reshape(3 * POINTS, -1)
    bound = np.r_[np.full(N_ID, 0.8), np.full(N_EXP, 1.5)]

    def published(t):
        turned = similarity.scale[t] * (points[t] * [1, -1, -1]) @ similarity.turn[t] + similarity.shift[t]
        lsq_linear(basis, (turned - parts[0]).ravel(), (-bound, bound), method="trf", tol=1e-10)

    theirs = best(lambda: published(0), times=3)
    print(
        f"\n{POINTS} points, {N_ID + N_EXP} coefficients: {ours * 1e3:.1f} ms for {FRAMES} frames "
        f"({ours * 1e3 / FRAMES:.3f} ms a frame), with the error {with_error * 1e3:.1f} ms; "
        f"bounded least squares {theirs * 1e3:.0f} ms a frame, {theirs * FRAMES / ours:.0f} times as long"
    )
    assert with_error < 0.05
    assert theirs * FRAMES / ours > 100


@pytest.mark.bench
def test_68_points(clip):
    parts, points = clip
    chosen = np.arange(0, POINTS, POINTS // 68)[:68]
    wide = DenseFitter(*(part[chosen] for part in parts), ridge=1e-3, rounds=5)
    times = {f"ridge, {N_ID + N_EXP} coefficients": best(lambda: wide.fit_points(points[:, chosen])) / FRAMES}
    times["the same without depth"] = best(lambda: wide.fit_points(points[:, chosen, :2])) / FRAMES
    head = get_analytic_head()
    rng = np.random.default_rng(0)
    angles, exp = rng.uniform(-20, 20, (3, FRAMES)), rng.normal(size=(FRAMES, head.n_exp)) * 0.5
    marks = project(
        head.landmarks(head.shape(np.zeros(head.n_id), exp)), 60.0, euler_to_rotation(*angles), [128, 128, 0]
    )[..., :2].astype(np.float32)
    count = head.n_id + head.n_exp
    times[f"Gauss-Newton, {count} coefficients"] = (
        best(lambda: fit_landmarks(head, marks, LandmarkFitOptions())) / FRAMES
    )
    for name, seconds in times.items():
        print(f"\n68 points, {name}: {seconds * 1e3:.3f} ms a frame", end="")
        assert seconds < 0.0003
    print()
