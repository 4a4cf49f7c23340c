"""The embedded default head: a 3D morphable model made of formulas, so that nothing has to be licensed or
downloaded.

The skin is a grid of columns (azimuth) and rows (crown to the base of the neck) with three cuts, two eyes and
a mouth, along which a row exists twice. It is laid out with eyes and mouth closed; the mean opens the eyes,
and the components are smooth bumps over the closed positions. Eyeballs, ears, teeth and the mouth's inside
are patches of their own. One unit is half the width of the head, 75 mm; the origin lies between the eyes at
the ears' depth.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from models.perception.head.analytic_components import (
    EYE_X,
    MOUTH_X,
    MOUTH_Y,
    analytic_expression_components,
    identity_components,
    lip_weight_at_points,
    smoothstep,
    smoothstep_down,
)
from models.perception.head.morphable import MorphableModel

# Half the face, nose to ear: x of the columns; the corners of mouth and eyes have columns of their own.
HALF_MESH_COLUMN_X = (
    0, 0.03, 0.06, 0.1, 0.14, 0.18, 0.22, 0.25, 0.285, 0.32, 0.355, 0.39, 0.42, 0.455, 0.49, 0.525, 0.56,
    0.59, 0.63, 0.68, 0.73, 0.78, 0.83, 0.88, 0.92, 0.955, 0.98, 1,
)  # fmt: skip
# Rows by height at the middle of the face, crown to chin; 0 is the eyes' cut, MOUTH_Y the mouth's.
MESH_ROW_HEIGHTS = (
    1.5, 1.47, 1.41, 1.33, 1.24, 1.14, 1.04, 0.94, 0.85, 0.76, 0.68, 0.61, 0.54, 0.48, 0.42, 0.365, 0.315,
    0.27, 0.23, 0.19, 0.155, 0.12, 0.09, 0.06, 0.03, 0, -0.03, -0.06, -0.09, -0.12, -0.16, -0.2, -0.25, -0.3,
    -0.35, -0.4, -0.44, -0.48, -0.52, -0.555, -0.585, -0.615, -0.64, -0.67, -0.7, -0.735, -0.77, -0.8, -0.825,
    -0.85, -0.875, -0.9, -0.925, -0.95, -0.975, -1, -1.03, -1.06, -1.1, -1.15, -1.2, -1.26, -1.32, -1.38,
    -1.44, -1.5, -1.545, -1.58,
)  # fmt: skip
BACK_COLUMNS, NECK_ROWS = 10, 9
CHIN_Y, CROWN_Y = -1.58, 1.5
EYE_HALF_WIDTH, EYE_Z, EYE_RADIUS = 0.17, 0.6, 0.2
EYELID_THICKNESS = 0.02  # skin over the eyeball
UPPER_LID_OPENING, LOWER_LID_OPENING = 0.088, 0.042  # how far the lids of the mean stand open
# The mandible's edge by column: x and y of the row where the face ends.
JAW_COLUMN_KNOTS = (0, 0.2, 0.4, 0.56, 0.7, 0.82, 0.9, 0.96, 1)
JAWLINE_X = (0, 0.2, 0.39, 0.56, 0.715, 0.835, 0.895, 0.925, 0.935)
JAWLINE_Y = (-1.58, -1.565, -1.49, -1.37, -1.2, -0.98, -0.8, -0.65, -0.55)
# Texture atlas: x0, y0, x1, y1 of each patch
UV_BOXES = {
    "skin": (0.0, 0.0, 0.78, 1.0),
    "eye_left": (0.8, 0.0, 1.0, 0.2), "eye_right": (0.8, 0.2, 1.0, 0.4),
    "ear_left": (0.8, 0.4, 0.9, 0.6), "ear_right": (0.9, 0.4, 1.0, 0.6),
    "upper_teeth": (0.8, 0.6, 1.0, 0.7), "lower_teeth": (0.8, 0.7, 1.0, 0.8),
    "interior": (0.8, 0.8, 1.0, 1.0),
}  # fmt: skip


@dataclass
class MeshBuilder:
    """Patches while they are gathered. `side` is +1 above a cut, -1 below; `kind` the patch's name."""

    points: list[np.ndarray] = field(default_factory=list)
    uv: list[np.ndarray] = field(default_factory=list)
    faces: list[np.ndarray] = field(default_factory=list)
    side: list[np.ndarray] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)

    def add(self, kind: str, points: np.ndarray, uv: np.ndarray, faces: np.ndarray, side: np.ndarray) -> None:
        self.faces.append(faces + len(self.kind))
        self.points.append(points)
        self.uv.append(uv)
        self.side.append(side)
        self.kind += [kind] * len(points)


def build_analytic_head() -> MorphableModel:
    """The default head; deterministic, well under a second."""
    parts = MeshBuilder()
    upper, lower = _add_skin(parts)
    _add_patches(parts)
    closed = np.concatenate(parts.points)
    side, kind = np.concatenate(parts.side), np.array(parts.kind)
    faces = np.concatenate(parts.faces).astype(np.int32)
    opening = _lid_opening(closed, side, kind)
    mean = closed + opening
    id_parts = identity_components(closed, kind)
    exp_parts = analytic_expression_components(closed, side, kind, opening)
    index, weight = _landmarks(closed, mean, faces, kind, upper, lower)
    tex_mean, tex_basis = _colours(closed, kind)
    model = MorphableModel(
        name="analytic",
        license="Apache-2.0",
        mean=mean.astype(np.float32),
        id_basis=np.stack(list(id_parts.values()), axis=-1).astype(np.float32),
        exp_basis=np.stack(list(exp_parts.values()), axis=-1).astype(np.float32),
        faces=faces,
        lm68_index=index,
        lm68_weight=weight,
        tex_mean=tex_mean,
        tex_basis=tex_basis,
        uv=np.concatenate(parts.uv).astype(np.float32),
        regions=_regions(closed, kind),
        id_names=tuple(id_parts),
        exp_names=tuple(exp_parts),
        metres_per_unit=0.075,
    )
    for array in (
        model.mean,
        model.id_basis,
        model.exp_basis,
        model.faces,
        model.lm68_index,
        model.lm68_weight,
    ):
        array.setflags(write=False)  # one object serves every caller
    return model


# --- geometry -----------------------------------------------------------------------------------------------
def _columns() -> tuple[np.ndarray, np.ndarray]:
    """-> sine and cosine of the azimuth by column: from the back's seam over image left and face."""
    half = np.array(HALF_MESH_COLUMN_X, float)
    front = np.concatenate([-half[:0:-1], half])
    back = np.linspace(0, np.pi / 2, BACK_COLUMNS + 1)[1:]
    left = -np.cos(back[::-1])  # from the seam (0) toward the ear (-1)
    sine = np.concatenate([left, front, -left[::-1]])
    cosine = np.sqrt(np.maximum(0, 1 - sine**2))
    cosine[: len(left)] *= -1
    cosine[-len(left) :] *= -1
    return sine, cosine


def _skin_points() -> np.ndarray:
    """-> (rows, columns, 3): the head with eyes and mouth closed, before eyes, nose and lips are modelled."""
    from scipy.interpolate import PchipInterpolator

    sine, cosine = _columns()
    q, back = np.abs(sine), np.maximum(0, -cosine)
    is_back = cosine < 0
    front_x, front_y = (PchipInterpolator(JAW_COLUMN_KNOTS, line)(q) for line in (JAWLINE_X, JAWLINE_Y))
    jaw_x = np.where(is_back, (0.935 - 0.2 * back) * q, front_x) * np.sign(sine)
    jaw_y = np.where(is_back, -0.55 - 0.25 * back**1.5, front_y)
    jaw_z = np.where(is_back, -0.8 * back, 0.97 * np.maximum(0, 1 - q**1.9))
    rows = []
    for y in MESH_ROW_HEIGHTS:
        up = max(y, 0.0) / CROWN_Y
        width = (1 - up**2.6) ** (1 / 2.6)
        front = (1 - up**2.8) ** (1 / 2.4) if y > 0 else 1 + 0.04 * np.exp(-(((y + 0.95) / 0.4) ** 2))
        rear = 1.3 * max(0.0, 1 - abs((y - 0.3) / 1.25) ** 2.4) ** (1 / 2.4)
        z = np.where(is_back, -rear * back, front * np.maximum(cosine, 0))
        if y >= 0:
            rows.append(np.stack([width * sine, np.full_like(sine, y), z], axis=-1))
            continue
        t = y / CHIN_Y
        height = t * jaw_y
        # the mouth's rows stay level between its corners, where the mandible would lift them
        near_mouth = np.exp(-(((y - MOUTH_Y) / 0.3) ** 2))
        height -= (t * jaw_y - y) * near_mouth * smoothstep_down(q, 0.3, 0.7) * (~is_back)
        z_skin = np.where(is_back, (1 - t**2) * (-1.26 * back) + t**2 * jaw_z, (1 - t**2) * z + t**2 * jaw_z)
        rows.append(np.stack([(1 - t**1.3) * sine + t**1.3 * jaw_x, height, z_skin], axis=-1))
    return np.stack(rows + _neck(np.stack([jaw_x, jaw_y, jaw_z], axis=-1), sine, cosine))


def _neck(jaw: np.ndarray, sine: np.ndarray, cosine: np.ndarray) -> list[np.ndarray]:
    """jaw (columns,3) -> rows under the mandible and down the neck."""
    top = np.stack([0.6 * sine, -1.42 - 0.34 * cosine, -0.25 + 0.58 * cosine], axis=-1)
    under = np.stack(
        [0.9 * jaw[:, 0], np.minimum(jaw[:, 1] - 0.16, -0.8), 0.55 * jaw[:, 2] + 0.45 * top[:, 2]], axis=-1
    )
    under[:, 1] = 0.5 * under[:, 1] + 0.5 * (0.5 * jaw[:, 1] + 0.5 * top[:, 1])
    bottom = np.stack([0.66 * sine, np.full_like(sine, -2.5), -0.35 + 0.64 * cosine], axis=-1)
    turn = NECK_ROWS - 4
    rows = [
        (1 - s) ** 2 * jaw + 2 * s * (1 - s) * under + s**2 * top for s in np.linspace(0, 1, turn + 1)[1:]
    ]
    return rows + [(1 - s) * top + s * bottom for s in np.linspace(0, 1, NECK_ROWS - turn + 1)[1:]]


def _model_features(p: np.ndarray) -> np.ndarray:
    """(...,3) closed skin -> the same with brow ridge, sockets, nose, lips, cheekbones and chin."""
    x, y, face = np.abs(p[..., 0]), p[..., 1], smoothstep(p[..., 2], 0.1, 0.5)

    def bump(cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
        return np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)

    ridge = np.interp(
        -y,
        [-0.3, -0.05, 0.15, 0.35, 0.47, 0.56, 0.62, 0.665, 0.7],
        [0, 0.06, 0.13, 0.24, 0.33, 0.29, 0.16, 0.04, 0],
    )
    half = np.interp(-y, [-0.3, 0, 0.3, 0.5, 0.7], [0.1, 0.085, 0.115, 0.135, 0.12])
    lips = np.sqrt(np.maximum(0, 1 - (x / 0.4) ** 2))
    dz = (
        ridge * np.exp(-((x / half) ** 2))
        + 0.15 * bump(0.15, -0.56, 0.06, 0.06)
        + 0.05 * bump(0, -0.48, 0.1, 0.09)
    )
    dz += (
        0.07 * bump(0.4, 0.22, 0.3, 0.1)
        - 0.15 * bump(0.41, 0.02, 0.25, 0.17)
        - 0.02 * bump(0, 0.06, 0.1, 0.1)
    )
    dz += 0.05 * bump(0.6, -0.3, 0.22, 0.2) - 0.05 * bump(0.62, -0.85, 0.2, 0.3)
    dz += 0.05 * bump(0, -0.88, 0.35, 0.25)  # the arch of the teeth
    dz += lips * (
        0.075 * bump(0, -0.855, 0.6, 0.038)
        + 0.085 * bump(0, -0.965, 0.5, 0.05)
        - 0.02 * bump(0, -0.9, 0.6, 0.012)
    )
    dz -= 0.025 * bump(0, -0.75, 0.05, 0.06) + 0.05 * bump(0, -1.13, 0.25, 0.07)
    dz += 0.09 * bump(0, -1.42, 0.24, 0.16)
    out = p.copy()
    out[..., 2] += dz * face
    # eyes slant up toward the temples
    out[..., 1] += 0.07 * (x - EYE_X) * bump(EYE_X, 0, 0.3, 0.2) * face
    return _over_eyeballs(out, face)


def _over_eyeballs(p: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Push skin out to the sphere of the lids."""
    square = (EYE_RADIUS + EYELID_THICKNESS) ** 2 - (np.abs(p[..., 0]) - EYE_X) ** 2 - p[..., 1] ** 2
    sphere = EYE_Z + np.sqrt(np.maximum(square, 0))
    out = p.copy()
    inside = (square > 0) & (face > 0.5)
    out[..., 2] = np.where(inside, np.maximum(p[..., 2], sphere), p[..., 2])
    return out


def _add_skin(parts: MeshBuilder) -> tuple[np.ndarray, np.ndarray]:
    """Adds the grid; returns the vertex ids (rows, columns) seen from above and from below each cut."""
    points = _model_features(_skin_points())
    R, C = points.shape[:2]
    upper = np.arange(R * C).reshape(R, C)
    lower = upper.copy()
    eye_row, mouth_row = MESH_ROW_HEIGHTS.index(0), MESH_ROW_HEIGHTS.index(MOUTH_Y)
    sine, cosine = _columns()
    x = np.where(cosine > 0, np.abs(sine), 9)
    cut = np.zeros((R, C), bool)
    cut[eye_row] = np.abs(x - EYE_X) < EYE_HALF_WIDTH - 1e-6
    cut[mouth_row] = x < MOUTH_X - 1e-6
    lower[cut] = R * C + np.arange(cut.sum())
    quads = np.stack([lower[:-1, :-1], upper[1:, :-1], upper[1:, 1:], lower[:-1, 1:]], axis=-1).reshape(-1, 4)
    u, v = np.meshgrid(np.linspace(0, 1, C), np.linspace(0, 1, R))
    row = np.concatenate([np.repeat(np.arange(R), C), np.nonzero(cut)[0]])
    ids = np.concatenate([np.arange(R * C), upper[cut]])
    side = np.where((row <= mouth_row) & (row > eye_row), 1.0, np.where(row > mouth_row, -1.0, 2.0))
    side[R * C :] = np.where(row[R * C :] == mouth_row, -1.0, 1.0)
    uv = np.stack([u, v], axis=-1).reshape(-1, 2)[ids]
    parts.add("skin", points.reshape(-1, 3)[ids], _place(uv, "skin"), _split(quads), side)
    return upper, lower


def _place(uv: np.ndarray, patch: str) -> np.ndarray:
    x0, y0, x1, y1 = UV_BOXES[patch]
    inset = 0.004  # two texels of a 512 atlas, so that patches do not bleed
    return np.array([x0 + inset, y0 + inset]) + uv * np.array([x1 - x0 - 2 * inset, y1 - y0 - 2 * inset])


def _split(quads: np.ndarray) -> np.ndarray:
    """Quads (n,4), counter-clockwise -> triangles (2n,3)."""
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _add_grid(parts: MeshBuilder, kind: str, points: np.ndarray, side: float = 1.0) -> None:
    """points (r,c,3), rows down and columns to the right as seen from outside."""
    r, c = points.shape[:2]
    ids = np.arange(r * c).reshape(r, c)
    quads = np.stack([ids[:-1, :-1], ids[1:, :-1], ids[1:, 1:], ids[:-1, 1:]], axis=-1).reshape(-1, 4)
    u, v = np.meshgrid(np.linspace(0, 1, c), np.linspace(0, 1, r))
    uv = _place(np.stack([u, v], axis=-1).reshape(-1, 2), kind)
    parts.add(kind, points.reshape(-1, 3), uv, _split(quads), np.full(r * c, side))


def _add_patches(parts: MeshBuilder) -> None:
    a = np.deg2rad(np.linspace(-62, 62, 11))
    right, down = np.meshgrid(np.tan(a), np.tan(a))
    dome = np.stack([right, -down, np.ones_like(right)], axis=-1)
    dome /= np.linalg.norm(dome, axis=-1, keepdims=True)
    rim = np.ones(right.shape, bool)
    rim[1:-1, 1:-1] = False
    for name, sign in (("left", -1), ("right", 1)):
        # the rim is a flat skirt toward the nose, so that no gap opens at the corner of a turned head's eye
        nose = rim * smoothstep(-sign * dome[..., 0], 0.2, 0.7)
        ball = dome * np.stack([1 + 0.7 * nose, np.ones_like(nose), 1 + 0.5 * nose], axis=-1)
        _add_grid(parts, f"eye_{name}", np.array([sign * EYE_X, 0, EYE_Z]) + EYE_RADIUS * ball)
        # an ear: a flat dome that looks outward and a little forward
        x, y, z = dome[..., 2] * 0.15, dome[..., 1] * 0.33, -sign * dome[..., 0] * 0.2
        flare = x + 0.25 * np.maximum(0, -z)
        _add_grid(
            parts, f"ear_{name}", np.stack([sign * (0.93 + flare), y - 0.12 + 0.1 * z, z - 0.12], axis=-1)
        )
    x, v = np.meshgrid(np.linspace(-0.33, 0.33, 11), np.linspace(0, 1, 3))
    arch = 0.98 - 0.9 * x**2
    _add_grid(parts, "upper_teeth", np.stack([x, -0.78 - 0.15 * v, arch], axis=-1))
    _add_grid(parts, "lower_teeth", np.stack([0.9 * x, -0.95 - 0.13 * v, arch - 0.05], axis=-1), side=-1)
    x, v = np.meshgrid(np.linspace(-0.6, 0.6, 9), np.linspace(0, 1, 6))
    _add_grid(parts, "interior", np.stack([x, -0.6 - 0.75 * v, 0.74 - 0.8 * x**2], axis=-1))


def _lid_opening(closed: np.ndarray, side: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """(N,3): from closed eyes to the eyes of the mean."""
    x, y = np.abs(closed[:, 0]), closed[:, 1]
    row = 0.07 * (x - EYE_X)  # the cut's slant
    almond = np.maximum(0, 1 - ((x - EYE_X) / EYE_HALF_WIDTH) ** 2) ** 0.75
    up = UPPER_LID_OPENING * np.exp(-np.maximum(0, y - row) / 0.14)
    down = -LOWER_LID_OPENING * np.exp(-np.maximum(0, row - y) / 0.1)
    skin = (kind == "skin") & (closed[:, 2] > 0.3)
    move = np.zeros_like(closed)
    move[:, 1] = np.where(skin, almond * np.where(side > 1.5, up, np.where(side > 0, down, 0)), 0)
    opened = _over_eyeballs(closed + move, skin.astype(float))
    return np.where(np.abs(move[:, 1:2]) > 1e-6, opened - closed, 0)


# --- landmarks, regions, colours ----------------------------------------------------------------------------
# x, y of the image's left half and the middle line, in units; mirrored below. Order: iBUG 68.
JAW_LANDMARK_POSITIONS = (
    (-0.974, 0.0941),
    (-0.963, -0.174),
    (-0.934, -0.458),
    (-0.889, -0.732),
    (-0.811, -0.986),
    (-0.675, -1.2),
    (-0.497, -1.4),
    (-0.265, -1.56),
    (0, -1.61),
)
BROW_LANDMARK_POSITIONS = ((-0.745, 0.209), (-0.613, 0.303), (-0.447, 0.324), (-0.282, 0.28), (-0.126, 0.199))
NOSE_LANDMARK_POSITIONS = (
    (0, 0.0213),
    (0, -0.149),
    (0, -0.329),
    (0, -0.507),
    # 31 to 35 lie along the nose's lower edge from wing to wing (iBUG 300-W): half way between where dlib and
    # MediaPipe's mesh see them on 36 rendered recordings, 1.2 to 1.9 % of the eyes' distance from either
    (-0.18, -0.6),
    (-0.101, -0.645),
    (0, -0.66),
)
LIP_LANDMARK_POSITIONS = (
    (-0.236, -0.857), (-0.105, -0.829), (0, -0.854), (-0.237, -1), (-0.117, -1.05), (0, -1.06),
)  # fmt: skip


def _landmarks(
    closed: np.ndarray,
    mean: np.ndarray,
    faces: np.ndarray,
    kind: np.ndarray,
    upper: np.ndarray,
    lower: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """-> lm68 vertices (68,3) int32 and weights (68,3) float32."""
    eye_row, mouth_row = MESH_ROW_HEIGHTS.index(0), MESH_ROW_HEIGHTS.index(MOUTH_Y)
    front = np.flatnonzero(_columns()[1] > 0.05)

    def on_skin(x: float, y: float):
        return _anchor(mean, faces, kind, x, y)

    def on_row(ids: np.ndarray, x: float):
        """A point of a cut's edge between two columns."""
        at = closed[ids[front], 0]
        j = int(np.clip(np.searchsorted(at, x), 1, len(at) - 1))
        share = (x - at[j - 1]) / (at[j] - at[j - 1])
        a, c = ids[front[j - 1]], ids[front[j]]
        return (a, c, c), (1 - share, share, 0.0)

    def mirrored(targets):
        return [on_skin(*t) for t in targets], [on_skin(-x, y) for x, y in reversed(targets)]

    jaw_left, jaw_right = mirrored(JAW_LANDMARK_POSITIONS)
    brow_left, brow_right = mirrored(BROW_LANDMARK_POSITIONS)
    nose = [on_skin(*t) for t in NOSE_LANDMARK_POSITIONS]
    nose += [on_skin(-x, y) for x, y in NOSE_LANDMARK_POSITIONS[5:3:-1]]
    up, low = (lambda r, x: on_row(upper[r], x)), (lambda r, x: on_row(lower[r], x))
    third, e = EYE_HALF_WIDTH / 3, eye_row
    eyes = []
    for x in (-EYE_X + 0.025, EYE_X - 0.025):  # where dlib sees them: a little toward the nose
        eyes += [up(e, x - EYE_HALF_WIDTH), up(e, x - third), up(e, x + third)]
        eyes += [up(e, x + EYE_HALF_WIDTH), low(e, x + third), low(e, x - third)]
    top, bottom = LIP_LANDMARK_POSITIONS[:3], LIP_LANDMARK_POSITIONS[3:]
    m = mouth_row

    def between_lips(x: float):
        """The inner corner lies half way between the lips, which part before they meet."""
        column = front[np.argmin(np.abs(closed[upper[m, front], 0] - x))]
        return (upper[m, column], lower[m, column], lower[m, column]), (0.5, 0.5, 0.0)

    corner, other = (on_skin(sign * 0.36, MOUTH_Y - 0.03) for sign in (-1, 1))
    outer = [corner, *(on_skin(*t) for t in top), *(on_skin(-x, y) for x, y in reversed(top[:2])), other]
    outer += [on_skin(-x, y) for x, y in bottom] + [on_skin(*t) for t in reversed(bottom[:2])]
    inner = [between_lips(-0.32), up(m, -0.1), up(m, 0), up(m, 0.1), between_lips(0.32)]
    inner += [low(m, x) for x in (0.1, 0, -0.1)]
    found = jaw_left + jaw_right[1:] + brow_left + brow_right + nose + eyes + outer + inner
    return np.array([f[0] for f in found], np.int32), np.array([f[1] for f in found], np.float32)


def _anchor(mean: np.ndarray, faces: np.ndarray, kind: np.ndarray, x: float, y: float):
    """The skin under (x, y) from the front: three vertices and weights; beside it, the nearest vertex."""
    skin = faces[(kind[faces[:, 0]] == "skin")]
    a, b, c = (mean[skin[:, i], :2] for i in range(3))
    (ux, uy), (vx, vy), (px, py) = (b - a).T, (c - a).T, (np.array([x, y]) - a).T
    area = ux * vy - uy * vx
    safe = np.where(area > 1e-9, area, np.inf)
    wb, wc = (px * vy - py * vx) / safe, (ux * py - uy * px) / safe
    inside = np.flatnonzero((area > 1e-9) & (wb >= 0) & (wc >= 0) & (wb + wc <= 1))
    if len(inside):
        depth = mean[skin[inside], 2].mean(1)
        t = inside[np.argmax(depth)]
        return tuple(skin[t]), (1 - wb[t] - wc[t], wb[t], wc[t])
    candidates = np.flatnonzero((kind == "skin") & (mean[:, 2] > -0.05))
    nearest = candidates[np.argmin(((mean[candidates, :2] - [x, y]) ** 2).sum(1))]
    return (nearest, nearest, nearest), (1.0, 0.0, 0.0)


def _regions(points: np.ndarray, kind: np.ndarray) -> dict[str, np.ndarray]:
    x, y, z = points.T
    skin = kind == "skin"
    return {
        "skin": skin | (kind == "ear_left") | (kind == "ear_right"),
        "front": skin & (z > 0.15) & (y > -1.6) & (y < 0.95),
        "mouth": skin & (np.abs(x) < 0.45) & (y < -0.75) & (y > -1.1) & (z > 0.3),
        "lower_face": skin & (y < -0.55) & (y > -1.65) & (z > 0.15),
        "eyeballs": (kind == "eye_left") | (kind == "eye_right"),
        "teeth": (kind == "upper_teeth") | (kind == "lower_teeth"),
        "interior": kind == "interior",
        "ears": (kind == "ear_left") | (kind == "ear_right"),
        "neck": skin & (np.arange(len(kind)) >= 0) & (y < -1.6) & (z < 0.6),
    }


def _colours(points: np.ndarray, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-> plain vertex colours (N,3) in [0,1], and two components: lighter skin, redder skin."""
    x, y, z = points.T
    colour = np.full((len(points), 3), (0.78, 0.6, 0.5))
    lips = (lip_weight_at_points(x, y) * ((kind == "skin") & (z > 0.3)))[:, None]
    colour = (1 - lips) * colour + lips * np.array([0.68, 0.36, 0.35])
    eyeball = np.char.startswith(kind, "eye")
    pupil = eyeball & (np.hypot(np.abs(x) - EYE_X, y) < 0.085)
    for mask, rgb in (
        (eyeball, (0.92, 0.91, 0.9)), (pupil, (0.25, 0.17, 0.1)), (kind == "interior", (0.16, 0.05, 0.05)),
        (np.char.endswith(kind, "teeth"), (0.9, 0.88, 0.82)),
    ):  # fmt: skip
        colour[mask] = rgb
    is_skin = np.isin(kind, ["skin", "ear_left", "ear_right"]).astype(float)
    basis = is_skin[:, None, None] * np.array([[0.1, 0.03], [0.1, -0.02], [0.1, -0.02]])
    return colour.astype(np.float32), basis.astype(np.float32)
