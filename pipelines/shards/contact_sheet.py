"""A contact sheet of clips: frames with boxes, landmarks and irises, the fitted mesh on them, the sound
below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.errors import UserError, write_user_output_file
from pipelines.figures import picture_grids

if TYPE_CHECKING:
    from models.perception.head.morphable import MorphableModel

ClipFields = Mapping[str, Any]
"""A clip's decoded fields by name (storage/shards.py), with `count` and `indices` of its frames."""

SHEET_COLUMNS = 8
CONTACT_SHEET_CELL_SIZE = 192
SOUND_STRIP_HEIGHT = 76
"""Height of the sound."""
SOUND_RATE, FPS = 16_000, 25
DETECTOR_BOX_COLOUR, TRACKER_BOX_COLOUR = (255, 176, 32), (64, 160, 255)
"""Boxes: of the landmarks' detector, of the source or tracker."""
BOX_STYLES = (("face_box", "orange", "keypoints"), ("boxes", "blue", "clips"))
IRIS_COLOUR = (255, 70, 60)
MESH_COLOUR = np.array([70, 205, 190], np.float32)
MESH_OPACITY = 0.5
LIGHT_DIRECTION = np.array([0.3, 0.5, 0.81], np.float32)
"""From above and the viewer's right, in model space."""
INNER_LIP_LANDMARKS = (62, 66)
MIN_MOUTH_PLOT_RANGE = 0.1
"""Lips this far apart reach the top of the strip at least, so that a shut mouth is drawn as shut."""
WAVE_COLOUR, MOUTH_COLOUR, FRAME_MARK_COLOUR = (90, 120, 190), (214, 84, 60), (205, 208, 216)


def write_sheet(out: Path, clips: Sequence[ClipFields], mesh: Path | None = None) -> list[str]:
    """Write a PNG; returns what is missing on it, as sentences."""
    notes: list[str] = []
    blocks = [render_clip_sheet(clip, _model(mesh), notes) for clip in clips if "frames" in clip]
    notes += [f"{clip['__key__']}: no frames; name the clips' shard with --with" for clip in clips
              if "frames" not in clip]  # fmt: skip
    if not blocks:
        raise UserError(f"nothing to draw: {notes[0] if notes else 'the shard is empty'}")
    write_user_output_file(out, picture_grids.encode_png(np.concatenate(blocks)))
    return list(dict.fromkeys(notes))


def _model(mesh: Path | None) -> MorphableModel:
    from models.perception.head.default_head import get_analytic_head
    from models.perception.head.morphable import MorphableModel

    return get_analytic_head() if mesh is None else MorphableModel.load(mesh)


def sheet_frames(count: int) -> np.ndarray:
    """The frames of a clip that are drawn, evenly spread."""
    return np.unique(np.linspace(0, count - 1, SHEET_COLUMNS).round().astype(int))


def render_clip_sheet(clip: ClipFields, model: MorphableModel, notes: list[str]) -> np.ndarray:
    """One clip -> (H,W,3) uint8: a heading, a row of frames, a row with the mesh, a strip of sound.

    `frames` are those numbered `indices`. A view's have `frame_at` and `affine`: what the other families hold
    is of the clip, in its pixels and on its clock.
    """
    frames, at = clip["frames"], clip["indices"]
    cells = picture_grids.to_uint8(picture_grids.resize_frames(frames, CONTACT_SHEET_CELL_SIZE))
    matrices = np.tile(np.eye(2, 3), (len(at), 1, 1)) if "affine" not in clip else clip["affine"][at]
    matrices = matrices * (CONTACT_SHEET_CELL_SIZE / np.array([frames.shape[2], frames.shape[1]]))[:, None]
    clock = clip["frame_at"][at] if "frame_at" in clip else at
    which = list(zip(cells, clock, matrices, strict=True))
    rows = [[plot_boxes_and_landmarks(cell.copy(), clip, t, matrix) for cell, t, matrix in which]]
    if fits := _fits(clip, model, notes):
        rows.append([overlay_mesh(cell.copy(), fits, model, t, matrix) for cell, t, matrix in which])
    image = picture_grids.picture_grid(rows, [f"{t / FPS:.2f} s" for t in clock])
    width = image.shape[1]
    parts = [picture_grids.render_text(_heading(clip), width, 24), image]
    if "sound" in clip and len(clip["sound"]):
        parts.append(sound_strip(clip["sound"], mouth_opening(clip), clock, width))
    return np.concatenate(parts)


def _heading(clip: ClipFields) -> str:
    frames, parts = clip["frames"], [str(clip["__key__"]).replace("#", "  ")]
    parts.append(f"{clip['count']} frames of {frames.shape[2]} x {frames.shape[1]}")
    if "landmarks" in clip:
        seen = np.isfinite(clip["landmarks"]).all((1, 2))
        parts.append(f"landmarks in {100 * seen.mean():.0f} %")
    if "fit_error" in clip and np.isfinite(clip["fit_error"]).any():
        parts.append(f"fit {np.nanmedian(clip['fit_error']):.1f} px off")
    parts += [f"{name} box: {whose}" for field, name, whose in BOX_STYLES if field in clip]
    if "iris" in clip:
        parts.append("iris centres: red")
    return "    ".join(parts)


# --- on the frames ------------------------------------------------------------------------------------------
def plot_boxes_and_landmarks(image: np.ndarray, clip: ClipFields, t: int, matrix: np.ndarray) -> np.ndarray:
    """Boxes and landmarks of the clip's frame t, drawn in place on (CELL,CELL,3); matrix (2,3): pixels of the
    clip -> of the cell."""
    if all(name in clip for name in ("boxes", "crop", "clip")):
        # boxes are in pixels of the recording, the crop is what became the clip
        crop = clip["crop"][t]
        box = (clip["boxes"][t].reshape(2, 2) - crop[:2]) * clip["clip"]["size"] / (crop[2:] - crop[:2])
        picture_grids.overlay_box(image, transform_points(box, matrix).ravel(), TRACKER_BOX_COLOUR)
    if "face_box" in clip:
        picture_grids.overlay_box(
            image, transform_points(clip["face_box"][t].reshape(2, 2), matrix).ravel(), DETECTOR_BOX_COLOUR
        )
    if "landmarks" in clip:
        picture_grids.overlay_points(image, transform_points(clip["landmarks"][t], matrix))
    if "iris" in clip:
        centres = clip["iris"][t][:, 0]
        picture_grids.overlay_points(image, transform_points(centres, matrix), IRIS_COLOUR)
    return image


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """points (n,2), matrix (2,3) -> (n,2)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


# --- the mesh -----------------------------------------------------------------------------------------------
def _fits(clip: ClipFields, model: MorphableModel, notes: list[str]) -> dict[str, np.ndarray]:
    """The fit of a clip; nothing where there is none, or one of another model."""
    names = ("id_coeffs", "exp_coeffs", "scale", "rotation", "translation")
    if any(name not in clip for name in names):
        return {}
    fits = {name: clip[name] for name in names}
    found = (fits["id_coeffs"].shape[-1], fits["exp_coeffs"].shape[-1])
    if found != (model.n_id, model.n_exp):
        notes.append(
            f"no mesh: the fit has {found[0]} identity and {found[1]} expression coefficients, {model.name} "
            f"has {model.n_id} and {model.n_exp}; name the model of the fit with --mesh"
        )
        return {}
    fits["seen"] = np.isfinite(clip.get("fit_error", fits["scale"]))
    return fits


def overlay_mesh(
    image: np.ndarray, fits: Mapping[str, np.ndarray], model: MorphableModel, t: int, matrix: np.ndarray
) -> np.ndarray:
    """The shaded mesh of the clip's frame t over (CELL,CELL,3); frames without a face stay as they are."""
    from models.perception.head.pose import project
    from models.perception.head.raster import rasterize

    if not fits["seen"][t]:
        return image
    identity = fits["id_coeffs"] if fits["id_coeffs"].ndim == 1 else fits["id_coeffs"][t]
    vertices = model.shape(identity, fits["exp_coeffs"][t])
    points = project(vertices, fits["scale"][t], fits["rotation"][t], fits["translation"][t])
    points[:, :2] = transform_points(points[:, :2], matrix)
    raster = rasterize(points, model.faces, CONTACT_SHEET_CELL_SIZE, CONTACT_SHEET_CELL_SIZE, cull=True)
    light = np.clip(model.normals(vertices) @ LIGHT_DIRECTION, 0.15, 1)[:, None]
    shade = raster.interpolate(model.faces, light) * MESH_COLOUR
    flat = image.reshape(-1, 3)
    mixed = flat[raster.pixels] * (1 - MESH_OPACITY) + shade * MESH_OPACITY
    flat[raster.pixels] = mixed.round().astype(np.uint8)
    return image


# --- the sound ----------------------------------------------------------------------------------------------
def mouth_opening(clip: ClipFields) -> np.ndarray | None:
    """Distance of the inner lips over the distance of the outer eye corners -> (T,), NaN without a face."""
    if "landmarks" not in clip:
        return None
    points = clip["landmarks"]
    upper, lower = (points[:, i] for i in INNER_LIP_LANDMARKS)
    return np.linalg.norm(lower - upper, axis=1) / np.linalg.norm(points[:, 45] - points[:, 36], axis=1)


def sound_strip(sound: np.ndarray, mouth: np.ndarray | None, at: np.ndarray, width: int) -> np.ndarray:
    """-> (STRIP,width,3): the envelope, the lips' distance as a line over it, a mark at each frame shown."""
    image = np.full((SOUND_STRIP_HEIGHT, width, 3), picture_grids.BACKGROUND_COLOUR, np.uint8)
    frames = len(sound) * FPS / SOUND_RATE
    for t in at:
        image[:, min(width - 1, int((t + 0.5) / frames * width))] = FRAME_MARK_COLOUR
    edges = (np.arange(width) / width * len(sound)).astype(int)
    loudest = np.maximum.reduceat(np.abs(sound), edges)
    half = (SOUND_STRIP_HEIGHT / 2 - 4) * loudest / max(float(loudest.max()), 0.05)
    rows = np.abs(np.arange(SOUND_STRIP_HEIGHT)[:, None] + 0.5 - SOUND_STRIP_HEIGHT / 2) <= np.maximum(
        half, 0.5
    )
    image[rows] = WAVE_COLOUR
    if mouth is not None and np.isfinite(mouth).any():
        share = mouth / max(float(np.nanmax(mouth)), MIN_MOUTH_PLOT_RANGE)
        # frame t shows from t to t + 1; a NaN breaks the line
        height = np.interp((np.arange(width) + 0.5) / width * frames, np.arange(len(share)) + 0.5, share)
        plot_line(image, (SOUND_STRIP_HEIGHT - 8) * (1 - height) + 3)
    legend = "sound" if mouth is None else "blue: sound; red: distance of the lips"
    return np.concatenate(
        [image, picture_grids.render_text(legend, width, 18, picture_grids.MUTED_TEXT_COLOUR)]
    )


def plot_line(image: np.ndarray, rows: np.ndarray) -> None:
    """Draw row rows[x] (W,) float of each column x into (H,W,3), two pixels thick and joined, in place."""
    for x in np.flatnonzero(np.isfinite(rows)):
        before = rows[max(0, x - 1)]
        low, high = sorted((rows[x], before if np.isfinite(before) else rows[x]))
        image[int(low) : int(high) + 2, x] = MOUTH_COLOUR
