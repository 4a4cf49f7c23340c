"""Fit a 3D morphable model to 68 landmarks: identity of a clip, expression and pose of each frame.

Algorithm 1 of the HeadGAN supplement (dense_fit.py) takes 1035 dense points with depth: Procrustes to the
mean, pseudo-inverse for the coefficients, least-squares camera. 68 points without depth leave that ill-posed,
so here
- coefficients are held to zero in units of their sigmas, and identity is one vector for the whole clip;
- the camera starts as the algorithm's affine map from the mean to the landmarks, made a scaled rotation;
- camera and coefficients are then solved together in Gauss-Newton rounds: solved in turns they creep, since
  opening the jaw and nodding move the same points.

    minimise  sum_t [ sum_i w_i rho(|s_t R_t X_i(id, exp_t) + T_t - y_ti| / (s_t sigma)) + |exp_t|^2
              + k |id|^2 ]

Frames hang together through id alone: a round eliminates each frame's 6 + n_exp unknowns, solves the n_id
that are left, and substitutes back; frames go in batches. With an identity a frame, the n_id are
solved frame by frame. Lengths are taken in halves of the mean face's width, so that one noise suits every
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from models.perception.head.morphable import MorphableModel
from models.perception.head.pose import AXIS_FLIP, nearest_rotation, project

INNER_LANDMARKS = slice(17, 68)
EYELID_LANDMARKS = slice(36, 48)  # the corners too, which the same net places
FitParts = tuple[
    np.ndarray, np.ndarray, np.ndarray
]  # mean (68,3), id_basis (68,3,n_id), exp_basis (68,3,n_exp)
LANDMARK_FIT_BLOCK_FRAMES = (
    64  # frames linearised at once: 4 MB for the analytic head, and a core's cache holds it
)
POSE_SIZE = 6  # a frame's unknowns: 3 of rotation, log scale, 2 of translation, then the expression


@dataclass(frozen=True, kw_only=True, slots=True)
class LandmarkFitOptions:
    contour_weight: float = 0.15
    """w of points 0-16. A landmark net puts them on the visible outline, which slides over a turning head."""
    chin_weight: float = 0.1
    """w of points 6-10, which move with the jaw, and with what the net takes for the chin."""
    eyelid_weight: float = 3.0
    """w of points 36-47. A lid's blink is small beside what the prior allows other points to miss: where a
    net sees blinks, a larger weight follows them further."""
    noise: float = 0.03
    """sigma: what a landmark is off by, in half widths of the face. Larger trusts the prior more."""
    id_prior: float = 0.5
    """k. A landmark net errs alike in all frames of a clip, so their number must not outvote the prior."""
    outlier: float = 3.0
    """Sigmas from which a point counts linearly (rho is Huber's)."""
    rounds: int = 5
    """Gauss-Newton rounds."""
    identity: Literal["clip", "frame"] = "clip"
    """One identity for all frames, or one each."""


@dataclass(frozen=True, slots=True)
class FaceFit:
    id: np.ndarray
    """(n_id,) float32, or (T,n_id) with an identity a frame."""
    exp: np.ndarray
    """(T,n_exp) float32."""
    scale: np.ndarray
    """(T,) float32, pixels per model unit."""
    rotation: np.ndarray
    """(T,3,3) float32, model to camera, the flip of y and z included."""
    translation: np.ndarray
    """(T,3) float32 pixels; the depth, which landmarks do not tell, is 0."""
    error: np.ndarray
    """(T,) float32, RMS distance in pixels over the 51 inner points (or the dense ones), NaN where none
    are."""

    def select_frames(self, frames: np.ndarray) -> FaceFit:
        """The fit of these frames alone, numbers or a mask."""
        id = self.id if self.id.ndim == 1 else self.id[frames]
        camera = (self.scale[frames], self.rotation[frames], self.translation[frames])
        return FaceFit(id, self.exp[frames], *camera, self.error[frames])


@dataclass(slots=True)
class _State:
    id: np.ndarray  # (P,n_id), P = 1 or T
    exp: np.ndarray  # (T,n_exp)
    scale: np.ndarray  # (T,)
    rotation: np.ndarray  # (T,3,3)
    shift: np.ndarray  # (T,2) pixels

    def at(self, rows: slice) -> _State:
        id = self.id if len(self.id) == 1 else self.id[rows]
        return _State(id, self.exp[rows], self.scale[rows], self.rotation[rows], self.shift[rows])


def fit_landmarks(model: MorphableModel, landmarks: np.ndarray, options: LandmarkFitOptions) -> FaceFit:
    """landmarks (T,68,2), pixels, all finite, T >= 1 -> the fit of one person over T frames."""
    points = model.landmark_model()
    unit = float(points[0][16, 0] - points[0][0, 0]) / 2
    mean, id_basis, exp_basis = (part.astype(np.float64) / unit for part in points)
    target = landmarks.astype(np.float64)
    weight = np.ones(68)
    weight[:17] = options.contour_weight
    weight[6:11] = options.chin_weight
    weight[EYELID_LANDMARKS] = options.eyelid_weight
    rotation, scale, shift = fit_affine_camera(mean, target, weight)
    frames, bounds = len(target), (np.asarray(model.id_bound), np.asarray(model.exp_bound))
    people = 1 if options.identity == "clip" else frames
    id, exp = np.zeros((people, model.n_id)), np.zeros((frames, model.n_exp))
    state = _State(id, exp, scale, rotation, shift)
    pieces = [slice(at, at + LANDMARK_FIT_BLOCK_FRAMES) for at in range(0, frames, LANDMARK_FIT_BLOCK_FRAMES)]
    for _ in range(options.rounds):
        parts = (mean, id_basis, exp_basis)
        blocks = [_reduce(state, rows, parts, target, weight, options) for rows in pieces]
        _step(state, blocks, options.id_prior * frames / people, bounds)
    depth = np.concatenate([state.shift, np.zeros((frames, 1))], axis=1)
    parts = (state.id[0] if people == 1 else state.id, state.exp, state.scale / unit, state.rotation, depth)
    fit = FaceFit(*(part.astype(np.float32) for part in parts), error=np.zeros(frames, np.float32))
    return replace(fit, error=landmark_fit_error(model, fit, landmarks))


def face_size(landmarks: np.ndarray) -> np.ndarray:
    """landmarks (T,68,2) -> (T,): the mean of their width and height; NaN where they are."""
    return np.ptp(landmarks, axis=1).mean(1)


def landmark_fit_error(model: MorphableModel, fit: FaceFit, landmarks: np.ndarray) -> np.ndarray:
    """RMS distance in pixels (T,) float32 of the fit from the 51 inner landmarks (T,68,2); NaN where they
    are."""
    mean, id_basis, exp_basis = (part[INNER_LANDMARKS] for part in model.landmark_model())
    person = mean + np.moveaxis(id_basis @ np.atleast_2d(fit.id).T, 2, 0)
    placed = project(
        person + np.moveaxis(exp_basis @ fit.exp.T, 2, 0), fit.scale, fit.rotation, fit.translation
    )
    missed = placed[..., :2] - landmarks[:, INNER_LANDMARKS, :2]
    return np.sqrt((missed**2).sum(-1).mean(-1)).astype(np.float32)


def fit_affine_camera(
    mean: np.ndarray, target: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Step 6 and 7 of Algorithm 1 from the mean (68,3) to landmarks (T,68,2): rotation, scale, shift of each
    frame."""
    known = np.concatenate([mean, np.ones((len(mean), 1))], axis=1)
    solve = np.linalg.solve(known.T @ (known * weight[:, None]), (known * weight[:, None]).T)  # (4,68)
    camera = np.swapaxes(solve @ target, 1, 2)  # (T,2,4)
    rows, shift = camera[..., :3], camera[..., 3]
    length = np.linalg.norm(rows, axis=-1)
    unit = rows / length[..., None]
    third = np.cross(unit[:, 0], unit[:, 1])
    rotation = nearest_rotation(np.concatenate([unit, third[:, None]], axis=1))
    return rotation, length.mean(-1), shift


def _project(
    state: _State, mean: np.ndarray, id_basis: np.ndarray, exp_basis: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks of the state in pixels (T,68,2), and turned in model units (T,68,3)."""
    shape = (
        mean + np.einsum("ncj,pj->pnc", id_basis, state.id) + np.einsum("ncj,tj->tnc", exp_basis, state.exp)
    )
    turned = shape @ np.swapaxes(state.rotation, 1, 2)
    return state.scale[:, None, None] * turned[..., :2] + state.shift[:, None], turned


def _linearise(
    state: _State,
    model: FitParts,
    target: np.ndarray,
    weight: np.ndarray,
    o: LandmarkFitOptions,
) -> tuple[np.ndarray, np.ndarray]:
    """What a small change of a frame's unknowns and id does to its landmarks (T,136,6+n_exp+n_id), x of all
    before y, and what is missing (T,136); both in sigmas and weighted."""
    mean, id_basis, exp_basis = model
    points, turned = _project(state, mean, id_basis, exp_basis)
    residual = (target - points) / (state.scale * o.noise)[:, None, None]
    distance = np.linalg.norm(residual, axis=-1)
    trust = np.sqrt(weight * np.minimum(1, o.outlier / np.maximum(distance, 1e-9)))  # (T,68)
    basis = np.concatenate([exp_basis, id_basis], axis=2)
    jacobian = np.zeros((len(target), 2, 68, POSE_SIZE + basis.shape[2]))
    x, y, z = np.moveaxis(turned, -1, 0)
    # a small turn d moves a turned point by d x point
    jacobian[:, 0, :, 1], jacobian[:, 0, :, 2] = z, -y
    jacobian[:, 1, :, 0], jacobian[:, 1, :, 2] = -z, x
    jacobian[:, 0, :, 3], jacobian[:, 1, :, 3] = x, y
    jacobian[:, 0, :, 4] = jacobian[:, 1, :, 5] = 1
    by_axis = np.swapaxes(basis, 0, 1).reshape(3, -1)  # (3,68 J)
    jacobian[..., POSE_SIZE:] = (state.rotation[:, :2] @ by_axis).reshape(len(target), 2, 68, -1)
    jacobian *= trust[:, None, :, None] / o.noise
    missed = np.swapaxes(residual * trust[..., None], 1, 2)
    return jacobian.reshape(len(target), 136, -1), missed.reshape(len(target), 136)


@dataclass(frozen=True, slots=True)
class _Reduced:
    """A block of n frames whose own unknowns (`own` of them) are eliminated."""

    rows: slice
    hessian: np.ndarray
    """(n,own,own+n_id): the frames' own equations."""
    slope: np.ndarray
    """(n,own)."""
    gone: np.ndarray
    """(n,own,n_id+1): the own unknowns for a change of id, and for none."""
    left: np.ndarray
    """(P,n_id,n_id): what is left for id, summed if all frames share it."""
    right: np.ndarray
    """(P,n_id)."""


def _reduce(
    state: _State, rows: slice, model: FitParts, target: np.ndarray, weight: np.ndarray, o: Any
) -> _Reduced:
    block = state.at(rows)
    jacobian, residual = _linearise(block, model, target[rows], weight, o)
    own = POSE_SIZE + block.exp.shape[1]
    turned = np.swapaxes(jacobian, 1, 2)
    hessian, slope = turned @ jacobian, (turned @ residual[..., None])[..., 0]
    slope[:, POSE_SIZE:own] -= block.exp
    prior = np.r_[np.full(POSE_SIZE, 1e-6), np.ones(own - POSE_SIZE)]
    hessian[:, np.arange(own), np.arange(own)] += prior
    cross = hessian[:, :own, own:]
    # eliminate the frames' unknowns: A^-1 [B g]
    gone = np.linalg.solve(hessian[:, :own, :own], np.concatenate([cross, slope[:, :own, None]], axis=2))
    left = hessian[:, own:, own:] - np.swapaxes(cross, 1, 2) @ gone[..., :-1]
    right = slope[:, own:] - (np.swapaxes(cross, 1, 2) @ gone[..., -1:])[..., 0]
    if len(state.id) == 1:
        left, right = left.sum(0, keepdims=True), right.sum(0, keepdims=True)
    return _Reduced(rows, hessian[:, :own].copy(), slope[:, :own], gone, left, right)


def _step(
    state: _State, blocks: Sequence[_Reduced], id_ridge: float, bounds: tuple[np.ndarray, np.ndarray]
) -> None:
    """One Gauss-Newton step of everything, in place. What hits its bound stays there, and the others make up
    for it."""
    shared, n_id = len(state.id) == 1, state.id.shape[1]
    before = state.id.copy()
    if shared:
        blocks_left, blocks_right = sum(b.left for b in blocks), sum(b.right for b in blocks)
        state.id = _moved(before, blocks_left, blocks_right, id_ridge, bounds[0])
    for block in blocks:
        rows = slice(None) if shared else block.rows
        if not shared:
            state.id[rows] = _moved(before[rows], block.left, block.right, id_ridge, bounds[0])
        change = np.broadcast_to((state.id - before)[rows], (len(block.slope), n_id))
        step = block.gone[..., -1] - (block.gone[..., :-1] @ change[..., None])[..., 0]
        exp = np.clip(state.exp[block.rows] + step[:, POSE_SIZE:], -bounds[1], bounds[1])
        moved = np.concatenate([exp - state.exp[block.rows], change], axis=1)
        rest = (
            block.slope[:, :POSE_SIZE] - (block.hessian[:, :POSE_SIZE, POSE_SIZE:] @ moved[..., None])[..., 0]
        )
        pose = np.linalg.solve(block.hessian[:, :POSE_SIZE, :POSE_SIZE], rest[..., None])[..., 0]
        state.exp[block.rows] = exp
        state.rotation[block.rows] = rotation_exp(pose[:, :3]) @ state.rotation[block.rows]
        # the shift's unit is a model unit, so that all columns are of one size
        state.shift[block.rows] += state.scale[block.rows, None] * pose[:, 4:]
        state.scale[block.rows] *= np.exp(np.clip(pose[:, 3], -0.5, 0.5))


def _moved(id: np.ndarray, left: Any, right: Any, ridge: float, bound: np.ndarray) -> np.ndarray:
    """id (P,n_id) after a step of its own equations (P,n_id,n_id), (P,n_id)."""
    solved = np.linalg.solve(left + ridge * np.eye(id.shape[1]), (right - ridge * id)[..., None])[..., 0]
    return np.clip(id + solved, -bound, bound)


def rotation_exp(axis_angle: np.ndarray) -> np.ndarray:
    """(T,3) radians -> rotations (T,3,3), by Rodrigues' formula."""
    angle = np.linalg.norm(axis_angle, axis=1)[:, None, None]
    x, y, z = axis_angle.T
    zero = np.zeros_like(x)
    k = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    small = angle < 1e-8
    safe = np.where(small, 1, angle)
    return (
        np.eye(3)
        + np.where(small, 1, np.sin(angle) / safe) * k
        + np.where(small, 0.5, (1 - np.cos(angle)) / safe**2) * k @ k
    )


def interpolate_fit(fit: FaceFit, seen: np.ndarray, frames: int) -> FaceFit:
    """A fit of frames `seen` (n,) -> of all: between them along straight lines, beyond them held; error NaN
    there."""
    clock = np.arange(frames)

    def spread(values: np.ndarray) -> np.ndarray:
        flat = values.reshape(len(seen), -1)
        out = np.stack([np.interp(clock, seen, column) for column in flat.T], axis=1)
        return out.reshape(frames, *values.shape[1:]).astype(np.float32)

    error = np.full(frames, np.nan, np.float32)
    error[seen] = fit.error
    rotation = spread(fit.rotation)
    gaps = np.setdiff1d(clock, seen)
    rotation[gaps] = nearest_rotation(rotation[gaps])
    id = fit.id if fit.id.ndim == 1 else spread(fit.id)
    return FaceFit(id, spread(fit.exp), spread(fit.scale), rotation, spread(fit.translation), error)


def neutral_fit(model: MorphableModel, frames: int) -> FaceFit:
    """The fit of a clip without any landmarks: the mean head, frontal, of scale 1."""
    rotation = np.tile(AXIS_FLIP.astype(np.float32), (frames, 1, 1))
    zeros = np.zeros((frames, 3), np.float32)
    nothing = np.full(frames, np.nan, np.float32)
    exp = np.zeros((frames, model.n_exp), np.float32)
    return FaceFit(
        np.zeros(model.n_id, np.float32), exp, np.ones(frames, np.float32), rotation, zeros, nothing
    )
