import numpy as np
import pytest

from models.perception.head import raster as raster_module
from models.perception.head.raster import rasterize


def naive(points, faces, height, width):
    """The definition, a pixel and a triangle at a time."""
    out = np.full((height, width), -1)
    for row in range(height):
        for column in range(width):
            best = np.inf
            for i, (a, b, c) in enumerate(points[faces]):
                area = np.cross([*(b - a)[:2], 0], [*(c - a)[:2], 0])[2]
                if area == 0:
                    continue
                p = np.array([column + 0.5, row + 0.5])
                weights = [
                    np.cross([*(v - u)[:2], 0], [*(p - u[:2]), 0])[2] / area
                    for u, v in ((b, c), (c, a), (a, b))
                ]
                depth = np.dot(weights, [a[2], b[2], c[2]])
                if min(weights) >= 0 and depth < best:
                    best, out[row, column] = depth, i
    return out


def soup(seed, triangles, size):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.2 * size, 1.2 * size, (triangles * 3, 3))
    return points, np.arange(triangles * 3).reshape(-1, 3)


@pytest.mark.parametrize("seed", range(3))
def test_it_agrees_with_the_naive_loop(seed):
    points, faces = soup(seed, 20, 14)
    assert (rasterize(points, faces, 12, 14).triangle_map() == naive(points, faces, 12, 14)).all()


def test_chunks_do_not_change_the_result(monkeypatch):
    points, faces = soup(7, 60, 30)
    whole = rasterize(points, faces, 30, 30).triangle_map()
    monkeypatch.setattr(raster_module, "MAX_CANDIDATE_PIXELS", 500)
    assert (rasterize(points, faces, 30, 30).triangle_map() == whole).all()


def test_weights_interpolate_the_pixel_centre_itself():
    points, faces = soup(3, 10, 40)
    drawn = rasterize(points, faces, 40, 40)
    row, column = np.divmod(drawn.pixels, 40)
    assert drawn.interpolate(faces, points[:, :2]) == pytest.approx(
        np.stack([column, row], -1) + 0.5, abs=1e-3
    )
    assert drawn.weights.min() > -1e-5


def test_triangles_that_share_an_edge_leave_no_crack_between_them():
    square = np.array(
        [[0.0, 0, 1], [16, 0, 1], [16, 16, 1], [0, 16, 1]]
    )  # the diagonal runs through pixel centres
    drawn = rasterize(square, np.array([[0, 1, 2], [0, 2, 3]]), 16, 16)
    assert (drawn.triangle_map() >= 0).all()
    assert (np.diag(drawn.triangle_map()) == 0).all()  # ties go to the lowest id


def test_culling_drops_faces_seen_from_behind():
    points = np.array([[0.0, 0, 0], [0, 10, 0], [10, 0, 0]])  # y down: counter-clockwise for the viewer
    assert len(rasterize(points, np.array([[0, 1, 2]]), 10, 10, cull=True).pixels) > 0
    assert len(rasterize(points, np.array([[0, 2, 1]]), 10, 10, cull=True).pixels) == 0


def test_nothing_in_view_is_an_empty_raster():
    drawn = rasterize(np.array([[-9.0, -9, 0], [-8, -9, 0], [-9, -8, 0]]), np.array([[0, 1, 2]]), 8, 8)
    assert len(drawn.pixels) == 0
    assert (drawn.triangle_map() == -1).all()


def test_a_nan_vertex_is_an_error():
    with pytest.raises(ValueError, match="NaN"):
        rasterize(np.full((3, 3), np.nan), np.array([[0, 1, 2]]), 8, 8)
