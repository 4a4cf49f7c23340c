"""Draws frames of a synthetic person: one z-buffer pass over head, hair and chest, lit at the vertices.

About 12 ms for a 320 x 320 frame on one core.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from models.perception.head.morphable import MorphableModel, vertex_normals
from models.perception.head.pose import AXIS_FLIP, euler_to_rotation
from models.perception.head.raster import Raster, rasterize
from pipelines.preprocess.sources.common.head_appearance import (
    ATLAS_SIZE,
    HAIR_SHAPE,
    PersonAppearance,
    RecordingAppearance,
    closed_eyes_mean_vertices,
    hair_density,
    paint_atlas,
    smoothstep,
)

NECK_PIVOT = np.array([0.0, -1.35, -0.3])  # the head turns about the top of the neck
CHEST_YAW_SHARE = 0.2  # share of the head's yaw that the shoulders take
TEXELS_PER_GAZE_DEGREE = 98 / 124  # of the atlas, a degree of gaze
_WALL, _CHEST, _CURTAIN, _HEAD, _INSIDE = range(5)  # surfaces whose outlines are softened
# chest by height: y, half width, half depth
_CHEST_ROWS = (
    (-2.0, 0.52, 0.5), (-2.17, 0.68, 0.67), (-2.26, 0.8, 0.72), (-2.38, 1.05, 0.77), (-2.53, 1.4, 0.82),
    (-2.75, 1.75, 0.88), (-3.05, 2.0, 0.93), (-3.6, 2.14, 0.98), (-4.6, 2.2, 1.0), (-7, 2.25, 1.0),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SyntheticHeadState:
    """One frame's motion. Angles in degrees; `chest` (3,) is the origin of the chest's frame, in pixels."""

    angles: np.ndarray
    scale: float
    chest: np.ndarray
    exp: np.ndarray
    gaze: np.ndarray


@dataclass
class TexturedGridMesh:
    """A grid of vertices beside the head: positions and outward normals (V,3), atlas texels (V,2), faces."""

    points: np.ndarray
    normals: np.ndarray
    texels: np.ndarray
    faces: np.ndarray


def _sheet(points: np.ndarray, left: int, top: int, side: int) -> TexturedGridMesh:
    """points (r,c,3), rows down, columns right as seen from outside -> a sheet on a square of the atlas."""
    r, c = points.shape[:2]
    ids = np.arange(r * c).reshape(r, c)
    quads = np.stack([ids[:-1, :-1], ids[1:, :-1], ids[1:, 1:], ids[:-1, 1:]], axis=-1).reshape(-1, 4)
    u, v = np.meshgrid(np.linspace(left + 1, left + side - 2, c), np.linspace(top + 1, top + side - 2, r))
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    flat = points.reshape(-1, 3)
    return TexturedGridMesh(
        flat, vertex_normals(flat, faces), np.stack([u, v], axis=-1).reshape(-1, 2), faces
    )


def _chest() -> TexturedGridMesh:
    angle = np.deg2rad(np.linspace(-115, 115, 31))
    rows = [
        np.stack([w * np.sin(angle), np.full_like(angle, y), -0.33 + d * np.cos(angle)], axis=-1)
        for y, w, d in _CHEST_ROWS
    ]
    return _sheet(np.stack(rows), 0, ATLAS_SIZE, ATLAS_SIZE // 2)


def _curtain() -> TexturedGridMesh:
    """Long hair, open at the face."""
    angle = np.deg2rad(np.linspace(-285, -75, 29))
    rows = []
    for y in (1.2, 0.9, 0.6, 0.3, 0, -0.3, -0.6, -0.9, -1.2, -1.5, -1.8, -2.1, -2.4):
        up = max(y, 0) / 1.62
        width = 1.13 * (1 - up**2.6) ** (1 / 2.6) * (1 - 0.03 * max(0, -y))
        wave = 1 + 0.015 * np.sin(angle * 9 + y)
        rows.append(
            np.stack(
                [width * np.sin(angle) * wave, np.full_like(angle, y), 1.25 * width * np.cos(angle) - 0.1], -1
            )
        )
    sheet = _sheet(np.stack(rows), ATLAS_SIZE // 2, ATLAS_SIZE, ATLAS_SIZE // 2)
    sheet.faces = np.concatenate([sheet.faces, sheet.faces[:, ::-1]])  # seen from both sides
    return sheet


class HeadRenderer:
    """A person in a setting; `render_frame` shows one pose. Holds what the frames of a recording share."""

    def __init__(
        self,
        model: MorphableModel,
        appearance: PersonAppearance,
        setting: RecordingAppearance,
        height: int,
        width: int,
    ):
        self.model = model
        self.height, self.width, self.setting = height, width, setting
        self.person = model.shape(appearance.id, np.zeros(model.n_exp, np.float32))
        self.cover = (
            hair_density(closed_eyes_mean_vertices(model), appearance.style)
            * model.regions["skin"]
            * ~model.regions["ears"]
        )
        self.hair = self._hair_offset(appearance)
        self.sheets = [_chest()] + ([_curtain()] if appearance.style == "long" else [])
        self.texture = self._texture(appearance)
        self._merge_meshes(appearance)
        self.wall = setting.wall.reshape(-1, 3)

    def _hair_offset(self, appearance: PersonAppearance) -> np.ndarray:
        """-> (N,3) float32: how far hair lifts the scalp; a fringe falls straight, other hair rises."""
        crown, front, _ = HAIR_SHAPE[appearance.style]
        y = self.model.mean[:, 1]
        rise = (
            smoothstep(y, 0.3, 1.3)
            if appearance.style == "fringe"
            else smoothstep(y, front - 0.05, front + 0.45)
        )
        outward = self.model.normals(self.model.mean)
        outward[y > 1.495] = [0, 1, 0]  # the pole's vertices are one point and must stay so
        return (self.cover * crown * (0.45 + 0.55 * rise))[:, None].astype(np.float32) * outward

    def _texture(self, appearance: PersonAppearance) -> np.ndarray:
        """-> (texels,3) float32: the model's atlas, and below it cloth and long hair."""
        rng = np.random.default_rng(appearance.texture_seed + 1)
        half, s = ATLAS_SIZE // 2, self.setting
        chest = self.sheets[0]
        flat = np.column_stack([chest.texels - [0, ATLAS_SIZE], np.zeros(len(chest.texels))])
        where = rasterize(flat, chest.faces, half, half).render_vertex_values(chest.faces, chest.points)
        x, y, z = np.moveaxis(where, -1, 0)
        open_neck = smoothstep(y - (s.neckline + 0.75 * np.abs(x)), -0.02, 0.02) * smoothstep(z, -0.1, 0.1)
        weave = 1 + 0.06 * gaussian_filter(rng.normal(0, 1, (half, half)), 0.7)
        fold = 1 + 0.9 * gaussian_filter(rng.normal(0, 1, (half, half)), (14, 5))
        stripes = 1 - s.stripe * (np.sin(y * 28) > 0.3)
        seam = 1 - 0.35 * np.exp(-(((y - (s.neckline + 0.75 * np.abs(x))) / 0.05) ** 2)) * (z > 0)
        cloth = s.cloth * (weave * fold * stripes * seam)[..., None]
        cloth = (1 - open_neck)[..., None] * cloth + open_neck[..., None] * appearance.skin * 0.85
        strands = 1 + 1.2 * gaussian_filter(rng.normal(0, 1, (half, half)), (14, 0.8))
        hair = appearance.hair * np.clip(strands, 0.4, 1.8)[..., None]
        below = np.concatenate([cloth, hair], axis=1)
        return (
            np.clip(np.concatenate([paint_atlas(self.model, appearance), below]), 0, 1)
            .astype(np.float32)
            .reshape(-1, 3)
        )

    def _merge_meshes(self, appearance: PersonAppearance) -> None:
        """One mesh of all parts: faces, texels, surfaces; how a vertex follows the head, its gloss."""
        model = self.model
        assert model.uv is not None
        faces, texels = [model.faces], [model.uv * (ATLAS_SIZE - 1)]
        inside = model.regions["eyeballs"] | model.regions["teeth"] | model.regions["interior"]
        surface = [np.where(inside, _INSIDE, _HEAD)]
        y = model.mean[:, 1]
        follow = [np.where(model.regions["neck"], smoothstep(y, -2.25, -1.62), 1.0)]
        gloss = [
            np.where(model.regions["eyeballs"], 0.1, 0.1 * (1 - 0.6 * self.cover))
            * ~model.regions["interior"]
        ]
        at = len(y)
        for sheet, name in zip(self.sheets, (_CHEST, _CURTAIN), strict=False):
            faces.append(sheet.faces + at)
            texels.append(sheet.texels)
            surface.append(np.full(len(sheet.points), name))
            follow.append(
                np.zeros(len(sheet.points)) if name == _CHEST else smoothstep(sheet.points[:, 1], -2.6, -0.8)
            )
            gloss.append(np.full(len(sheet.points), 0.0 if name == _CHEST else 0.05))
            at += len(sheet.points)
        self.faces = np.concatenate(faces)
        self.texels = np.concatenate(texels).astype(np.float32)
        self.surface = np.concatenate(surface)[self.faces[:, 0]].astype(np.int8)
        self.follow = np.concatenate(follow)[:, None].astype(np.float32)
        self.gloss = np.concatenate(gloss).astype(np.float32)
        # what little light reaches eyes, teeth and throat; the lid's shadow lies on the upper eyeball
        dim = np.where(model.regions["eyeballs"], 1 - 0.45 * smoothstep(y, 0.0, 0.1), 1.0)
        dim = np.where(model.regions["teeth"], 0.62, np.where(model.regions["interior"], 0.8, dim))
        self.dim = np.ones(at, np.float32)
        self.dim[: len(y)] = dim
        self.flat_lit = np.zeros(at, bool)
        self.flat_lit[: len(y)] = inside
        self.sheet_points = np.concatenate([s.points for s in self.sheets]).astype(np.float32)
        self.sheet_normals = np.concatenate([s.normals for s in self.sheets])

    def head_camera(self, pose: SyntheticHeadState) -> tuple[np.ndarray, np.ndarray]:
        """-> the head's rotation (3,3) and translation (3,): pixel = scale R X + T."""
        head = euler_to_rotation(*pose.angles)
        chest = euler_to_rotation(0, CHEST_YAW_SHARE * pose.angles[1], 0)
        return head, pose.chest + pose.scale * (chest - head) @ NECK_PIVOT

    def project_landmarks(self, pose: SyntheticHeadState) -> np.ndarray:
        """-> (68,2) pixels."""
        rotation, translation = self.head_camera(pose)
        points = self.model.landmarks(self._vertices(pose))
        return (pose.scale * points @ rotation.T + translation)[:, :2]

    def _vertices(self, pose: SyntheticHeadState) -> np.ndarray:
        basis = self.model.exp_basis
        moved = basis.reshape(-1, basis.shape[-1]) @ pose.exp.astype(np.float32)
        return self.person + moved.reshape(self.person.shape)

    def render_frame(self, pose: SyntheticHeadState) -> np.ndarray:
        """-> (H,W,3) uint8."""
        head = self._vertices(pose) + self.hair
        normals = np.concatenate([self.model.normals(head), self.sheet_normals])
        points = np.concatenate([head, self.sheet_points])
        rotation, translation = self.head_camera(pose)
        chest = euler_to_rotation(0, CHEST_YAW_SHARE * pose.angles[1], 0)
        on_head = pose.scale * points @ rotation.T.astype(np.float32) + translation
        on_chest = pose.scale * points @ chest.T.astype(np.float32) + pose.chest
        pixels = self.follow * on_head + (1 - self.follow) * on_chest
        raster = rasterize(pixels, self.faces, self.height, self.width, cull=True)
        light, shine = self._light(normals, rotation, chest)
        texels = self.texels
        eyes = self.model.regions["eyeballs"]
        texels = texels.copy()
        texels[: len(eyes)][eyes] += np.array([-pose.gaze[1], pose.gaze[0]]) * TEXELS_PER_GAZE_DEGREE
        values = raster.interpolate(self.faces, np.column_stack([texels, light, shine]))
        place = values[:, 1].astype(np.int32) * ATLAS_SIZE + values[:, 0].astype(np.int32)
        colour = self.texture[place] * values[:, 2:5] + values[:, 5:6]
        image = self.wall.copy()
        image[raster.pixels] = colour
        image = self._soften(image, raster)
        return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8).reshape(self.height, self.width, 3)

    def _light(
        self, normals: np.ndarray, rotation: np.ndarray, chest: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Normals (N,3) -> light (N,3) and highlight (N,): a lamp that wraps round, and sky."""
        s = self.setting
        head_turn, chest_turn = (AXIS_FLIP @ r for r in (rotation, chest))
        n = self.follow * (normals @ head_turn.T) + (1 - self.follow) * (normals @ chest_turn.T)
        n = np.where(self.flat_lit[:, None], 0.5 * n + np.array([0, 0, 0.5]), n).astype(np.float32)
        lamp = np.clip((n @ s.key + 0.2) / 1.2, 0, None)
        sky = 0.8 + 0.25 * n[:, 1] + 0.15 * np.clip(n[:, 2], 0, 1)
        half = s.key + np.array([0, 0, 1.0])
        shine = self.gloss * np.clip(n @ (half / np.linalg.norm(half)), 0, 1) ** 14
        light = lamp[:, None] * s.key_colour + sky[:, None] * s.fill_colour
        return (light * self.dim[:, None]).astype(np.float32), shine.astype(np.float32)

    def _soften(self, image: np.ndarray, raster: Raster) -> np.ndarray:
        """Average pixels beside an outline with their neighbours: anti-aliasing where it shows."""
        H, W = self.height, self.width
        surface = np.zeros(H * W, np.int8)
        surface[raster.pixels] = self.surface[raster.triangle]
        grid = surface.reshape(H, W)
        edge = np.zeros((H, W), bool)
        down, right = grid[1:] != grid[:-1], grid[:, 1:] != grid[:, :-1]
        edge[1:] |= down
        edge[:-1] |= down
        edge[:, 1:] |= right
        edge[:, :-1] |= right
        edge[[0, -1]] = edge[:, [0, -1]] = False
        at = np.flatnonzero(edge)
        around = ((-W - 1, 1), (-W, 2), (-W + 1, 1), (-1, 2), (0, 4), (1, 2), (W - 1, 1), (W, 2), (W + 1, 1))
        image[at] = sum(weight * image[at + offset] for offset, weight in around) / 16
        return image
