"""The piecewise-affine landmark warp: a picture bent so that its landmarks lie where others do, the oldest
way to reenact a face and a baseline that no training can be blamed for.

A Delaunay mesh over the picture's landmarks and eight points of its border is moved with the landmarks; in
each triangle the picture follows by the affine map of its corners. What the picture does not show, such as
the teeth behind closed lips, is stretched from what lies beside it.

T = driving frames, K = 68 landmarks in iBUG's order, H x W = the picture. Pixel centres are at +0.5.
"""

from __future__ import annotations

import numpy as np

JAW_POINTS = 17
"""Landmarks 0..16 are the face's outline."""
BORDER_GAP = 1.0
"""Pixels that a landmark keeps from the border: one beyond it is held there, so that the mesh covers the
whole picture wherever the landmarks go."""
LIP_COLUMNS = ((50, 61, 67, 58), (51, 62, 66, 57), (52, 63, 65, 56))
"""Landmarks from the upper lip's outline to the lower one's, at three places of the mouth."""
LIP_CORNERS = ((48, 60, 54), (54, 64, 48))
"""A corner of the mouth, the inner one beside it, and the other corner."""
_INSIDE = -1e-9
"""Least barycentric coordinate of a pixel in a triangle: one on an edge belongs to both sides."""


def warp_by_landmarks(image: np.ndarray, source: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """image (H,W,3) uint8, source (K,2) and targets (T,K,2) pixels, all finite -> (T,H,W,3) uint8, in which
    the point at source[k] lies at targets[t,k]; the border stays where it is."""
    size = np.array(image.shape[1::-1], np.float64)
    border = size * np.array([(x, y) for y in (0, 0.5, 1) for x in (0, 0.5, 1) if (x, y) != (0.5, 0.5)])
    mesh = np.concatenate([_inside(source, size), border])
    triangles = mesh_triangles(np.concatenate([open_lips(mesh[: len(source)]), border]), len(source))
    warped = np.empty((len(targets), *image.shape), np.uint8)
    for t, landmarks in enumerate(targets):
        moved = np.concatenate([_inside(landmarks, size), border])
        warped[t] = sample_bilinear(image, _source_positions(mesh, moved, triangles, image.shape[:2]))
    return warped


def target_landmarks(source: np.ndarray, driving: np.ndarray, relative: bool) -> np.ndarray:
    """source (K,2), driving (T,K,2) -> (T,K,2): where the source's landmarks go. absolute: to the driving
    ones. relative: by what those have moved since the first driving frame, with no change of scale."""
    return source + driving - driving[:1] if relative else driving


def hold_landmarks(landmarks: np.ndarray) -> tuple[np.ndarray, int]:
    """(T,K,2) with NaN where a frame has none -> the same with those of the last frame that has some, at the
    start of the first; and how many frames were given others'. ValueError where no frame has any."""
    found = np.asarray(np.isfinite(landmarks).all(axis=(1, 2)))
    if not found.any():
        raise ValueError(f"none of {len(landmarks)} frames has landmarks")
    last = np.maximum.accumulate(np.where(found, np.arange(len(found)), -1))
    return landmarks[np.where(last < 0, found.argmax(), last)], int((~found).sum())


def open_lips(landmarks: np.ndarray) -> np.ndarray:
    """(68,2) -> the same with the inner lips a third of the mouth's height apart: between closed lips, whose
    points coincide or cross, a mesh would join any with any, and tear the mouth when it opens."""
    opened = landmarks.copy()
    for top, upper, lower, bottom in LIP_COLUMNS:
        height = landmarks[bottom] - landmarks[top]
        opened[upper], opened[lower] = landmarks[top] + height / 3, landmarks[top] + height * 2 / 3
    for corner, inner, other in LIP_CORNERS:
        opened[inner] = landmarks[corner] + (landmarks[other] - landmarks[corner]) / 8
    return opened


def mesh_triangles(mesh: np.ndarray, landmarks: int) -> np.ndarray:
    """mesh (n,2), of which the first points are landmarks -> (m,3) int, counter-clockwise where y points up,
    in the order in which they are drawn: with the most points of outline and border first, since where a
    turned head folds the mesh the nose lies over the far cheek."""
    from scipy.spatial import Delaunay

    triangles = Delaunay(mesh).simplices
    flipped = _doubled_areas(mesh[triangles]) < 0
    triangles[flipped] = triangles[flipped][:, ::-1]
    outer = ((triangles < JAW_POINTS) | (triangles >= landmarks)).sum(axis=1)
    return triangles[np.lexsort((*triangles.T, -outer))]


def sample_bilinear(image: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """image (H,W,3) uint8 or float, positions (...,2) x and y in pixels -> (...,3) of its kind; beyond the
    outermost pixel centres the picture goes on as there. uint8 is rounded half up."""
    height, width = image.shape[:2]
    at = np.clip(positions - 0.5, 0, [width - 1, height - 1])
    low = np.floor(at).astype(int)
    x, y = low[..., 0], low[..., 1]
    right, below = np.minimum(x + 1, width - 1), np.minimum(y + 1, height - 1)
    u, v = np.moveaxis(at - low, -1, 0)[..., None]
    pixels = image.astype(np.float64, copy=False)
    upper = pixels[y, x] * (1 - u) + pixels[y, right] * u
    lower = pixels[below, x] * (1 - u) + pixels[below, right] * u
    found = upper * (1 - v) + lower * v
    return np.floor(found + 0.5).astype(np.uint8) if image.dtype == np.uint8 else found


def _inside(points: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.clip(points.astype(np.float64), BORDER_GAP, size - BORDER_GAP)


def _doubled_areas(corners: np.ndarray) -> np.ndarray:
    """corners (m,3,2) -> (m,), negative of those that are turned over"""
    one, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]


def _source_positions(
    mesh: np.ndarray, moved: np.ndarray, triangles: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """-> (H,W,2): the point of the picture that each pixel of the warped one shows.

    A triangle that the landmarks turn over is the back of a fold and is not drawn. The border stays, so that
    over every pixel one more triangle faces us than is turned over: none is left bare."""
    height, width = shape
    found = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    areas = _doubled_areas(moved[triangles])
    for corners, area in zip(triangles[areas > 0], areas[areas > 0], strict=True):
        a, b, c = moved[corners]
        x0, y0 = np.ceil(np.minimum(np.minimum(a, b), c) - 0.5).astype(int)
        x1, y1 = np.floor(np.maximum(np.maximum(a, b), c) - 0.5).astype(int) + 1
        if x0 >= x1 or y0 >= y1:  # no pixel centre
            continue
        px, py = np.arange(x0, x1) + 0.5 - a[0], (np.arange(y0, y1) + 0.5 - a[1])[:, None]
        s = (px * (c - a)[1] - py * (c - a)[0]) / area  # (h,w): share of b
        t = (py * (b - a)[0] - px * (b - a)[1]) / area  # of c
        inside = (s >= _INSIDE) & (t >= _INSIDE) & (s + t <= 1 - _INSIDE)
        first, second, third = mesh[corners]
        found[y0:y1, x0:x1][inside] = (
            first + s[inside][:, None] * (second - first) + t[inside][:, None] * (third - first)
        )
    return found
