"""What a synthetic person looks like: identity, tones and hair; clothes, wall and light; and the texture
painted of it.

The paint is laid on the closed face of the embedded morphable model, in its atlas, so that lids and lips
carry it when they move.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from models.perception.head.analytic_components import (
    EYE_X,
    FULL_BLINK_SIGMAS,
    MOUTH_X,
    MOUTH_Y,
    lip_weight_at_points,
)
from models.perception.head.analytic_head import EYE_HALF_WIDTH
from models.perception.head.morphable import MorphableModel
from models.perception.head.raster import rasterize

ATLAS_SIZE = 512
HAIR_STYLES = ("cropped", "short", "full", "fringe", "long")
# crown thickness, height of the hairline at the middle of the forehead, lowest hair at the back
HAIR_SHAPE = {
    "cropped": (0.025, 0.8, -0.65), "short": (0.09, 0.72, -0.7), "full": (0.2, 0.7, -0.85),
    "fringe": (0.13, 0.5, -0.8), "long": (0.13, 0.72, -1.0),
}  # fmt: skip
SKIN_TONES = (
    (0.93, 0.76, 0.66),
    (0.87, 0.68, 0.56),
    (0.8, 0.6, 0.46),
    (0.7, 0.51, 0.38),
    (0.6, 0.42, 0.31),
    (0.5, 0.35, 0.26),
)
HAIR_COLOURS = (
    (0.1, 0.08, 0.07),
    (0.22, 0.14, 0.09),
    (0.36, 0.23, 0.13),
    (0.5, 0.3, 0.16),
    (0.72, 0.56, 0.32),
    (0.45, 0.43, 0.42),
)
IRIS_COLOURS = ((0.27, 0.17, 0.1), (0.2, 0.3, 0.42), (0.27, 0.36, 0.24), (0.35, 0.26, 0.14))


@dataclass(frozen=True, slots=True)
class PersonAppearance:
    """A person: what does not change from one recording to the next."""

    id: np.ndarray
    """(n_id,) identity coefficients."""
    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    style: str
    lip_red: float
    beard: float
    brow_weight: float
    freckles: float
    texture_seed: int


@dataclass(frozen=True, slots=True)
class RecordingAppearance:
    """A recording: clothes, wall and light."""

    cloth: np.ndarray
    stripe: float
    neckline: float
    wall: np.ndarray
    """(H,W,3) float32 in [0,1]."""
    key: np.ndarray
    """(3,) unit vector toward the lamp, model space of a frontal head."""
    key_colour: np.ndarray
    fill_colour: np.ndarray


def sample_person_appearance(rng: np.random.Generator, index: int, model: MorphableModel) -> PersonAppearance:
    """Person `index` of a corpus: tones and hair go round by index, so that few people already differ."""
    skin = np.array(SKIN_TONES[(index * 5 + int(rng.integers(2))) % len(SKIN_TONES)])
    hair = np.array(HAIR_COLOURS[int(rng.integers(len(HAIR_COLOURS)))])
    if skin.mean() < 0.55:  # dark skin, dark hair
        hair = np.array(HAIR_COLOURS[int(rng.integers(2))])
    return PersonAppearance(
        id=np.clip(rng.normal(0, 0.85, model.n_id), -1.8, 1.8).astype(np.float32),
        skin=np.clip(skin * rng.uniform(0.96, 1.04) + rng.normal(0, 0.01, 3), 0, 1),
        hair=hair * rng.uniform(0.85, 1.15),
        iris=np.array(IRIS_COLOURS[int(rng.integers(len(IRIS_COLOURS)))]),
        style=HAIR_STYLES[(index * 2 + int(rng.integers(2))) % len(HAIR_STYLES)],
        lip_red=float(rng.uniform(0.2, 0.9)),
        beard=float(rng.uniform(0.2, 0.55)) if rng.random() < 0.2 else 0.0,
        brow_weight=float(rng.uniform(0.8, 1.25)),
        freckles=float(rng.uniform(0, 1)),
        texture_seed=int(rng.integers(2**31)),
    )


def sample_synthetic_recording_appearance(
    rng: np.random.Generator, height: int, width: int
) -> RecordingAppearance:
    side, up = rng.uniform(-0.6, 0.6), rng.uniform(0.2, 0.7)
    key = np.array([side, up, 1.0])
    warmth = rng.uniform(-0.06, 0.06)
    hue = rng.uniform(0, 1, 3)
    return RecordingAppearance(
        cloth=np.clip(0.1 + _desaturate(0.7 * hue * rng.uniform(0.5, 1), 0.6), 0, 1),
        stripe=float(rng.uniform(0, 0.3)) if rng.random() < 0.4 else 0.0,
        neckline=float(rng.uniform(-2.65, -2.2)),
        wall=_wall(rng, height, width),
        key=key / np.linalg.norm(key),
        key_colour=np.array([1 + warmth, 1.0, 1 - warmth]) * rng.uniform(0.52, 0.66),
        fill_colour=np.array([1 - warmth, 1.0, 1 + warmth]) * rng.uniform(0.34, 0.42),
    )


def _wall(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A room out of focus: a gradient, panels and lamps, blurred."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
    base = _desaturate(rng.uniform(0.2, 0.75, 3), 0.45)
    tilt = rng.uniform(-0.25, 0.25, 2)
    wall = base + (tilt[0] * (x - 0.5) + tilt[1] * (y - 0.5))[..., None]
    for _ in range(int(rng.integers(4, 9))):
        x0, y0 = rng.uniform(-0.2, 1, 2)
        w, h = rng.uniform(0.08, 0.5, 2)
        inside = (x > x0) & (x < x0 + w) & (y > y0) & (y < y0 + h)
        wall = np.where(
            inside[..., None], np.clip(base + _desaturate(rng.normal(0, 0.2, 3), 0.5), 0.05, 0.95), wall
        )
    blur = rng.uniform(0.012, 0.035) * height
    wall = np.stack([gaussian_filter(wall[..., c], blur, mode="nearest") for c in range(3)], axis=-1)
    weave = gaussian_filter(rng.normal(0, 1, (height, width)), 0.8)[..., None] * 0.01
    return np.clip(wall + weave, 0, 1).astype(np.float32)


def _desaturate(colour: np.ndarray, share: float) -> np.ndarray:
    """Pull a colour (3,) toward its grey, keeping `share` of its hue."""
    return colour.mean() + share * (colour - colour.mean())


# --- the texture atlas --------------------------------------------------------------------------------------
def smoothstep(value: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def closed_eyes_mean_vertices(model: MorphableModel) -> np.ndarray:
    """The mean with its eyes shut (N,3): where the paint is laid on."""
    exp = np.zeros(model.n_exp, np.float32)
    for name in ("blink_left", "blink_right"):
        exp[model.exp_names.index(name)] = FULL_BLINK_SIGMAS
    return model.shape(np.zeros(model.n_id), exp)


def hair_density(points: np.ndarray, style: str) -> np.ndarray:
    """(...,3) closed positions -> how much hair grows there, 0..1."""
    x, y, z = np.abs(points[..., 0]), points[..., 1], points[..., 2]
    _, front, nape = HAIR_SHAPE[style]
    part = 0.06 * np.exp(-(((points[..., 0] - 0.3) / 0.2) ** 2))
    ragged = 0.01 * np.sin(41 * points[..., 0]) + 0.012 * np.sin(97 * points[..., 0] + 1)
    hairline = front + part + ragged - 0.3 * np.clip(x - 0.55, 0, 1)  # temples
    top = smoothstep(y - hairline, -0.03, 0.05)
    behind = smoothstep(-z - 0.12 + 0.25 * y, -0.1, 0.0) * smoothstep(y - nape, -0.05, 0.1)
    burn = (
        smoothstep(0.3 - z, -0.05, 0.05) * smoothstep(y, -0.1, 0.05) * smoothstep(x, 0.75, 0.85)
    )  # before the ears
    return np.maximum.reduce([top, behind, burn])


def paint_atlas(model: MorphableModel, appearance: PersonAppearance) -> np.ndarray:
    """-> (ATLAS,ATLAS,3) float32: the person's skin, hair, eyes and mouth."""
    rng = np.random.default_rng(appearance.texture_seed)
    assert model.uv is not None
    flat = np.concatenate([model.uv * ATLAS_SIZE, np.zeros((len(model.uv), 1))], axis=1)
    baked = rasterize(flat, model.faces, ATLAS_SIZE, ATLAS_SIZE)
    eyes, teeth, inside = (model.regions[name].astype(float) for name in ("eyeballs", "teeth", "interior"))
    ears = model.regions["ears"].astype(float)
    values = baked.render_vertex_values(
        model.faces, np.column_stack([closed_eyes_mean_vertices(model), eyes, teeth, inside, ears])
    )
    points, kinds = values[..., :3], values[..., 3:] > 0.5
    colour = _paint_skin(points, appearance, rng)
    colour = _paint_hair(colour, points, appearance, rng)
    colour = np.where(
        kinds[..., 3:4], appearance.skin * [0.95, 0.82, 0.8] * _ear_shade(values)[..., None], colour
    )
    colour = np.where(kinds[..., 0:1], _paint_eye(points, appearance), colour)
    gaps = 0.8 + 0.2 * np.minimum(1, np.abs(np.sin(points[..., 0] * np.pi / 0.085)) * 3)
    teeth_colour = np.array([0.9, 0.87, 0.8]) * (gaps * (1 - 0.9 * np.abs(points[..., 0])))[..., None]
    colour = np.where(kinds[..., 1:2], teeth_colour, colour)
    tongue = smoothstep(-points[..., 1], 1.0, 1.2)[..., None]
    colour = np.where(
        kinds[..., 2:3],
        (1 - tongue) * np.array([0.13, 0.04, 0.04]) + tongue * np.array([0.4, 0.15, 0.15]),
        colour,
    )
    covered = baked.triangle_map() >= 0
    colour = np.where(covered[..., None], colour, appearance.skin)
    # frames show two texels a pixel: without this they would shimmer
    return np.clip(gaussian_filter(colour, (0.8, 0.8, 0)), 0, 1).astype(np.float32)


def _ear_shade(values: np.ndarray) -> np.ndarray:
    """Darker toward the ear's middle (y -0.12), so that it reads as a shell."""
    inner = np.exp(-(((values[..., 1] + 0.1) / 0.16) ** 2) - (((values[..., 2] + 0.08) / 0.08) ** 2))
    return 1 - 0.35 * inner


def _paint_skin(p: np.ndarray, appearance: PersonAppearance, rng: np.random.Generator) -> np.ndarray:
    x, y, front = np.abs(p[..., 0]), p[..., 1], p[..., 2] > 0.2

    def spot(cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
        return np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2) * front

    mottle = gaussian_filter(rng.normal(0, 1, (ATLAS_SIZE, ATLAS_SIZE)), 2.5) * 0.06 + gaussian_filter(
        rng.normal(0, 1, (ATLAS_SIZE, ATLAS_SIZE)), 12
    )
    colour = appearance.skin * (1 + 0.12 * mottle)[..., None]
    red = 0.5 * spot(0.52, -0.42, 0.2, 0.2) + 0.5 * spot(0, -0.5, 0.15, 0.15) + 0.2 * spot(0, -1.4, 0.2, 0.15)
    colour *= 1 - red[..., None] * np.array([0.0, 0.13, 0.12])
    dots = smoothstep(gaussian_filter(rng.normal(0, 1, (ATLAS_SIZE, ATLAS_SIZE)), 1.0), 0.72, 0.95) * spot(
        0.35, -0.3, 0.35, 0.22
    )
    colour *= 1 - (0.25 * appearance.freckles * dots)[..., None]
    shade = (
        0.3 * spot(0.3, 0.06, 0.13, 0.11)
        + 0.2 * spot(EYE_X, 0.1, 0.2, 0.06)
        + 0.16 * spot(EYE_X, -0.12, 0.18, 0.05)
    )
    shade += (
        0.2 * spot(0, -0.68, 0.16, 0.035)
        + 0.22 * spot(0, -1.12, 0.2, 0.045)
        + 0.16 * spot(0.27, -0.66, 0.05, 0.1)
    )
    shade += (
        0.45 * smoothstep(-y, 1.56, 1.75) * smoothstep(p[..., 1], -2.6, -1.9)
    )  # the jaw's shadow on the neck
    colour *= 1 - shade[..., None]
    line = np.interp(x, [0, 0.25, 0.42, 0.6, 0.8, 0.95], [-0.7, -0.74, -0.88, -0.88, -0.6, -0.05])
    stubble = (
        appearance.beard * smoothstep(line - y, -0.03, 0.1) * smoothstep(y, -1.75, -1.6) * (p[..., 2] > 0)
    )
    grain = 0.75 + 0.35 * rng.random((ATLAS_SIZE, ATLAS_SIZE))
    colour = _mix(colour, appearance.hair * 0.6, 0.8 * stubble * grain)
    lips = lip_weight_at_points(x, y) * front
    lip_colour = appearance.skin * np.array([0.84, 0.58, 0.58]) * (
        1 - appearance.lip_red * np.array([0.0, 0.2, 0.15])
    ) + [0.03, 0, 0]
    colour = _mix(colour, lip_colour, 0.9 * lips)
    colour *= 1 - (0.6 * np.exp(-(((y - MOUTH_Y) / 0.014) ** 2)) * (x < MOUTH_X + 0.02) * front)[..., None]
    colour *= (
        1 - (0.75 * np.exp(-((np.hypot((x - 0.088) / 0.045, (y + 0.628) / 0.026)) ** 4)) * front)[..., None]
    )
    return _paint_lids_and_brows(colour, x, y, front, appearance, rng)


def _mix(base: np.ndarray, colour: np.ndarray, share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 0, 1)[..., None]
    return (1 - share) * base + share * colour


def _paint_lids_and_brows(colour, x, y, front, appearance: PersonAppearance, rng) -> np.ndarray:
    above = y - 0.07 * (x - EYE_X)
    within = smoothstep(EYE_HALF_WIDTH + 0.03 - np.abs(x - EYE_X), 0, 0.04) * front
    lash = within * smoothstep(above, -0.002, 0.002) * (1 - smoothstep(above, 0.02, 0.032))
    lower = within * smoothstep(-above, -0.002, 0.002) * (1 - smoothstep(-above, 0.008, 0.016)) * 0.45
    crease = 0.4 * within * np.exp(-(((above - 0.062) / 0.012) ** 2))
    colour = _mix(colour, appearance.skin * 0.5, crease)
    colour = _mix(colour, np.array([0.1, 0.07, 0.06]), 0.95 * lash + lower)
    middle = np.interp(x, [0.13, 0.155, 0.32, 0.495, 0.665, 0.8], [0.205, 0.21, 0.255, 0.275, 0.245, 0.17])
    thick = appearance.brow_weight * np.interp(
        x, [0.12, 0.2, 0.5, 0.7, 0.81], [0.04, 0.052, 0.046, 0.03, 0.006]
    )
    brow = (
        (1 - smoothstep(np.abs(y - middle) / thick, 0.6, 1.1))
        * smoothstep(x, 0.1, 0.18)
        * (1 - smoothstep(x, 0.76, 0.82))
        * front
    )
    strands = 0.75 + 0.25 * smoothstep(
        gaussian_filter(rng.normal(0, 1, (ATLAS_SIZE, ATLAS_SIZE)), (1.5, 0.6)) * 2, -0.5, 0.5
    )
    return _mix(colour, appearance.hair * 0.7, 0.92 * brow * strands)


def _paint_hair(
    colour: np.ndarray, p: np.ndarray, appearance: PersonAppearance, rng: np.random.Generator
) -> np.ndarray:
    strands = gaussian_filter(rng.normal(0, 1, (ATLAS_SIZE, ATLAS_SIZE)), (9, 0.8)) * 3
    tone = np.clip(1 + 0.35 * strands, 0.4, 1.8)[..., None]
    cover = hair_density(p, appearance.style) * (0.75 if appearance.style == "cropped" else 1.0)
    return _mix(colour, np.clip(appearance.hair * tone, 0, 1), cover)


def _paint_eye(p: np.ndarray, appearance: PersonAppearance) -> np.ndarray:
    radius = np.hypot(np.abs(p[..., 0]) - EYE_X, p[..., 1])
    angle = np.arctan2(p[..., 1], np.abs(p[..., 0]) - EYE_X)
    white = np.array([0.9, 0.89, 0.87]) * (1 - 1.1 * np.clip(radius - 0.08, 0, 1))[..., None]
    iris = (
        appearance.iris * (1.0 + 0.2 * np.sin(angle * 23) + 2.5 * np.clip(radius - 0.03, 0, 0.1))[..., None]
    )
    eye = _mix(white, iris, 1 - smoothstep(radius, 0.078, 0.092))
    eye = _mix(eye, appearance.iris * 0.35, np.exp(-(((radius - 0.082) / 0.01) ** 2)))
    eye = _mix(eye, np.array([0.62, 0.38, 0.35]), smoothstep(radius, 0.165, 0.19))  # the corner's red flesh
    eye = _mix(eye, np.array([0.03, 0.03, 0.03]), 1 - smoothstep(radius, 0.03, 0.042))
    glint = np.hypot(
        p[..., 0] - np.sign(p[..., 0]) * EYE_X + 0.03, p[..., 1] - 0.035
    )  # the same side in both
    return _mix(eye, np.ones(3), 0.9 * (1 - smoothstep(glint, 0.012, 0.026)))
