"""Algorithm 1 of the HeadGAN supplement: dense 3D face points -> shape coefficients and camera, clips at
once.

For a model of mean x (n,3) and basis U = [U_id U_exp] (3n,k), and points l (n,3) in pixels with depth:

    l' = Procrustes(x, l)         rotation, scale and shift that bring l nearest to x
    p  = (U'U)^-1 U' (l' - x)     the coefficients; (U'U + ridge)^-1 U' where few points leave them ill-posed
    P  = least-squares affine map from [x,1] to l, and c = scale, rotation, translation read off P

The supplement prints P's arguments the other way round; only mean -> image is a camera. The points are x
right, y down, z away from the viewer, the model x right, y up, z toward the viewer.

All that is linear in the points is one matrix product over all frames of a clip, and so are the
coefficients: about 0.03 ms a frame of 1035 points and 185 coefficients on one core, where the published
code's bounded solver takes 143 ms. Work is done in the dtype of the points, the small matrices in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from models.errors import InvalidSettings
from models.perception.head.landmark_fit import FaceFit
from models.perception.head.morphable import MorphableModel
from models.perception.head.pose import AXIS_FLIP, euler_to_rotation, nearest_rotation

MIN_DENSE_POINTS = 1000  # points from which the coefficients are well determined without a ridge
RIDGE_SHARES = {"landmarks": 0.03, "dense": 0.06}
"""Of the face's half width: what a point is taken to be off by where few leave the coefficients ill-posed."""
MIN_SPREAD = 1e-6  # model units: a spread below it is rounding, of a head that does not move along that axis


@dataclass(frozen=True, slots=True)
class ProcrustesAlignment:
    """How image points of each frame come to the mean: aligned = scale * (points * [1,-1,-1]) @ turn +
    shift."""

    turn: np.ndarray
    """(T,3,3), acts on rows from the right."""
    scale: np.ndarray
    """(T,), model units a pixel."""
    shift: np.ndarray
    """(T,3), model units."""
    disparity: np.ndarray
    """(T,), squared distance that is left, both shapes having norm 1."""

    def add_shape_depth_to_points(self, shapes: np.ndarray, points: np.ndarray) -> np.ndarray:
        """points (T,n,3) with the depth that model shapes (T,n,3) have in the image."""
        away = (shapes - self.shift[:, None]) @ self.turn[:, 2, :, None] / -self.scale[:, None, None]
        return np.concatenate([points[..., :2], away.astype(points.dtype)], axis=2)


class DenseFitter:
    """The algorithm for one model at n points: its matrices are made once and serve every clip."""

    def __init__(
        self,
        mean: np.ndarray,
        id_basis: np.ndarray,
        exp_basis: np.ndarray,
        *,
        ridge: float = 0.0,
        sigma: np.ndarray | None = None,
        camera_target: Literal["mean", "fitted"] = "mean",
        orthonormal: bool = False,
        rounds: int = 1,
        angles: np.ndarray | None = None,
    ):
        """mean (n,3), id_basis (n,3,n_id), exp_basis (n,3,n_exp), sigma (n_id+n_exp,), 1 if not given.

        ridge: weight of the squared coefficients over sigma; the squared error of a point, in model units,
        is a good one. camera_target: the shape that the camera carries to the image. rounds: more than the
        algorithm's 1 align the points again, to the shape found, so that an open jaw no longer turns and
        shrinks the head. angles: pitch, yaw, roll in degrees by which the points turn a fit, and by which it
        is turned back. Raises InvalidSettings when the points do not determine the coefficients.
        """
        points, n_id = len(mean), id_basis.shape[-1]
        basis = np.concatenate([id_basis, exp_basis], axis=-1).reshape(3 * points, -1).astype(np.float64)
        count = basis.shape[1]
        gram = basis.T @ basis
        held = gram + ridge * np.diag(1 / np.square(np.ones(count) if sigma is None else sigma))
        if np.linalg.cond(held) > 1e12:
            raise InvalidSettings(f"{points} points do not determine {count} coefficients; give a ridge")
        self.point_count, self.n_id, self.rounds = points, n_id, rounds
        self.camera_target, self.orthonormal = camera_target, orthonormal
        self._turn_back = None if angles is None else (AXIS_FLIP @ euler_to_rotation(*angles)).T
        self._mean = mean.astype(np.float64)
        self._middle = self._mean.mean(0)
        self._size = np.linalg.norm(self._mean - self._middle)
        self._basis = basis
        self._solve = np.linalg.solve(held, basis.T).T  # (3n,k)
        known = np.concatenate([self._mean, np.ones((points, 1))], axis=1)
        self._known = known.T @ known  # (4,4)
        # [x,1]' l of all frames as one product: rows (point, axis), columns (which of the 4, axis)
        self._moments = np.einsum("nr,cd->ncrd", known, np.eye(3)).reshape(3 * points, 12)
        self._cast: dict[np.dtype, tuple[np.ndarray, ...]] = {}

    @classmethod
    def for_model(
        cls,
        model: MorphableModel,
        points: Literal["landmarks", "dense"] = "landmarks",
        ridge: float | None = None,
        **options,
    ) -> DenseFitter:
        """For a model's 68 landmarks, or for its dense points.

        Without a ridge given, fewer than MIN_DENSE_POINTS get the square of RIDGE_SHARES of the face's half
        width.
        """
        parts = model.dense_model() if points == "dense" else model.landmark_model()
        if ridge is None:
            half = np.ptp(parts[0][:, 0]) / 2
            few = len(parts[0]) < MIN_DENSE_POINTS
            ridge = float(RIDGE_SHARES[points] * half) ** 2 if few else 0.0
        angles = model.dense_angles if points == "dense" else None
        return cls(*parts, ridge=ridge, angles=angles, **options)

    def fit_points(self, points: np.ndarray) -> FaceFit:
        """points (T,n,3), pixels with depth, finite -> coefficients and cameras of all frames, in the points'
        dtype: an identity a frame, whose mean is the clip's; the depth of the translation that of the points;
        rotations orthogonal only if asked for; error NaN.

        Points without depth (T,n,2) get that of the mean under the camera that fits it best, and in each
        further round that of the shape found.
        """
        flat = points.shape[-1] == 2
        if flat:
            points = self._lifted(points)
        moments = self._moments_of(points)
        similarity = self._align(points, moments)
        found = self._coefficients(points, similarity)  # (T,k)
        for _ in range(self.rounds - 1):
            shape = self.shape(found[:, : self.n_id], found[:, self.n_id :])
            if flat:
                points = similarity.add_shape_depth_to_points(shape, points)
            similarity = fit_similarity(shape, points)
            found = self._coefficients(points, similarity)
        if self.camera_target == "fitted":
            affine = fit_affine(self.shape(found[:, : self.n_id], found[:, self.n_id :]), points)
        else:
            affine = np.linalg.solve(self._known, self._moments_of(points) if flat else moments)
        scale, rotation, translation = decompose_camera(np.swapaxes(affine, 1, 2))
        if self.orthonormal:
            rotation = nearest_rotation(rotation)
        if self._turn_back is not None:  # about the middle of the points, which so stays where it was seen
            before, rotation = rotation, rotation @ self._turn_back
            translation = translation + scale[:, None] * ((before - rotation) @ self._middle)
        parts = (scale, rotation, translation, np.full(len(points), np.nan))
        scale, rotation, translation, error = (part.astype(points.dtype) for part in parts)
        id, exp = found[:, : self.n_id], found[:, self.n_id :]
        return FaceFit(id, exp, scale, rotation, translation, error)

    def align_points(self, points: np.ndarray) -> ProcrustesAlignment:
        """Step 2 alone: points (T,n,3) -> the similarity that brings each frame nearest to the mean."""
        return self._align(points, self._moments_of(points))

    def shape(self, id: np.ndarray, exp: np.ndarray) -> np.ndarray:
        """id (T,n_id) or (n_id,), exp (T,n_exp) -> model points (T,n,3) in the dtype of exp."""
        both = np.concatenate([np.broadcast_to(id, (len(exp), self.n_id)), exp], axis=1).astype(exp.dtype)
        _, turned, mean, _ = self._as(exp.dtype)
        points = both @ turned
        points += mean
        return points.reshape(len(exp), len(self._mean), 3)

    def fit_error(self, fit: FaceFit, points: np.ndarray) -> np.ndarray:
        """RMS distance in pixels (T,), in the image plane, between the points (T,n,2 or 3) and the fit as it
        was before it was turned back: the angle between mesh and head is no error of the fit."""
        rotation, translation = fit.rotation, fit.translation
        if self._turn_back is not None:
            rotation = (fit.rotation @ self._turn_back.T).astype(fit.rotation.dtype)
            moved = (fit.rotation - rotation) @ self._middle.astype(rotation.dtype)
            translation = fit.translation + fit.scale[:, None] * moved
        rows = fit.scale[:, None, None] * np.swapaxes(rotation, 1, 2)[..., :2]  # (T,3,2)
        missed = self.shape(fit.id, fit.exp) @ np.ascontiguousarray(rows)
        missed += translation[:, None, :2] - points[..., :2]
        flat = missed.reshape(len(missed), 2 * len(self._mean))
        return np.sqrt(np.einsum("tk,tk->t", flat, flat) / missed.shape[1])

    def _as(self, dtype: np.dtype) -> tuple[np.ndarray, ...]:
        """The solver (3n,k), the basis (k,3n), the mean (3n,) and the moments (3n,12) in a dtype, kept."""
        if dtype not in self._cast:
            parts = (self._solve, np.ascontiguousarray(self._basis.T), self._mean.reshape(-1), self._moments)
            self._cast[dtype] = tuple(part.astype(dtype) for part in parts)
        return self._cast[dtype]

    def _moments_of(self, points: np.ndarray) -> np.ndarray:
        """[x,1]' l of each frame (T,4,3) float64: correlations with the mean's axes, and the sum."""
        flat = points.reshape(len(points), -1) @ self._as(points.dtype)[3]
        return flat.astype(np.float64).reshape(-1, 4, 3)

    def _align(self, points: np.ndarray, moments: np.ndarray) -> ProcrustesAlignment:
        middle = moments[:, 3] / len(self._mean)
        cross = moments[:, :3] - self._middle[:, None] * moments[:, 3:]  # (x - mean x)' l
        return _procrustes(cross, self._size, self._middle, _size(points, middle), middle)

    def _coefficients(self, points: np.ndarray, similarity: ProcrustesAlignment) -> np.ndarray:
        turn = similarity.scale[:, None, None] * (AXIS_FLIP @ similarity.turn)
        remain = points @ turn.astype(points.dtype)  # (T,n,3)
        remain += similarity.shift[:, None].astype(points.dtype)
        remain -= self._mean.astype(points.dtype)
        return remain.reshape(len(points), -1) @ self._as(points.dtype)[0]

    def _lifted(self, points: np.ndarray) -> np.ndarray:
        """(T,n,2) -> (T,n,3): the depth of the mean under the affine camera that carries it there best."""
        known = np.concatenate([self._mean, np.ones((len(self._mean), 1))], axis=1)
        affine = np.swapaxes(np.linalg.solve(self._known, known.T @ points), 1, 2)  # (T,2,4)
        scale, rotation, _ = decompose_camera(np.concatenate([affine, affine[:, :1]], axis=1))
        depth = scale[:, None] * (self._mean @ np.swapaxes(rotation, 1, 2))[..., 2]
        return np.concatenate([points, depth[..., None].astype(points.dtype)], axis=2)


def fit_similarity(shapes: np.ndarray, points: np.ndarray) -> ProcrustesAlignment:
    """Procrustes of image points (T,n,3) to a shape (T,n,3) of each frame."""
    to, middle = _centre(shapes), _centre(points)
    cross = (np.swapaxes(shapes, 1, 2) @ points).astype(np.float64)
    cross -= shapes.shape[1] * to[..., None] * middle[:, None]
    return _procrustes(cross, _size(shapes, to), to, _size(points, middle), middle)


def _centre(points: np.ndarray) -> np.ndarray:
    """points (T,n,3) -> their mean (T,3) float64: by a product, which goes through rows as they lie, five
    times as fast as a sum over the middle axis."""
    count = points.shape[1]
    sums = points.reshape(len(points), -1) @ np.tile(np.eye(3, dtype=points.dtype), (count, 1))
    return sums.astype(np.float64) / count


def _size(points: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Frobenius norm (T,) of points (T,n,3) about their middle (T,3)."""
    flat = points.reshape(len(points), -1)
    square = np.einsum("tk,tk->t", flat, flat, dtype=np.float64)
    return np.sqrt(square - points.shape[1] * (middle**2).sum(1))


def _procrustes(
    cross: np.ndarray, to_size: Any, to: np.ndarray, size: np.ndarray, middle: Any
) -> ProcrustesAlignment:
    """cross (T,3,3) = (x - mean x)' l, sizes and middles of x (`to`) and l -> Procrustes without
    reflection."""
    left, values, right = np.linalg.svd(cross @ AXIS_FLIP / (to_size * size)[:, None, None])
    mirrored = np.linalg.det(left @ right) < 0
    right[mirrored, -1] *= -1
    values[mirrored, -1] *= -1
    turn = np.swapaxes(left @ right, 1, 2)
    trace = values.sum(1)
    scale = trace * to_size / size
    shift = to - scale[:, None] * ((middle @ AXIS_FLIP)[:, None] @ turn)[:, 0]
    return ProcrustesAlignment(turn, scale, shift, 1 - trace**2)


def fit_affine(shapes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The least-squares affine map from shapes (T,n,3) to points (T,n,3): (T,4,3), the last row the shift."""
    known = np.concatenate([shapes, np.ones((*shapes.shape[:2], 1), shapes.dtype)], axis=2)
    turned = np.swapaxes(known, 1, 2)
    return np.linalg.solve((turned @ known).astype(np.float64), (turned @ points).astype(np.float64))


def decompose_camera(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Affine cameras (...,3,4) -> scale (...), rotation (...,3,3), translation (...,3).

    The scale is the mean length of the first two rows, the third row their cross product. The rows are not
    made orthogonal; `pose.nearest_rotation` does, and must before an angle is edited.
    """
    rows = affine[..., :2, :3]
    length = np.linalg.norm(rows, axis=-1)
    unit = rows / length[..., None]
    third = np.cross(unit[..., 0, :], unit[..., 1, :])
    return length.mean(-1), np.concatenate([unit, third[..., None, :]], axis=-2), affine[..., 3]


def adapt_camera(
    scale: np.ndarray,
    translation: np.ndarray,
    to_scale: np.ndarray,
    to_translation: np.ndarray,
    *,
    adapt_translation: bool = True,
    standardise: bool = False,
    window: int = 15,
) -> tuple[np.ndarray, np.ndarray]:
    """A driving clip's camera made to frame the reference's face: another head, the same motion.

    scale (T,) and translation (T,3) of the driving clip; to_scale (n,), to_translation (n,3) of the
    reference. The mean scale becomes the reference's, and the translation over scale gets its mean (and its
    spread with `standardise`, but for axes along which either does not move, as fits to landmarks without
    depth do not); both pass a box filter of `window` frames. Rotations and expressions go over as they are.
    """
    adapted = moving_average(scale * to_scale.mean() / scale.mean(), window)
    place = translation / scale[:, None]
    if adapt_translation:
        there = to_translation / to_scale[:, None]
        spread = spread_ratio(there, place) if standardise else 1.0
        place = moving_average((place - place.mean(0)) * spread + there.mean(0), window)
    return adapted, adapted[:, None] * place


def spread_ratio(there: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Places (n,3), (T,3) in model units -> deviation of the first over that of the second, by axis (3,); 1
    where either stands still.
    """
    wanted, own = there.std(0), here.std(0)
    moving = (wanted > MIN_SPREAD) & (own > MIN_SPREAD)
    return np.divide(wanted, own, out=np.ones_like(own), where=moving)


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """values (T,...) -> running means over `window` frames (odd), the ends repeated."""
    half = window // 2
    padded = np.concatenate([values[:1].repeat(half, 0), values, values[-1:].repeat(half, 0)])
    total = np.cumsum(np.concatenate([np.zeros_like(padded[:1]), padded]), axis=0, dtype=np.float64)
    return ((total[window:] - total[:-window]) / window).astype(values.dtype)
