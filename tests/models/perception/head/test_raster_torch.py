import json
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.perception.head import raster_torch
from models.perception.head.default_head import get_analytic_head
from models.perception.head.pose import AXIS_FLIP, euler_to_rotation, project
from models.perception.head.raster import rasterize as rasterize_numpy
from models.perception.head.raster_torch import rasterize

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "headgan_data.json").read_text())["nmfc_raster"]
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


def drawn(points, faces, height, width):
    """One frame, from arrays."""
    return rasterize(torch.as_tensor(np.asarray(points))[None], torch.as_tensor(faces), height, width)


def covering(points, triangle, column, row):
    """Exactly: the depth of a triangle at a pixel's centre, or None where it does not cover it."""
    a, b, c = ([Fraction(float(x)) for x in points[corner]] for corner in triangle)
    x, y = Fraction(2 * column + 1, 2), Fraction(2 * row + 1, 2)

    def area(p, q, r):
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    whole, here = area(a, b, c), [x, y]
    if whole == 0:
        return None
    weights = [area(here, b, c) / whole, area(here, c, a) / whole, area(here, a, b) / whole]
    if min(weights) < 0:
        return None
    return sum(w * corner[2] for w, corner in zip(weights, (a, b, c), strict=True))


def golden_mesh():
    """Vertices (N,3), triangles (F,3) and their posed points, by the formulas of the golden file."""
    nu, nv = 13, 17
    a, b = np.divmod(np.arange(nu * nv), nv)
    th, ph = 0.9 * np.pi * (a / (nu - 1) - 0.5), 0.9 * np.pi * (b / (nv - 1) - 0.5)
    vertices = np.stack([0.75 * np.sin(th) * np.cos(ph), np.sin(ph), 0.6 * np.cos(th) * np.cos(ph)], axis=1)
    i = (np.arange(nu - 1)[:, None] * nv + np.arange(nv - 1)).reshape(-1)
    pairs = np.stack([i, i + nv, i + 1, i + 1, i + nv, i + nv + 1], axis=1)
    points = project(vertices, 25.0, euler_to_rotation(5, 20, -10), np.array([32.0, 33, 0]))
    return vertices, pairs.reshape(-1, 3), points


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shading", ["smooth", "centroid", "first"])
def test_golden_nmfc_raster(shading, device):
    """Acceptance test 3 of the specification."""
    vertices, faces, points = golden_mesh()
    low, high = vertices.min(0), vertices.max(0)
    colours = torch.from_numpy(((vertices - low) / (high - low)).astype(np.float32)).to(device)
    mesh = torch.from_numpy(faces).to(device)
    surface = rasterize(torch.from_numpy(points)[None].to(device), mesh, 64, 64)
    assert len(surface.pixels) == GOLDEN["covered_pixels"]
    assert int(surface.triangle.sum()) == GOLDEN["tri_id_sum"]
    image, expected = surface.render_vertex_values(mesh, colours, shading)[0].cpu(), GOLDEN["modes"][shading]
    assert float(image.double().mean()) == pytest.approx(expected["mean"], rel=1e-6)
    assert float(image.double().norm()) == pytest.approx(expected["l2"], rel=1e-6)
    for name, (row, column) in {
        "pixel_32_32": (32, 32), "pixel_20_40_row_col": (20, 40), "pixel_45_28_row_col": (45, 28),
    }.items():  # fmt: skip
        np.testing.assert_allclose(image[:, row, column].numpy(), expected[name], atol=1e-6)


# Coordinates on a grid of quarter pixels: corners and edges then run through pixel centres all the time.
QUARTERS = st.integers(-8, 40).map(lambda n: n / 4)
POINT = st.tuples(QUARTERS, QUARTERS, st.integers(0, 6).map(float))
MESHES = st.lists(POINT, min_size=3, max_size=9).flatmap(
    lambda points: st.tuples(
        st.just(np.array(points)),
        st.lists(st.tuples(*[st.integers(0, len(points) - 1)] * 3), min_size=1, max_size=8).map(np.array),
    )
)


@settings(max_examples=60, deadline=None)
@given(MESHES)
def test_each_pixel_shows_the_nearest_triangle_that_holds_its_centre(mesh):
    points, faces = mesh
    shown = drawn(points, faces, 7, 8).triangle_map()[0]
    for row, column in product(range(7), range(8)):
        depths = {i: covering(points, face, column, row) for i, face in enumerate(faces)}
        depths = {i: depth for i, depth in depths.items() if depth is not None}
        found = int(shown[row, column])
        if not depths:
            assert found == -1
        else:
            nearest = min(depths.values())
            assert found in depths
            assert depths[found] - nearest <= 6 * 2.0**-30  # 31 bits of the depth's range
            same = [i for i in depths if (faces[i] == faces[found]).all()]
            assert found == min(same)  # equal depths go to the lowest id


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30))
def test_it_draws_what_the_numpy_rasteriser_draws(seed, triangles):
    rng = np.random.default_rng(seed)
    points, faces = rng.uniform(-5, 25, (triangles * 3, 3)), np.arange(triangles * 3).reshape(-1, 3)
    ours, other = drawn(points, faces, 17, 20), rasterize_numpy(points, faces, 17, 20)
    assert (ours.triangle_map()[0].numpy() == other.triangle_map()).all()
    np.testing.assert_allclose(ours.weights.numpy(), other.weights, atol=1e-5)


def heads(frames, side=64):
    """Points (T,N,3) of the analytic head in different poses, filling `side` pixels, and its triangles."""
    head = get_analytic_head()
    rotation = euler_to_rotation(*np.random.default_rng(0).uniform(-40, 40, (3, frames)))
    points = project(head.mean.astype(np.float64), np.full(frames, side / 4), rotation, np.full(3, side / 2))
    return torch.from_numpy(points), torch.from_numpy(head.faces.astype(np.int64))


def test_a_frame_is_the_same_alone_and_in_a_batch():
    points, faces = heads(5)
    whole = rasterize(points, faces, 64, 64)
    for t, one in enumerate(points):
        alone = rasterize(one[None], faces, 64, 64)
        assert torch.equal(alone.triangle_map()[0], whole.triangle_map()[t])
        here = whole.pixels // (64 * 64) == t
        assert torch.equal(alone.weights, whole.weights[here])


def test_limits_on_memory_change_nothing(monkeypatch):
    points, faces = heads(3)
    whole = rasterize(points, faces, 64, 64)
    monkeypatch.setitem(raster_torch.MAX_CANDIDATE_PIXELS, "cpu", 500)
    monkeypatch.setitem(raster_torch.MAX_TRIANGLES_PER_PASS, "cpu", len(faces))
    parts = rasterize(points, faces, 64, 64)
    assert torch.equal(parts.triangle_map(), whole.triangle_map())
    assert torch.equal(parts.weights, whole.weights)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_draws_the_same_picture():
    points, faces = heads(4, 256)
    here = rasterize(points, faces, 256, 256).triangle_map()
    there = rasterize(points.cuda(), faces.cuda(), 256, 256).triangle_map().cpu()
    assert float((here == there).float().mean()) > 0.9999


def test_weights_interpolate_the_pixel_centre_itself():
    points, faces = heads(2)
    surface = rasterize(points, faces, 64, 64)
    image = surface.render_vertex_values(faces, points[0, :, :2].float())[0]  # (2,H,W)
    seen = surface.triangle_map()[0] >= 0
    rows, columns = seen.nonzero(as_tuple=True)
    assert torch.allclose(image[:, seen], torch.stack([columns, rows]) + 0.5, atol=1e-3)


def test_shadings_differ_within_a_triangle_only():
    points = torch.tensor([[[0.0, 0, 1], [8, 0, 1], [0, 8, 1]]])
    faces, values = torch.tensor([[0, 1, 2]]), torch.tensor([[0.0], [0.3], [0.9]])
    surface = rasterize(points, faces, 8, 8)
    first, centroid, smooth = (
        surface.render_vertex_values(faces, values, s)[0, 0] for s in ("first", "centroid", "smooth")
    )
    assert float(first.max()) == 0
    assert centroid[1, 1] == pytest.approx(0.4)
    assert smooth[1, 1] == pytest.approx(0.3 * 1.5 / 8 + 0.9 * 1.5 / 8)
    assert float(centroid[7, 7]) == float(smooth[7, 7]) == 0  # background


def test_both_sides_of_a_triangle_are_drawn():
    points = np.array([[0.0, 0, 0], [0, 10, 0], [10, 0, 0]])
    for face in ([0, 1, 2], [0, 2, 1]):
        assert len(drawn(points, np.array([face]), 10, 10).pixels) > 0


def test_nothing_in_view_is_an_empty_surface():
    away = np.array([[-9.0, -9, 0], [-8, -9, 0], [-9, -8, 0]])
    surface = drawn(away, np.array([[0, 1, 2]]), 8, 8)
    assert len(surface.pixels) == 0
    assert float(surface.render_vertex_values(torch.tensor([[0, 1, 2]]), torch.ones(3, 3)).abs().max()) == 0


def test_a_head_that_looks_to_its_left_shows_its_nearer_cheek():
    """Depth grows away from the viewer: what is drawn is the near side."""
    sphere = np.random.default_rng(0).normal(size=(400, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    from scipy.spatial import ConvexHull

    faces = ConvexHull(sphere).simplices.astype(np.int64)
    points = 20 * sphere @ AXIS_FLIP + 32
    surface = drawn(points, faces, 64, 64)
    front = points[faces[surface.triangle.numpy()]][..., 2].mean(1)
    assert front.max() < 33


def test_a_point_that_is_not_finite_is_an_error():
    with pytest.raises(ValueError, match="NaN"):
        drawn(np.full((3, 3), np.nan), np.array([[0, 1, 2]]), 8, 8)
