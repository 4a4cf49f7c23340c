"""A batched z-buffer rasteriser in torch, on CPU or GPU: which triangle shows at each pixel of each frame.

Pixels: x right, y down, centres at +0.5; depth smaller = nearer (models/perception/head/pose.py). A pixel
belongs to a triangle that holds its centre, edges included; triangles are seen from both sides. All triangles
of all frames are expanded at once into the pixels of their boxes, so there is no loop over triangles or
pixels:

    key[pixel] = min over triangles that cover it of (depth in 31 bits) << 24 | triangle

Equal depths go to the lowest triangle id, and a minimum does not depend on the order of its terms, so a frame
is the same alone, in a batch and on every run. Geometry is in float64, which the golden numbers, and the same
picture on CPU and GPU, need. `raster.py` is its older sibling in numpy, whose bits the synthetic data keep.

Legend: B frames, N vertices, F triangles, A values at a vertex, P covered pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Shading = Literal["smooth", "centroid", "first"]
"""A pixel's value from its triangle's corners: interpolated, their mean, or the first corner's."""

MAX_CANDIDATE_PIXELS = {"cpu": 400_000, "cuda": 64_000_000}
"""Pixels of triangles' boxes held at once, about 60 bytes each; on a CPU few enough for its caches."""
MAX_TRIANGLES_PER_PASS = {"cpu": 80_000, "cuda": 16_000_000}
"""Triangles set up at once, about 150 bytes each; a larger mesh goes frame by frame."""
BARYCENTRIC_TOLERANCE = 1e-9
"""Of a barycentric: a centre on the edge of two triangles must not fall between them by rounding."""
_DEPTH_LEVELS = 2**31 - 1
_ID_BITS = 24
_NOTHING = torch.iinfo(torch.int64).max


@dataclass(frozen=True, slots=True, eq=False)
class RasterBatch:
    """What shows where in B frames: the P pixels that something covers, in the order of frames and rows."""

    frames: int
    height: int
    width: int
    pixels: Tensor
    """(P,) int64: (frame * height + row) * width + column"""
    triangle: Tensor
    """(P,) int64: the nearest triangle"""
    weights: Tensor
    """(P,3) float32: barycentrics of the pixel's centre in it"""

    def triangle_map(self) -> Tensor:
        """(B,H,W) int64, -1 where nothing is."""
        out = self.pixels.new_full((self.frames * self.height * self.width,), -1)
        out[self.pixels] = self.triangle
        return out.view(self.frames, self.height, self.width)

    def render_vertex_values(self, faces: Tensor, values: Tensor, shading: Shading = "smooth") -> Tensor:
        """values (N,A) float32 at the vertices, the same for all frames -> (B,A,H,W) float32, 0 where nothing
        is.
        """
        if shading == "centroid":
            colours = values[faces].mean(1)[self.triangle]  # (P,A)
        elif shading == "first":
            colours = values[faces[:, 0]][self.triangle]
        else:
            corners = values[faces[self.triangle]]  # (P,3,A)
            colours = (corners * self.weights[..., None]).sum(1)
        out = colours.new_zeros(self.frames * self.height * self.width, values.shape[1])
        out[self.pixels] = colours
        return out.view(self.frames, self.height, self.width, -1).permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class _Triangles:
    """Those of some frames that may cover a pixel centre: n of them."""

    id: Tensor
    """(n,) int64 in the mesh"""
    base: Tensor
    """(n,) int64: first pixel of the frame"""
    plane: Tensor
    """(n,3,3) float64: first two barycentrics and depth level of pixel (column, row), each [k,0] column +
    [k,1] row + [k,2]"""
    left: Tensor
    """(n,) int64: box, first column; `top` the first row"""
    top: Tensor
    columns: Tensor
    """(n,) int64, 1 or more: size of the box; `count` its pixels"""
    count: Tensor


@torch.no_grad()
def rasterize(points: Tensor, faces: Tensor, height: int, width: int) -> RasterBatch:
    """points (B,N,3) float, pixels x, y and depth, faces (F,3) int64, both on one device -> what shows.

    Raises ValueError for points that are not finite, or 2^24 triangles and more.
    """
    if len(faces) >= 1 << _ID_BITS:
        raise ValueError(f"{len(faces)} triangles; the rasteriser tells apart {1 << _ID_BITS}")
    if not bool(torch.isfinite(points).all()):
        raise ValueError("points to rasterise hold a NaN or an infinity")
    frames, kind = len(points), "cuda" if points.is_cuda else "cpu"
    points = points.double()
    keys = torch.full((frames * height * width,), _NOTHING, dtype=torch.int64, device=points.device)
    some = max(1, MAX_TRIANGLES_PER_PASS[kind] // max(1, len(faces)))
    for first in range(0, frames, some):
        set_up = _set_up(points[first : first + some], faces, first, height, width)
        for part in _parts(set_up, MAX_CANDIDATE_PIXELS[kind]):
            _rasterize_chunk(keys, part, width)
    pixels = (keys != _NOTHING).nonzero()[:, 0]
    triangle = keys[pixels] & ((1 << _ID_BITS) - 1)
    weights = _weights(points, faces, pixels, triangle, height, width)
    return RasterBatch(frames, height, width, pixels, triangle, weights)


def _set_up(points: Tensor, faces: Tensor, first: int, height: int, width: int) -> _Triangles:
    """points (b,N,3), frames from number `first` on -> their triangles that may cover a pixel centre."""
    b, f = len(points), len(faces)
    corners = [points[:, faces[:, k]].view(b * f, 3) for k in range(3)]  # (b F,3) each
    low, high = corners[0].minimum(corners[1]).minimum(corners[2]), corners[0].maximum(corners[1])
    high = high.maximum(corners[2])
    begin = (low[:, :2] - 0.5).ceil_().clamp_(min=0)  # (b F,2) first column and row
    end = (high[:, :2] - 0.5).floor_()
    end = end.minimum(end.new_tensor([width - 1, height - 1]))
    kept = (end >= begin).all(1).nonzero()[:, 0]
    a, b_, c = (corner[kept] for corner in corners)
    ab, ac = b_ - a, c - a
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    solid = area != 0
    if not bool(solid.all()):
        kept, a, ab, ac, area = (part[solid] for part in (kept, a, ab, ac, area))
    frame = kept // f
    # depth in levels of the frame's own range, so that a frame does not depend on its neighbours
    depths = points[..., 2]
    near, far = depths.amin(1), depths.amax(1)  # (b,)
    levels = _DEPTH_LEVELS / (far - near).clamp_min(1e-12)
    # weights of corners b and c are linear in the pixel; so is the depth
    x0, y0 = 0.5 - a[:, 0], 0.5 - a[:, 1]
    of_b = torch.stack([ac[:, 1], -ac[:, 0], x0 * ac[:, 1] - y0 * ac[:, 0]], 1) / area[:, None]
    of_c = torch.stack([-ab[:, 1], ab[:, 0], y0 * ab[:, 0] - x0 * ab[:, 1]], 1) / area[:, None]
    depth = of_b * ab[:, 2:] + of_c * ac[:, 2:]
    depth[:, 2] += a[:, 2] - near[frame]
    plane = torch.stack([of_b, of_c, depth * levels[frame][:, None]], 1)  # (n,3,3)
    begin, end = begin[kept].long(), end[kept].long()
    size = end - begin + 1
    base = (frame + first) * (height * width)
    return _Triangles(
        kept - frame * f, base, plane, begin[:, 0], begin[:, 1], size[:, 0], size[:, 0] * size[:, 1]
    )


def _parts(triangles: _Triangles, most: int) -> Iterator[_Triangles]:
    """Runs of at most `most` box pixels (a larger triangle makes its own run)."""
    if not len(triangles.id):
        return
    run = triangles.count.cumsum(0) // most
    lengths = torch.unique_consecutive(run, return_counts=True)[1].tolist()
    if len(lengths) == 1:
        yield triangles
        return
    fields = ("id", "base", "plane", "left", "top", "columns", "count")
    yield from (
        _Triangles(*parts)
        for parts in zip(*(getattr(triangles, name).split(lengths) for name in fields), strict=True)
    )


def _rasterize_chunk(keys: Tensor, part: _Triangles, width: int) -> None:
    """Lower `keys` (B H W,) to depth and id of these triangles wherever they cover a pixel centre."""
    owner = torch.repeat_interleave(part.count)  # (c,)
    place = torch.arange(len(owner), device=owner.device) - (part.count.cumsum(0) - part.count)[owner]
    columns = part.columns[owner]
    down = place // columns
    column = place - down * columns + part.left[owner]
    row = down + part.top[owner]
    plane = part.plane[owner]  # (c,3,3)
    x, y = column.double()[:, None], row.double()[:, None]
    b, c, depth = (plane[..., 0] * x + plane[..., 1] * y + plane[..., 2]).unbind(1)
    inside = (
        (b >= -BARYCENTRIC_TOLERANCE) & (c >= -BARYCENTRIC_TOLERANCE) & (1 - b - c >= -BARYCENTRIC_TOLERANCE)
    ).nonzero()[:, 0]
    owner, pixel = owner[inside], (row * width + column)[inside]
    level = depth[inside].clamp(0, _DEPTH_LEVELS).long()
    key = (level << _ID_BITS) | part.id[owner]
    keys.scatter_reduce_(0, pixel + part.base[owner], key, "amin")


def _weights(
    points: Tensor, faces: Tensor, pixels: Tensor, triangle: Tensor, height: int, width: int
) -> Tensor:
    """Barycentrics (P,3) float32 of the pixels' centres in their triangles."""
    frame, place = pixels // (height * width), pixels % (height * width)
    centre = torch.stack([place % width, place // width], 1).double() + 0.5
    corners = faces[triangle] + (frame * points.shape[1])[:, None]  # (P,3)
    a, b, c = points.reshape(-1, 3)[:, :2][corners].unbind(1)  # (P,2) each
    ab, ac, ap = b - a, c - a, centre - a
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    of_b = (ap[:, 0] * ac[:, 1] - ap[:, 1] * ac[:, 0]) / area
    of_c = (ab[:, 0] * ap[:, 1] - ab[:, 1] * ap[:, 0]) / area
    return torch.stack([1 - of_b - of_c, of_b, of_c], 1).float()
