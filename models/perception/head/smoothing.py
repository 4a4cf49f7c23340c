"""Cameras of a clip made smooth in time: rotation on the sphere of rotations, scale as a ratio, translation.

Fits of single frames jitter by about a degree; a renderer that is shown them trembles. Expressions are left
alone: a smoothed mouth lags behind its sound.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.perception.head.landmark_fit import FaceFit, rotation_exp
from models.perception.head.pose import nearest_rotation


def rotation_log(rotation: np.ndarray) -> np.ndarray:
    """(...,3,3) rotations -> (...,3) axis times angle in radians, up to pi; `landmark_fit.rotation_exp` is
    the way back."""
    twice_sine = np.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        axis=-1,
    )
    length = np.linalg.norm(twice_sine, axis=-1)
    angle = np.arctan2(length, np.trace(rotation, axis1=-2, axis2=-1) - 1)
    # near 180 degrees the axis is lost; heads do not turn so far between frames of one clip
    return twice_sine * (angle / np.where(length < 1e-12, 2, length))[..., None]


def gaussian_smooth_face_fit(fit: FaceFit, sigma: float, trusted: np.ndarray) -> FaceFit:
    """Weighted means over about six sigmas (frames); frames that are not `trusted` (T,) bool lend no weight.

    Rotations are averaged in the plane that touches the sphere at the frame's own one. A clip's ends use
    the frames there are.
    """
    frames, reach = len(fit.scale), max(1, round(3 * sigma))
    near = np.clip(np.arange(frames)[:, None] + np.arange(-reach, reach + 1), 0, frames - 1)
    inside = near == np.arange(frames)[:, None] + np.arange(-reach, reach + 1)
    weight = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2) * inside * trusted[near]
    total = weight.sum(1)
    isolated = total < 1e-9
    weight[isolated, reach] = 1
    weight /= weight.sum(1, keepdims=True)
    rotation = nearest_rotation(fit.rotation)
    apart = rotation_log(np.swapaxes(rotation, 1, 2)[:, None] @ rotation[near])  # (T,2 reach + 1,3)
    turned = rotation @ rotation_exp((weight[..., None] * apart).sum(1))
    scale = np.exp((weight * np.log(fit.scale)[near]).sum(1))
    place = (weight[..., None] * fit.translation[near]).sum(1)
    return _with_camera(fit, turned, scale, place)


def one_euro_filter(fit: FaceFit, cutoff: float, beta: float, fps: float = 25.0) -> FaceFit:
    """The One-Euro filter (Casiez et al. 2012): each frame moves a share of the way from the last smooth one.

    cutoff: Hz passed at rest, lower is smoother. beta: Hz more for a degree, pixel or percent a second, so
    that fast motion does not lag. Causal: a live camera can be smoothed alike.
    """
    rotation = nearest_rotation(fit.rotation)
    logs, place = np.log(fit.scale.astype(np.float64)) * 100, fit.translation.astype(np.float64)
    turned, scale, moved = rotation.copy(), logs.copy(), place.copy()
    speed = np.zeros(7)  # 3 of rotation in degrees, scale in percent, 3 of translation, a second
    slow = _share(1.0, fps)
    for t in range(1, len(logs)):
        step = np.concatenate(
            [
                np.rad2deg(rotation_log(rotation[t - 1].T @ rotation[t])),
                [logs[t] - logs[t - 1]],
                place[t] - place[t - 1],
            ]
        )
        speed += slow * (step * fps - speed)
        sizes = (float(np.linalg.norm(part)) for part in (speed[:3], speed[3:4], speed[4:]))
        a, b, c = (_share(cutoff + beta * size, fps) for size in sizes)
        apart = rotation_log(turned[t - 1].T @ rotation[t])
        turned[t] = turned[t - 1] @ rotation_exp(a * apart[None])[0]
        scale[t] = scale[t - 1] + b * (logs[t] - scale[t - 1])
        moved[t] = moved[t - 1] + c * (place[t] - moved[t - 1])
    return _with_camera(fit, turned, np.exp(scale / 100), moved)


def _share(cutoff: float, fps: float) -> float:
    """What a low-pass of one pole takes of a new value."""
    return 1 / (1 + fps / (2 * np.pi * cutoff))


def _with_camera(fit: FaceFit, rotation: np.ndarray, scale: np.ndarray, place: np.ndarray) -> FaceFit:
    scale, rotation, place = (part.astype(np.float32) for part in (scale, rotation, place))
    return replace(fit, scale=scale, rotation=rotation, translation=place)
