"""Where the points of MediaPipe's face mesh lie on the analytic head. Nobody publishes it, so it is worked
out here.

1. A canonical mesh: the mean of many detections, made symmetric (`mean_face_mesh`; canonical_mesh.py keeps
   one).
2. A similarity brings its eyes, nose, brows and mouth to the head's landmarks.
3. A thin-plate warp carries these and the chin to the landmarks of the head with its jaw open: the lips part,
   so that no point comes to lie nearer to the other lip.
4. Each point is placed on the nearest triangle of the face's skin.

The net has an idea of a face of its own, and so a fit to its points is turned by a constant against a fit to
68 landmarks: canonical_mesh.py keeps that too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from models.perception.faces.mesh_points import BROW_UPPER_EDGES, IBUG68
from models.perception.head.pose import AXIS_FLIP

if TYPE_CHECKING:
    from models.perception.head.morphable import MorphableModel

INNER_MESH_POINTS = (*BROW_UPPER_EDGES, *IBUG68[27:])
"""The mesh's points for iBUG's 17 to 67, with the brows as they are in common use."""
CHIN_MESH_POINT, CHIN_LANDMARK = 152, 8
JAW_OPENING = 1.0
"""Sigmas by which the lips are parted."""
WARP_SMOOTHING = 1e-3
LOWEST_DEPTH = -0.2
"""Model units: skin further back is not part of the face."""
NEAREST_TRIANGLES = 24
"""So many, by their centres, are looked at for each point; triangles of the face are nearly of one size."""
ALIGNMENT_ROUNDS = 10
TINY = 1e-15


class MeshCorrespondence(NamedTuple):
    vertices: np.ndarray
    """(n,3) int32: the vertices of the triangle that each point lies on."""
    weights: np.ndarray
    """(n,3) float32: its place there, rows sum to 1."""


def mesh_points_on_head(head: MorphableModel, canonical: np.ndarray) -> MeshCorrespondence:
    """Steps 2 to 4 for a canonical mesh (468,3), x right, y up, z toward the viewer, in any unit. `head`: a
    model whose expression 0 opens the jaw, with regions `skin` and `ears`."""
    exp = np.zeros(head.n_exp, np.float32)
    exp[0] = JAW_OPENING
    opened = head.shape(np.zeros(head.n_id, np.float32), exp).astype(np.float64)
    closed_landmarks = head.landmarks(head.mean).astype(np.float64)
    opened_landmarks = head.landmarks(opened)
    placed = align(canonical, list(INNER_MESH_POINTS), closed_landmarks[17:])
    sources = placed[[*INNER_MESH_POINTS, CHIN_MESH_POINT]]
    targets = np.concatenate([opened_landmarks[17:], opened_landmarks[[CHIN_LANDMARK]]])
    warped = thin_plate_warp(sources, targets, placed)
    skin = head.regions["skin"] & ~head.regions["ears"] & (head.mean[:, 2] > LOWEST_DEPTH)
    faces = head.faces[skin[head.faces].all(1)]
    triangle, weight = nearest_points_on_triangles(warped, opened[faces])
    return MeshCorrespondence(faces[triangle].astype(np.int32), weight.astype(np.float32))


def mean_face_mesh(detections: Sequence[np.ndarray]) -> np.ndarray:
    """Step 1: detections (n,3) each, in pixels, z away from the viewer, of heads that look ahead on average
    -> their mean (n,3), symmetric, in axes of the model; its size is 1 (root mean square distance from the
    middle)."""
    every = slice(None)
    shapes = [_normalised(points * AXIS_FLIP.diagonal()) for points in detections]
    mean = _normalised(np.mean(shapes, axis=0))
    for _ in range(ALIGNMENT_ROUNDS):
        mean = _normalised(np.mean([align(shape, every, mean) for shape in shapes], axis=0))
    for _ in range(ALIGNMENT_ROUNDS):  # its plane of symmetry turns to x = 0, and pairs are found again
        mean = align(mean, every, (mean + mirrored(mean)) / 2)
    return _normalised((mean + mirrored(mean)) / 2)


def mirrored(points: np.ndarray) -> np.ndarray:
    """points (n,3) of a nearly symmetric face -> reflected in x, each in the place of its counterpart."""
    return (points * [-1, 1, 1])[mirror_pairs(points)]


def mirror_pairs(points: np.ndarray) -> np.ndarray:
    """points (n,3) of a nearly symmetric face -> (n,) the point on the other side, or on the midline itself;
    all pairs together lie as near to each other as they can."""
    from scipy.optimize import linear_sum_assignment

    reflected = points * [-1, 1, 1]
    gaps = np.linalg.norm(points[:, None] - reflected, axis=-1)
    pairs = linear_sum_assignment(gaps + gaps.T)[1]
    assert (pairs[pairs] == np.arange(len(points))).all()
    return pairs


def align(points: np.ndarray, chosen: list[int] | slice, targets: np.ndarray) -> np.ndarray:
    """points (n,3) moved by the similarity that brings the `chosen` ones nearest to targets (k,3)."""
    some = points[chosen]
    middle, to = some.mean(0), targets.mean(0)
    left, values, right = np.linalg.svd((some - middle).T @ (targets - to))
    signs = np.array([1, 1, np.linalg.det(left @ right)])
    scale = (values * signs).sum() / ((some - middle) ** 2).sum()
    return scale * (points - middle) @ (left * signs @ right) + to


def _normalised(points: np.ndarray) -> np.ndarray:
    centred = points - points.mean(0)
    return centred / np.sqrt((centred**2).sum(1).mean())


def thin_plate_warp(sources: np.ndarray, targets: np.ndarray, points: np.ndarray) -> np.ndarray:
    """points (n,3) under the smooth map that carries sources (k,3) to targets (k,3): affine, and a kernel
    r^2 log r about each source."""
    k = len(sources)
    system = np.zeros((k + 4, k + 4))
    system[:k, :k] = _thin_plate_kernel(sources, sources) + WARP_SMOOTHING * np.eye(k)
    system[:k, k:] = np.concatenate([np.ones((k, 1)), sources], axis=1)
    system[k:, :k] = system[:k, k:].T
    solved = np.linalg.solve(system, np.concatenate([targets, np.zeros((4, 3))]))
    return _thin_plate_kernel(points, sources) @ solved[:k] + solved[k] + points @ solved[k + 1 :]


def _thin_plate_kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    square = ((a[:, None] - b) ** 2).sum(-1)
    return square * np.log(np.where(square > 0, square, 1)) / 2


def nearest_points_on_triangles(points: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """points (n,3), corners (F,3,3) -> the nearest triangle (n,) and the place on it (n,3) as weights of its
    corners."""
    middles = corners.mean(1)
    count = min(NEAREST_TRIANGLES, len(corners))
    away = (middles**2).sum(1) - 2 * points @ middles.T  # squares, but for each point's own
    near = np.argpartition(away, count - 1, axis=1)[:, :count]
    weight = _nearest_weights(points[:, None], corners[near])  # (n,count,3)
    placed = (weight[..., None] * corners[near]).sum(2)
    best = ((placed - points[:, None]) ** 2).sum(-1).argmin(1)
    rows = np.arange(len(points))
    return near[rows, best], weight[rows, best]


def _nearest_weights(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """points (...,3), corners (...,3,3) -> weights (...,3) of each triangle's point that is nearest."""
    first, second = corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    away = points - corners[..., 0, :]
    aa, bb, ab = ((one * other).sum(-1) for one, other in ((first, first), (second, second), (first, second)))
    ap, bp = (first * away).sum(-1), (second * away).sum(-1)
    area = np.maximum(aa * bb - ab**2, TINY)  # the crown's triangles have none
    inside = np.stack([(bb * ap - ab * bp) / area, (aa * bp - ab * ap) / area], axis=-1)
    inside = np.concatenate([1 - inside.sum(-1, keepdims=True), inside], axis=-1)
    options = [inside]
    for start, stop in ((0, 1), (1, 2), (2, 0)):
        edge = corners[..., stop, :] - corners[..., start, :]
        share = ((points - corners[..., start, :]) * edge).sum(-1) / np.maximum((edge**2).sum(-1), TINY)
        on_edge = np.zeros_like(inside)
        on_edge[..., stop] = np.clip(share, 0, 1)
        on_edge[..., start] = 1 - on_edge[..., stop]
        options.append(on_edge)
    every = np.stack(options, axis=-2)  # (...,4,3)
    gap = (((every @ corners) - points[..., None, :]) ** 2).sum(-1)
    gap[..., 0] = np.where((inside >= 0).all(-1), gap[..., 0], np.inf)
    return np.take_along_axis(every, gap.argmin(-1)[..., None, None], axis=-2)[..., 0, :]
