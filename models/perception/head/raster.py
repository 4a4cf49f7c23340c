"""A z-buffer rasteriser in numpy: which triangle shows at each pixel, and where in it.

Pixels: x right, y down, centres at +0.5; depth smaller = nearer (models/perception/head/pose.py). All
triangles are expanded at once, first into the pixel rows they touch, then into the pixels they cover, so
there is no loop; equal depths go to the lowest triangle id, so the result does not depend on the machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_CANDIDATE_PIXELS = 20_000_000  # pixels of all the triangles' boxes held at once, about 1 GB
TRIANGLE_EDGE_TOLERANCE = (
    1e-9  # pixels: a centre on the edge of two triangles must not fall between them by rounding
)
_DEPTH_LEVELS = 2**31 - 1
_ID_BITS = 24


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """The P pixels that something covers, in row order."""

    height: int
    width: int
    pixels: np.ndarray
    """(P,) int64: row * width + column."""
    triangle: np.ndarray
    """(P,) int64: the nearest triangle."""
    weights: np.ndarray
    """(P,3) float32 barycentrics of the pixel centre in it."""

    def triangle_map(self) -> np.ndarray:
        """(H,W) int64, -1 where nothing is."""
        out = np.full(self.height * self.width, -1, np.int64)
        out[self.pixels] = self.triangle
        return out.reshape(self.height, self.width)

    def interpolate(self, faces: np.ndarray, values: np.ndarray) -> np.ndarray:
        """values (N,A) at the vertices -> (P,A) float32 at the covered pixels."""
        corners = faces[self.triangle]  # (P,3)
        values = values.astype(np.float32, copy=False)
        out = self.weights[:, 0, None] * values[corners[:, 0]]
        out += self.weights[:, 1, None] * values[corners[:, 1]]
        out += self.weights[:, 2, None] * values[corners[:, 2]]
        return out

    def render_vertex_values(
        self, faces: np.ndarray, values: np.ndarray, background: float = 0.0
    ) -> np.ndarray:
        """values (N,A) at the vertices -> (H,W,A) float32."""
        out = np.full((self.height * self.width, values.shape[1]), background, np.float32)
        out[self.pixels] = self.interpolate(faces, values)
        return out.reshape(self.height, self.width, -1)


def rasterize(points: np.ndarray, faces: np.ndarray, height: int, width: int, cull: bool = False) -> Raster:
    """points (N,3) pixels x, y and depth, faces (F,3) -> what shows at each pixel.

    cull leaves out the triangles seen from behind (faces counter-clockwise from outside); right for closed
    surfaces, and half the work.
    """
    if len(faces) >= 1 << _ID_BITS:
        raise ValueError(f"{len(faces)} triangles; the rasteriser tells apart {1 << _ID_BITS}")
    if not np.isfinite(points).all():
        raise ValueError("points to rasterise hold a NaN or an infinity")
    x, y, z = (
        np.ascontiguousarray(points[:, axis], dtype=np.float64)[faces] for axis in range(3)
    )  # (F,3) each
    # doubled signed area: negative for a front face, because y points down
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (y[:, 1] - y[:, 0]) * (x[:, 2] - x[:, 0])
    x0, x1 = _pixel_range(x, width)
    y0, y1 = _pixel_range(y, height)
    visible = (x1 >= x0) & (y1 >= y0) & (area < 0 if cull else area != 0)
    ids = np.flatnonzero(visible)
    counts = (x1[ids] - x0[ids] + 1) * (y1[ids] - y0[ids] + 1)
    keys = np.full(height * width, np.iinfo(np.int64).max, np.int64)
    near, far = (float(z[ids].min()), float(z[ids].max())) if len(ids) else (0.0, 1.0)
    levels = _DEPTH_LEVELS / max(far - near, 1e-12)
    for some in _chunks(ids, counts):
        edges = _edges(x[some], y[some], area[some])
        depth = (
            np.einsum("fek,fe->fk", edges, z[some]) - [0, 0, near]
        ) * levels  # z as a function of the pixel
        _rasterize_chunk(keys, width, some, edges, depth, x0[some], x1[some], y0[some], y1[some])
    pixels = np.flatnonzero(keys != np.iinfo(np.int64).max)
    triangle = keys[pixels] & ((1 << _ID_BITS) - 1)
    weights = _weights_at(pixels, width, x[triangle], y[triangle], area[triangle])
    return Raster(height, width, pixels, triangle, weights)


def _pixel_range(values: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (F,3) -> first and last pixel whose centre may lie inside, cut to the image."""
    low, high = np.ceil(_each(np.minimum, values) - 0.5), np.floor(_each(np.maximum, values) - 0.5)
    return np.clip(low, 0, size).astype(np.int32), np.clip(high, -1, size - 1).astype(np.int32)


def _each(reduce: np.ufunc, values: np.ndarray) -> np.ndarray:
    """values (n,3) -> (n,); numpy's own reduction over so short an axis is several times slower."""
    return reduce(reduce(values[:, 0], values[:, 1]), values[:, 2])


def _chunks(ids: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """Triangle ids in runs of at most MAX_CANDIDATE_PIXELS box pixels (a larger triangle is a run alone)."""
    if not len(ids):
        return []
    run = np.cumsum(counts) // MAX_CANDIDATE_PIXELS
    return np.split(ids, np.flatnonzero(np.diff(run)) + 1)


def _edges(x: np.ndarray, y: np.ndarray, area: np.ndarray) -> np.ndarray:
    """(F,3) corners -> (F,3,3): barycentric e of pixel (column, row) is [e,0] column + [e,1] row + [e,2]."""
    xn, yn = np.roll(x, -1, axis=1), np.roll(y, -1, axis=1)  # corner e+1
    xp, yp = np.roll(x, -2, axis=1), np.roll(y, -2, axis=1)  # corner e+2
    a, b = (yn - yp) / area[:, None], (xp - xn) / area[:, None]
    c = (xn * yp - xp * yn) / area[:, None] + 0.5 * (a + b)
    return np.stack([a, b, c], axis=-1)


def _rasterize_chunk(keys, width, ids, edges, depth, x0, x1, y0, y1) -> None:
    """Lower `keys` (H*W,) to depth and id of these triangles wherever they cover a pixel centre."""
    # first expand to box rows, then rows to pixels: the row's part of each barycentric is then computed once
    rows = y1 - y0 + 1
    row_of = np.repeat(np.arange(len(ids)), rows)
    row = np.arange(len(row_of)) - np.repeat(np.cumsum(rows) - rows, rows) + y0[row_of]
    at_row = edges[row_of, :, 1] * row[:, None] + edges[row_of, :, 2]  # (rows,3)
    first, last = _span(at_row, edges[row_of, :, 0], x0[row_of], x1[row_of])
    length = np.maximum(last - first + 1, 0)
    span = np.repeat(np.arange(len(row_of)), length)
    column = np.arange(len(span)) - np.repeat(np.cumsum(length) - length - first, length)
    triangle = row_of[span]
    z = depth[row_of, 1] * row + depth[row_of, 2]
    level = z[span] + depth[triangle, 0] * column
    key = (np.clip(level, 0, _DEPTH_LEVELS).astype(np.int64) << _ID_BITS) | ids[triangle]
    np.minimum.at(keys, row[span] * width + column, key)


def _span(
    at_row: np.ndarray, slope: np.ndarray, x0: np.ndarray, x1: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Columns first..last of each box row whose three barycentrics slope * column + at_row are all >= 0."""
    level = slope == 0
    zero = -at_row / np.where(level, 1, slope)
    low = _each(np.maximum, np.where(slope > 0, np.ceil(zero - TRIANGLE_EDGE_TOLERANCE), -np.inf))
    high = _each(np.minimum, np.where(slope < 0, np.floor(zero + TRIANGLE_EDGE_TOLERANCE), np.inf))
    outside = _each(np.logical_or, level & (at_row < -TRIANGLE_EDGE_TOLERANCE))
    first = np.maximum(low, x0)
    last = np.where(outside, first - 1, np.minimum(high, x1))
    return first.astype(np.int64), np.maximum(last, first - 1).astype(np.int64)


def _weights_at(pixels: np.ndarray, width: int, x: np.ndarray, y: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Barycentrics (P,3) float32 of the pixel centres, each in its triangle: x, y (P,3), area (P,)."""
    row, column = np.divmod(pixels, width)
    px, py = column + 0.5, row + 0.5
    first = ((x[:, 1] - px) * (y[:, 2] - py) - (y[:, 1] - py) * (x[:, 2] - px)) / area
    second = ((x[:, 2] - px) * (y[:, 0] - py) - (y[:, 2] - py) * (x[:, 0] - px)) / area
    return np.stack([first, second, 1 - first - second], axis=-1).astype(np.float32)
