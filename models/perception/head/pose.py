"""Rotations of a head and the scaled orthographic camera they act in: pixel = s R X + T.

Model space: x right in the image, y up, z toward the viewer. Camera space: x right, y down, z away from the
viewer. A rotation therefore carries the flip: R = diag(1,-1,-1) Rh, and a frontal head has R = diag(1,-1,-1).
Rh = Rz(roll) Ry(yaw) Rx(pitch), right-handed, in model space, all angles 0 for a frontal head. Positive pitch
looks down, positive yaw turns the nose to the image's right, positive roll tilts the head to the image's
left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

AXIS_FLIP = np.diag([1.0, -1.0, -1.0])
GIMBAL_LIMIT = 1e-6  # below this cosine of the yaw, pitch and roll cannot be told apart


def euler_to_rotation(pitch: ArrayLike, yaw: ArrayLike, roll: ArrayLike) -> np.ndarray:
    """Degrees, broadcast together to (...) -> model-to-camera rotations (...,3,3) float64, flip included."""
    x, y, z = np.broadcast_arrays(*(np.deg2rad(np.asarray(a, dtype=np.float64)) for a in (pitch, yaw, roll)))
    (cx, sx), (cy, sy), (cz, sz) = ((np.cos(a), np.sin(a)) for a in (x, y, z))
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    head = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    return AXIS_FLIP @ head


def rotation_to_euler(rotation: np.ndarray) -> np.ndarray:
    """Model-to-camera rotations (...,3,3), flip included -> (...,3) degrees: pitch, yaw, roll.

    At yaw = +-90 only pitch -+ roll is defined; roll is then 0. An affine camera's rotation is not
    orthogonal: take `nearest_rotation` first.
    """
    head = AXIS_FLIP @ np.asarray(rotation, dtype=np.float64)
    cos_yaw = np.hypot(head[..., 0, 0], head[..., 1, 0])
    gimbal = cos_yaw < GIMBAL_LIMIT
    pitch = np.where(
        gimbal,
        np.arctan2(-head[..., 1, 2], head[..., 1, 1]),
        np.arctan2(head[..., 2, 1], head[..., 2, 2]),
    )
    yaw = np.arctan2(-head[..., 2, 0], cos_yaw)
    roll = np.where(gimbal, 0.0, np.arctan2(head[..., 1, 0], head[..., 0, 0]))
    return np.rad2deg(np.stack([pitch, yaw, roll], axis=-1))


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """(...,3,3) -> the rotation (determinant +1) nearest in the Frobenius norm."""
    u, _, vt = np.linalg.svd(np.asarray(matrix, dtype=np.float64))
    signs = np.ones(u.shape[:-1])
    signs[..., -1] = np.linalg.det(u @ vt)
    return (u * signs[..., None, :]) @ vt


def project(
    points: np.ndarray, scale: ArrayLike, rotation: np.ndarray, translation: np.ndarray
) -> np.ndarray:
    """points (...,N,3), scale (...), rotation (...,3,3), translation (...,3) -> (...,N,3) pixels.

    Smaller depth is nearer.
    """
    turned = points @ np.swapaxes(rotation, -1, -2)
    return np.asarray(scale)[..., None, None] * turned + np.asarray(translation)[..., None, :]
