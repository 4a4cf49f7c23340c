"""Components of the embedded default head: what a sigma of each does to its vertices.

All are smooth bumps over the closed positions; only the mouth's and the eyes' cuts are torn apart.
"""

from __future__ import annotations

import numpy as np

MOUTH_Y, MOUTH_X = -0.9, 0.355
EYE_X = 0.42
FULL_BLINK_SIGMAS = 2.0  # a blink of this many sigmas closes the eye


def smoothstep(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Smooth step: 0 below low, 1 above high."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def smoothstep_down(value: np.ndarray, low: float, high: float) -> np.ndarray:
    return 1 - smoothstep(value, low, high)


class GaussianBumps:
    """Fields over the closed head: `at` is a mirrored Gaussian bump, `offset` makes a displacement (N,3)."""

    def __init__(self, points: np.ndarray):
        self.x, self.y, self.z = points.T
        self.sign = np.tanh(self.x / 0.03)
        self.face = smoothstep(self.z, -0.1, 0.4)

    def bump(self, x: float, y: float, sx: float, sy: float) -> np.ndarray:
        return self.face * np.exp(-(((np.abs(self.x) - x) / sx) ** 2) - ((self.y - y) / sy) ** 2)

    def displacement(
        self, out: np.ndarray | float = 0, up: np.ndarray | float = 0, front: np.ndarray | float = 0
    ) -> np.ndarray:
        """out moves away from the middle plane, up along y, front along z."""
        zero = np.zeros_like(self.x)
        return np.stack([self.sign * (zero + out), zero + up, zero + front], axis=-1)


def identity_components(points: np.ndarray, kind: np.ndarray) -> dict[str, np.ndarray]:
    """-> name -> displacement (N,3) of one sigma."""
    b = GaussianBumps(points)
    ax, y, z = np.abs(b.x), b.y, b.z
    head = smoothstep(y, -2.3, -1.7)
    eyes, nose, mouth = (
        b.bump(EYE_X, 0, 0.22, 0.2),
        b.bump(0, -0.5, 0.22, 0.25),
        b.bump(0, MOUTH_Y, 0.45, 0.2),
    )
    tip = b.bump(0, -0.45, 0.14, 0.25)
    return {
        "head_width": b.displacement(out=0.05 * ax * head),
        "face_length": b.displacement(up=0.035 * y * smoothstep(-y, 0, 1) * head),
        "head_depth": b.displacement(front=0.05 * z * head),
        "jaw_width": b.displacement(out=0.09 * ax * smoothstep(-y, 0.4, 1.2) * head * smoothstep(z, -0.6, 0)),
        "chin_length": b.displacement(
            up=-0.05 * smoothstep(-y, 1.05, 1.5) * b.face * smoothstep_down(ax, 0.2, 0.8)
        ),
        "chin_projection": b.displacement(front=0.07 * b.bump(0, -1.45, 0.45, 0.3)),
        "nose_length": b.displacement(up=-0.035 * nose, front=0.01 * nose),
        "nose_width": b.displacement(
            out=0.045 * np.minimum(ax / 0.15, 1.5) * b.bump(0.12, -0.53, 0.14, 0.16)
        ),
        "nose_projection": b.displacement(front=0.07 * tip),
        "eye_distance": b.displacement(out=0.03 * eyes),
        "eye_size": b.displacement(out=0.14 * (ax - EYE_X) * eyes, up=0.14 * y * eyes),
        "mouth_width": b.displacement(out=0.035 * np.minimum(ax / MOUTH_X, 1.2) * mouth),
        "lip_fullness": b.displacement(
            up=0.22 * (y - MOUTH_Y) * b.bump(0, MOUTH_Y, 0.4, 0.14), front=0.02 * mouth
        ),
        "mouth_height": b.displacement(up=0.02 * b.bump(0, MOUTH_Y, 0.6, 0.3)),
        "brow_height": b.displacement(up=0.035 * b.bump(0.42, 0.24, 0.45, 0.14)),
        "cheek_fullness": b.displacement(
            out=0.05 * b.bump(0.72, -0.7, 0.25, 0.35), front=0.05 * b.bump(0.6, -0.7, 0.25, 0.35)
        ),
        "forehead_height": b.displacement(up=0.07 * smoothstep(y, 0.35, 1.2)),
    }


def _jaw_weight(b: GaussianBumps, side: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """(N,) 1 where a vertex moves with the mandible, 0 where it stays with the skull."""
    ax = np.abs(b.x)
    corner = 0.28  # share of the motion at the mouth's corners
    depth = smoothstep(MOUTH_Y + 0.08 - b.y, 0, 0.5) * smoothstep(b.z, -0.15, 0.55)
    lens = np.sqrt(np.maximum(0, 1 - (ax / MOUTH_X) ** 2))
    lip = corner + (1 - corner) * lens
    near = smoothstep_down(ax, MOUTH_X, MOUTH_X + 0.3)
    below = np.maximum(depth, lip * near * smoothstep_down(MOUTH_Y - b.y, 0.1, 0.5) * b.face)
    above = (
        corner
        * np.exp(-(((ax - MOUTH_X - 0.03) / 0.13) ** 2))
        * np.exp(-((np.maximum(0, b.y - MOUTH_Y) / 0.12) ** 2))
    )
    weight = np.where(
        side < 0, below, np.maximum(above * b.face, depth * smoothstep(ax, MOUTH_X, MOUTH_X + 0.15))
    )
    weight *= smoothstep(b.y, -2.2, -1.6) * smoothstep(b.z, 0.0, 0.45)
    weight = np.where(kind == "lower_teeth", 1, weight)
    weight = np.where(kind == "interior", 0.5 * smoothstep(MOUTH_Y - b.y, 0, 0.4), weight)
    return np.where(
        np.isin(kind, ["upper_teeth", "eye_left", "eye_right", "ear_left", "ear_right"]), 0, weight
    )


def analytic_expression_components(
    points: np.ndarray, side: np.ndarray, kind: np.ndarray, opening: np.ndarray
) -> dict[str, np.ndarray]:
    """-> name -> displacement (N,3) of one sigma. left and right are the image's sides."""
    b = GaussianBumps(points)
    ax = np.abs(b.x)
    skin = (kind == "skin").astype(float)
    jaw = _jaw_weight(b, side, kind)
    corners = skin * b.bump(MOUTH_X, MOUTH_Y, 0.17, 0.16)
    lips = skin * b.bump(0, MOUTH_Y, 0.4, 0.14)
    inward = np.minimum(ax / MOUTH_X, 1)
    upper = skin * np.where(side > 0, b.bump(0, MOUTH_Y, 0.25, 0.11), 0) * smoothstep_down(ax, 0.15, MOUTH_X)
    lower = skin * np.where(side < 0, b.bump(0, MOUTH_Y, 0.25, 0.13), 0) * smoothstep_down(ax, 0.15, MOUTH_X)
    lid = opening / -FULL_BLINK_SIGMAS
    return {
        "jaw_open": b.displacement(up=-0.15 * jaw, front=-0.05 * jaw),
        "lip_corner_pull": b.displacement(out=0.04 * corners, up=0.05 * corners, front=-0.03 * corners)
        + b.displacement(
            up=0.02 * skin * b.bump(0.55, -0.4, 0.2, 0.2), front=0.02 * skin * b.bump(0.55, -0.4, 0.2, 0.2)
        ),
        "lip_pucker": b.displacement(out=-0.06 * lips * inward, front=0.05 * lips),
        "mouth_wide": b.displacement(out=0.045 * lips * inward, front=-0.015 * lips),
        "brow_raise": b.displacement(up=0.05 * skin * b.bump(0.42, 0.28, 0.5, 0.13)),
        "brow_frown": b.displacement(
            up=-0.04 * skin * b.bump(0.18, 0.23, 0.2, 0.11), out=-0.02 * skin * b.bump(0.2, 0.23, 0.15, 0.1)
        ),
        "blink_left": lid * (points[:, :1] < 0),
        "blink_right": lid * (points[:, :1] > 0),
        "upper_lip_raise": b.displacement(up=0.035 * upper),
        "lower_lip_drop": b.displacement(up=-0.04 * lower),
        "cheek_puff": b.displacement(
            out=0.04 * skin * b.bump(0.6, -0.85, 0.22, 0.25),
            front=0.05 * skin * b.bump(0.55, -0.85, 0.2, 0.25),
        ),
    }


def lip_weight_at_points(x: np.ndarray, y: np.ndarray, soft: float = 0.02) -> np.ndarray:
    """How much a point of the closed face is vermilion, 0..1."""
    ax = np.abs(x)
    lens = np.sqrt(np.maximum(0, 1 - (ax / (MOUTH_X + 0.01)) ** 2))
    top = MOUTH_Y + (0.098 - 0.022 * np.exp(-((ax / 0.045) ** 2))) * lens**0.9
    bottom = MOUTH_Y - 0.145 * lens
    edge = np.minimum(top - y, y - bottom)
    return smoothstep(edge, -soft, soft) * (ax < MOUTH_X + 0.02)
