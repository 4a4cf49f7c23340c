"""Fit a 3D morphable model to 68 landmarks: identity of a clip, expression and pose of each frame.

Algorithm 1 of the HeadGAN supplement takes 1035 dense points with depth: Procrustes to the mean,
pseudo-inverse for the coefficients, least-squares camera. 68 points without depth leave that ill-posed, so
here (its ridge option)
- coefficients are held to zero in units of their sigmas, and identity is one vector for the whole clip;
- the camera starts as the algorithm's affine map from the mean to the landmarks, made a scaled rotation;
- camera and coefficients are then solved together in Gauss-Newton rounds: solved in turns they creep, since
  opening the
  jaw and nodding move the same points.

    minimise  sum_t [ sum_i w_i rho(|s_t R_t X_i(id, exp_t) + T_t - y_ti| / (s_t sigma)) + |exp_t|^2 + k
    |id|^2 ]

Frames hang together through id alone: a round eliminates each frame's 6 + n_exp unknowns, solves the n_id
that are left, and substitutes back; all frames of a clip in one batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.perception.morphable import MorphableModel
from models.perception.pose import FLIP, nearest_rotation

INNER = slice(17, 68)
POSE = 6  # a frame's unknowns: 3 of rotation, log scale, 2 of translation, then the expression


@dataclass(frozen=True, kw_only=True, slots=True)
class FitOptions:
    contour_weight: float = 0.15
    """w of points 0-16. A landmark net puts them on the visible outline, which slides over a turning head."""
    chin_weight: float = 0.1
    """w of points 6-10, which move with the jaw, and with what the net takes for the chin."""
    noise: float = 0.03
    """sigma: what a landmark is off by, in model units. Larger trusts the prior more."""
    id_prior: float = 0.5
    """k. A landmark net errs alike in all frames of a clip, so their number must not outvote the prior."""
    outlier: float = 3.0
    """Sigmas from which a point counts linearly (rho is Huber's)."""
    rounds: int = 5
    """Gauss-Newton rounds."""


@dataclass(frozen=True, slots=True)
class FaceFit:
    id: np.ndarray
    """(n_id,) float32."""
    exp: np.ndarray
    """(T,n_exp) float32."""
    scale: np.ndarray
    """(T,) float32, pixels per model unit."""
    rotation: np.ndarray
    """(T,3,3) float32, model to camera, the flip of y and z included."""
    translation: np.ndarray
    """(T,3) float32 pixels; the depth, which landmarks do not tell, is 0."""
    error: np.ndarray
    """(T,) float32, RMS distance in pixels over the 51 inner points."""


@dataclass(slots=True)
class _State:
    id: np.ndarray  # (n_id,)
    exp: np.ndarray  # (T,n_exp)
    scale: np.ndarray  # (T,)
    rotation: np.ndarray  # (T,3,3)
    shift: np.ndarray  # (T,2) pixels


def fit_landmarks(model: MorphableModel, landmarks: np.ndarray, options: FitOptions) -> FaceFit:
    """landmarks (T,68,2), pixels, all finite, T >= 1 -> the fit of one person over T frames."""
    mean, id_basis, exp_basis = (part.astype(np.float64) for part in model.landmark_model())
    target = landmarks.astype(np.float64)
    weight = np.ones(68)
    weight[:17] = options.contour_weight
    weight[6:11] = options.chin_weight
    rotation, scale, shift = affine_camera(mean, target, weight)
    frames, bounds = len(target), (np.asarray(model.id_bound), np.asarray(model.exp_bound))
    state = _State(np.zeros(model.n_id), np.zeros((frames, model.n_exp)), scale, rotation, shift)
    for _ in range(options.rounds):
        jacobian, residual = _linearise(state, (mean, id_basis, exp_basis), target, weight, options)
        _step(state, jacobian, residual, options.id_prior * frames, bounds)
    points, _ = _project(state, mean, id_basis, exp_basis)
    error = np.sqrt(((points - target)[:, INNER] ** 2).sum(-1).mean(-1))
    depth = np.concatenate([state.shift, np.zeros((frames, 1))], axis=1)
    parts = (state.id, state.exp, state.scale, state.rotation, depth, error)
    return FaceFit(*(part.astype(np.float32) for part in parts))


def affine_camera(
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
    shape = mean + id_basis @ state.id + np.einsum("ncj,tj->tnc", exp_basis, state.exp)
    turned = shape @ np.swapaxes(state.rotation, 1, 2)
    return state.scale[:, None, None] * turned[..., :2] + state.shift[:, None], turned


def _linearise(
    state: _State,
    model: tuple[np.ndarray, np.ndarray, np.ndarray],
    target: np.ndarray,
    weight: np.ndarray,
    o: FitOptions,
) -> tuple[np.ndarray, np.ndarray]:
    """What a small change of a frame's unknowns and id does to its landmarks (T,136,6+n_exp+n_id), and what
    is missing (T,136); both in sigmas and weighted."""
    mean, id_basis, exp_basis = model
    points, turned = _project(state, mean, id_basis, exp_basis)
    residual = (target - points) / (state.scale * o.noise)[:, None, None]
    distance = np.linalg.norm(residual, axis=-1)
    trust = np.sqrt(weight * np.minimum(1, o.outlier / np.maximum(distance, 1e-9)))  # (T,68)
    basis = np.concatenate([exp_basis, id_basis], axis=2)
    jacobian = np.zeros((len(target), 68, 2, POSE + basis.shape[2]))
    x, y, z = np.moveaxis(turned, -1, 0)
    # a small turn d moves a turned point by d x point
    jacobian[:, :, 0, 1], jacobian[:, :, 0, 2] = z, -y
    jacobian[:, :, 1, 0], jacobian[:, :, 1, 2] = -z, x
    jacobian[:, :, 0, 3], jacobian[:, :, 1, 3] = x, y
    jacobian[:, :, 0, 4] = jacobian[:, :, 1, 5] = 1
    jacobian[..., POSE:] = np.einsum("trc,ncj->tnrj", state.rotation[:, :2], basis, optimize=True)
    jacobian *= trust[..., None, None] / o.noise
    return jacobian.reshape(len(target), 136, -1), (residual * trust[..., None]).reshape(len(target), 136)


def _step(
    state: _State,
    jacobian: np.ndarray,
    residual: np.ndarray,
    id_ridge: float,
    bounds: tuple[np.ndarray, np.ndarray],
) -> None:
    """One Gauss-Newton step of everything, in place. What hits its bound stays there, and the others make up
    for it."""
    n_exp, n_id = state.exp.shape[1], len(state.id)
    own = POSE + n_exp
    turned = np.swapaxes(jacobian, 1, 2)
    hessian, slope = turned @ jacobian, (turned @ residual[..., None])[..., 0]
    slope[:, POSE:own] -= state.exp
    frame_hessian = hessian[:, :own, :own] + np.diag(np.r_[np.full(POSE, 1e-6), np.ones(n_exp)])
    cross = hessian[:, :own, own:]
    # eliminate the frames' unknowns: A^-1 [B g]
    gone = np.linalg.solve(frame_hessian, np.concatenate([cross, slope[:, :own, None]], axis=2))
    left = (hessian[:, own:, own:] - np.swapaxes(cross, 1, 2) @ gone[..., :-1]).sum(0)
    right = (slope[:, own:] - (np.swapaxes(cross, 1, 2) @ gone[..., -1:])[..., 0]).sum(0)
    id = state.id + np.linalg.solve(left + id_ridge * np.eye(n_id), right - id_ridge * state.id)
    id = np.clip(id, -bounds[0], bounds[0])
    exp = state.exp + (gone[..., -1] - gone[..., :-1] @ (id - state.id))[:, POSE:]
    exp = np.clip(exp, -bounds[1], bounds[1])
    moved = np.concatenate([exp - state.exp, np.tile(id - state.id, (len(exp), 1))], axis=1)
    rest = slope[:, :POSE] - (hessian[:, :POSE, POSE:] @ moved[..., None])[..., 0]
    pose = np.linalg.solve(frame_hessian[:, :POSE, :POSE], rest[..., None])[..., 0]
    state.id, state.exp = id, exp
    state.rotation = turn(pose[:, :3]) @ state.rotation
    # the shift's unit is a model unit, so that all columns are of one size
    state.shift = state.shift + state.scale[:, None] * pose[:, 4:]
    state.scale = state.scale * np.exp(np.clip(pose[:, 3], -0.5, 0.5))


def turn(axis_angle: np.ndarray) -> np.ndarray:
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


def fill_gaps(fit: FaceFit, seen: np.ndarray, frames: int) -> FaceFit:
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
    return FaceFit(fit.id, spread(fit.exp), spread(fit.scale), rotation, spread(fit.translation), error)


def neutral(model: MorphableModel, frames: int) -> FaceFit:
    """The fit of a clip without any landmarks: the mean head, frontal, of scale 1."""
    rotation = np.tile(FLIP.astype(np.float32), (frames, 1, 1))
    zeros = np.zeros((frames, 3), np.float32)
    nothing = np.full(frames, np.nan, np.float32)
    exp = np.zeros((frames, model.n_exp), np.float32)
    return FaceFit(
        np.zeros(model.n_id, np.float32), exp, np.ones(frames, np.float32), rotation, zeros, nothing
    )
