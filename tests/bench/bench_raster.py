"""Rendering the face that HeadGAN is shown: processor time a frame, and frames a second on a GPU.

python -m pytest -m bench -s tests/bench/bench_raster.py

A face of 75,272 triangles, about what LSFM and Basel have, fills most of 256 x 256 pixels. Processor time
counts, not the clock's, so that a busy machine changes little.
"""

import time

import numpy as np
import pytest
import torch

from models.headgan.conditions import FaceRenderer
from models.perception.head.morphable import MorphableModel
from models.perception.head.pose import euler_to_rotation
from models.perception.head.raster import rasterize as rasterize_numpy
from models.perception.head.raster_torch import rasterize

SIDE, GRID, N_ID, N_EXP = 256, 195, 157, 28


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def face() -> MorphableModel:
    """The front of an ellipsoid as a morphable model of LSFM's size."""
    rng, at = np.random.default_rng(0), np.linspace(-0.475, 0.475, GRID) * np.pi
    a, b = np.meshgrid(at, at, indexing="ij")
    mean = np.stack([0.75 * np.sin(a) * np.cos(b), np.sin(b), 0.6 * np.cos(a) * np.cos(b)], -1).reshape(-1, 3)
    i = (np.arange(GRID - 1)[:, None] * GRID + np.arange(GRID - 1)).reshape(-1)
    faces = np.concatenate([np.stack([i, i + GRID, i + 1], 1), np.stack([i + 1, i + GRID, i + GRID + 1], 1)])

    def basis(k: int) -> np.ndarray:
        """Smooth, as a face's are: a noisy surface would have other triangles."""
        waves = rng.normal(size=(3, k))
        return (0.01 * np.sin(3 * mean @ waves)[:, None] * rng.normal(size=(3, k))).astype(np.float32)

    return MorphableModel(
        name="ellipsoid", license="none", mean=mean.astype(np.float32), id_basis=basis(N_ID),
        exp_basis=basis(N_EXP), faces=faces.astype(np.int32),
        lm68_index=np.zeros((68, 3), np.int32), lm68_weight=np.full((68, 3), 1 / 3, np.float32),
    )  # fmt: skip


def packed(frames: int) -> torch.Tensor:
    rng = np.random.default_rng(1)
    rotation = euler_to_rotation(*rng.uniform(-25, 25, (3, frames))).reshape(frames, 9)
    parts = [rng.normal(size=(frames, N_ID + N_EXP)) * 0.3, np.full((frames, 1), 110.0), rotation]
    place = np.tile([SIDE / 2, SIDE / 2, 0], (frames, 1))
    return torch.from_numpy(np.concatenate([*parts, place], axis=1)).float()


def spent(work, times=7, clock=time.process_time):
    """Median milliseconds."""
    spans = []
    for _ in range(times):
        start = clock()
        work()
        spans.append(clock() - start)
    return sorted(spans)[times // 2] * 1e3


@pytest.mark.bench
@pytest.mark.usefixtures("one_thread")
def test_75k_triangles_on_one_core(face):
    drawn, heads = FaceRenderer(face, SIDE), packed(4)
    points = drawn._placed(heads, drawn.mean, drawn.basis)
    mesh, plain = drawn.faces, points[0].double().numpy()
    alone = spent(lambda: rasterize(points[:1], mesh, SIDE, SIDE))
    times = {
        "rasteriser, one frame": alone,
        "rasteriser, 4 frames at once, a frame": spent(lambda: rasterize(points, mesh, SIDE, SIDE)) / 4,
        "numpy's, one frame": spent(lambda: rasterize_numpy(plain, mesh.numpy(), SIDE, SIDE)),
        "coefficients to picture, one frame": spent(lambda: drawn.render_nmfc(heads[:1])),
        "coefficients to picture, a window and its reference, a frame": spent(
            lambda: drawn.render_nmfc(heads)
        )
        / 4,
    }
    for name, milliseconds in times.items():
        print(f"\n{len(mesh)} triangles, {SIDE} px, {name}: {milliseconds:.1f} ms of a core", end="")
    print()
    assert alone < 50


@pytest.mark.bench
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_75k_triangles_on_a_gpu(face):
    drawn, heads = FaceRenderer(face, SIDE, device="cuda"), packed(32).cuda()

    def work():
        drawn.render_nmfc(heads)
        torch.cuda.synchronize()

    work()
    took = spent(work, clock=time.perf_counter)
    print(f"\n{len(drawn.faces)} triangles, {SIDE} px, 32 pictures from coefficients: {took:.1f} ms")
