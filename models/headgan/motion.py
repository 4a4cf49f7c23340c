"""A head's motion as HeadGAN is driven by it: 3DMM coefficients and a camera a frame; reading, mixing,
editing.

    pixel = scale * rotation @ (mean + id_basis @ id + exp_basis @ exp) + translation

as stage fit3dmm stores it: x right, y down, z away from the viewer, pixels of the stored frame, and a frontal
head has rotation diag(1,-1,-1). Numbers in parentheses are sections of our specification of the paper. T
frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from models.errors import InvalidFile, InvalidSettings
from models.perception.head.dense_fit import adapt_camera
from models.perception.head.pose import AXIS_FLIP, euler_to_rotation, nearest_rotation, rotation_to_euler

CAMERA_PARAMETER_COUNT = 13
"""Numbers of a frame's camera: scale, rotation by rows, translation."""

MAX_MOTION_VALUE = 1e6
"""Of a user's numbers: more is neither a pixel nor a degree nor a sigma, and products of it leave float32."""
MIN_CAMERA_SCALE = 1 / MAX_MOTION_VALUE
"""Pixels per model unit, of a user."""
MAX_ROTATION_SKEW = 0.2
"""Most that R R^T of a user's rotation may be off from 1. The rows of affine cameras are not quite at right
angles (1.4): those of Algorithm 1, fitted to the demo's landmarks, are off by up to 0.14.
"""

IdentityChoice = Literal["clip_mean", "frame"]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadMotion:
    """All float32; made by functions of this file, which never change one in place."""

    identity: np.ndarray
    """(T,n_id) sigmas"""
    expression: np.ndarray
    """(T,n_exp) sigmas"""
    scale: np.ndarray
    """(T,) pixels per model unit"""
    rotation: np.ndarray
    """(T,3,3) model to camera, flip included"""
    translation: np.ndarray
    """(T,3) pixels: where the model's origin lies in the image, and its depth"""

    def __post_init__(self) -> None:
        frames = len(self.scale)
        shapes = {
            "identity": (frames, self.identity.shape[-1]),
            "expression": (frames, self.expression.shape[-1]),
            "scale": (frames,),
            "rotation": (frames, 3, 3),
            "translation": (frames, 3),
        }
        for name, expected in shapes.items():
            value = getattr(self, name)
            if value.shape != expected:
                raise ValueError(f"{name}: found shape {value.shape}, expected {expected}")
            object.__setattr__(self, name, value.astype(np.float32, copy=False))

    def __len__(self) -> int:
        return len(self.scale)

    @property
    def angles(self) -> np.ndarray:
        """(T,3) degrees: pitch, yaw, roll; 0 = frontal."""
        return rotation_to_euler(nearest_rotation(self.rotation))

    def select_frames(self, frames: Sequence[int] | np.ndarray) -> HeadMotion:
        """These frames alone, in this order; numbers or a mask."""
        parts = (getattr(self, name)[frames] for name in MOTION_PARTS)
        return HeadMotion(**dict(zip(MOTION_PARTS, parts, strict=True)))

    def rescale_pixels(self, factor: float) -> HeadMotion:
        """The same heads in images `factor` times as large; depth grows alike."""
        return replace(self, scale=self.scale * factor, translation=self.translation * factor)

    def pack(self) -> np.ndarray:
        """(T, n_id + n_exp + 13) float32: what a sample carries, and `conditions.FaceRenderer` renders."""
        flat = [getattr(self, name).reshape(len(self), -1) for name in MOTION_PARTS]
        return np.concatenate(flat, axis=1)


MOTION_PARTS = ("identity", "expression", "scale", "rotation", "translation")


# --- reading ------------------------------------------------------------------------------------------------
def read_clip_head_motion(
    read: Callable[[str], Any], identity: IdentityChoice = "clip_mean", frames: Sequence[int] | None = None
) -> HeadMotion:
    """Field name -> array, as `models.api.Clip.read` gives it -> the motion of these frames, or of the whole
    clip.

    identity (1.5): one for the clip, as a speaker has one face and its fits jitter, or `frame`, each frame's
    own as in the authors' training, which needs `fit3dmm.identity: frame`.
    """
    chosen = slice(None) if frames is None else list(frames)
    fields = {
        "expression": "exp_coeffs", "scale": "scale", "rotation": "rotation", "translation": "translation",
    }  # fmt: skip
    parts = {part: read(name)[chosen] for part, name in fields.items()}
    if identity == "frame":
        each = read("id_frames")[chosen]
    else:
        each = np.tile(read("id_coeffs"), (len(parts["scale"]), 1))
    return HeadMotion(identity=each, **parts)


def parse_head_motion_arrays(given: Mapping[str, np.ndarray], n_id: int, n_exp: int) -> HeadMotion:
    """Parameters that a user drives a head with -> motion.

    given: scale (T,), translation (T,3), exp_coeffs (T,n_exp), and rotation (T,3,3) or angles (T,3) in
    degrees; id_coeffs (n_id,) or (T,n_id), zeros if left out, for reenactment takes the reference's. Raises
    InvalidFile that names the field, its frame, what was found and what is expected.
    """
    known = {"scale", "translation", "exp_coeffs", "rotation", "angles", "id_coeffs"}
    if unknown := sorted(set(given) - known):
        raise InvalidFile(
            f"unknown {', '.join(unknown)} in a head's motion; it has {', '.join(sorted(known))}"
        )
    missing = [name for name in ("scale", "translation", "exp_coeffs") if name not in given]
    if ("rotation" in given) == ("angles" in given):
        missing.append("one of rotation and angles")
    if missing:
        raise InvalidFile(f"a head's motion needs {', '.join(missing)}; it has {', '.join(sorted(given))}")
    arrays = {name: np.asarray(value) for name, value in given.items()}
    frames = int(arrays["scale"].size)
    identity = arrays.get("id_coeffs", np.zeros(n_id, np.float32))
    arrays["id_coeffs"] = np.tile(identity, (frames, 1)) if identity.ndim == 1 else identity
    expected = {
        "scale": (frames,), "translation": (frames, 3), "exp_coeffs": (frames, n_exp),
        "rotation": (frames, 3, 3), "angles": (frames, 3), "id_coeffs": (frames, n_id),
    }  # fmt: skip
    if not frames:
        raise InvalidFile("scale: found no frames, expected one or more")
    for name, value in arrays.items():
        arrays[name] = check_motion_array(
            name, value, expected[name], MIN_CAMERA_SCALE if name == "scale" else -MAX_MOTION_VALUE
        )
    if "rotation" in arrays:
        _check_rotation(arrays["rotation"])
    turned = arrays["rotation"] if "rotation" in arrays else euler_to_rotation(*arrays["angles"].T)
    return HeadMotion(
        identity=arrays["id_coeffs"],
        expression=arrays["exp_coeffs"],
        scale=arrays["scale"],
        rotation=turned,
        translation=arrays["translation"],
    )


def check_motion_array(
    name: str, value: np.ndarray, shape: tuple[int, ...], least: float = -MAX_MOTION_VALUE
) -> np.ndarray:
    """A user's numbers as float64; of several the first dimension is T. InvalidFile where they are not of
    this shape, or not numbers from `least` to `MAX_MOTION_VALUE`."""
    if value.shape != shape:
        raise InvalidFile(f"{name}: found shape {value.shape}, expected {shape}")
    if value.dtype.kind not in "fiu":
        raise InvalidFile(f"{name}: found {value.dtype}, expected numbers")
    numbers = value.astype(np.float64)
    wrong = np.argwhere(~((numbers >= least) & (numbers <= MAX_MOTION_VALUE)))
    if len(wrong):
        where = f", frame {wrong[0][0]}" if shape else ""
        found = numbers[tuple(wrong[0])]
        raise InvalidFile(
            f"{name}{where}: found {found:g}, expected numbers from {least:g} to {MAX_MOTION_VALUE:g}"
        )
    return numbers


def _check_rotation(rotation: np.ndarray) -> None:
    """rotation (T,3,3). InvalidFile, naming the frame, for matrices that are no model-to-camera rotation."""
    skew = np.abs(rotation @ np.swapaxes(rotation, 1, 2) - np.eye(3)).max((1, 2))
    determinant = np.linalg.det(rotation)
    unflipped = (rotation[:, 1, 1] > 0) & (rotation[:, 2, 2] > 0)
    for t in np.flatnonzero((skew > MAX_ROTATION_SKEW) | (determinant < 0) | unflipped)[:1]:
        if skew[t] > MAX_ROTATION_SKEW:
            problem = (
                f"found R with R R^T off from 1 by {skew[t]:.3g}, expected at most {MAX_ROTATION_SKEW}: "
                "rows of "
                "length 1 "
                "at right angles"
            )
        elif determinant[t] < 0:
            problem = f"found determinant {determinant[t]:.3g}, expected 1: this mirrors the head"
        else:
            problem = (
                "found a head that is upside down and looks away, expected model to camera, flip of y and z "
                "included: diag(1,-1,-1) for a frontal head"
            )
        raise InvalidFile(f"rotation, frame {t}: {problem}")


def driving_window_indices(frame: int, frames: int = 3) -> list[int]:
    """Indices of the driving window of a frame, oldest first: t-2, t-1, t; before the clip's start its first
    frame is repeated (2).
    """
    return [max(0, frame - back) for back in reversed(range(frames))]


def is_fit_window_valid(valid: np.ndarray, frame: int, frames: int = 3) -> bool:
    """Whether all fits of a frame's window count; valid (T,) bool: field `fit_valid`."""
    return bool(valid[driving_window_indices(frame, frames)].all())


# --- reenactment (1.6) --------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True, slots=True)
class CameraAdaptation:
    """How the driving camera is made to frame the reference's head."""

    scale: bool = True
    """The driving scale gets the reference's mean."""
    translation: bool = True
    """So does the place in the image, in heads' sizes; it needs `scale`."""
    standardise: bool = False
    """The place gets the reference's spread too; the reference must then be a clip."""
    frames: int = 15
    """Width of the box filter over both; 1 = none."""

    def __post_init__(self) -> None:
        if self.translation and not self.scale:
            raise ValueError("adaptation: translation is adapted in units of the scale; adapt scale too")
        if self.standardise and not self.translation:
            raise ValueError("adaptation: standardise is about the translation, which is not adapted")
        if self.frames < 1 or self.frames % 2 == 0:
            raise ValueError(f"adaptation: a filter of {self.frames} frames; expected an odd number")


def adapt_motion_to_reference_head(
    driving: HeadMotion, reference: HeadMotion, how: CameraAdaptation | None = None
) -> HeadMotion:
    """The driving clip's expression and rotation (T frames) on the reference's head (1 frame or more): its
    identity, and its place and size as `how` says. Neither rotation nor expression is smoothed.

    Raises InvalidSettings where standardising has no spread to take.
    """
    how = how or CameraAdaptation()
    identity = np.tile(reference.identity.mean(0), (len(driving), 1))
    if not how.scale:
        return replace(driving, identity=identity)
    if how.standardise and min(len(driving), len(reference)) < 2:
        raise InvalidSettings(
            f"adaptation.standardise: {len(driving)} driving and {len(reference)} reference frames; it needs "
            "two or more of each to know a spread"
        )
    scale, translation = adapt_camera(
        driving.scale.astype(np.float64),
        driving.translation.astype(np.float64),
        reference.scale.astype(np.float64),
        reference.translation.astype(np.float64),
        adapt_translation=how.translation,
        standardise=how.standardise,
        window=how.frames,
    )
    return replace(driving, identity=identity, scale=scale, translation=translation)


# --- editing (9) --------------------------------------------------------------------------------------------
def orthonormalize_rotations(motion: HeadMotion) -> HeadMotion:
    """The nearest rotations: an affine camera's rows are not quite at right angles (1.4)."""
    return replace(motion, rotation=nearest_rotation(motion.rotation))


def set_frontal(motion: HeadMotion) -> HeadMotion:
    """All angles 0; place, size and face unchanged. The head turns about the model's origin."""
    return replace(motion, rotation=np.tile(AXIS_FLIP, (len(motion), 1, 1)))


def set_pose(
    motion: HeadMotion,
    pitch: float | None = None,
    yaw: float | None = None,
    roll: float | None = None,
    *,
    add: bool = False,
) -> HeadMotion:
    """Angles in degrees set, or added to what they are; None leaves one as it is.

    Positive pitch looks down, positive yaw turns the nose to the image's right, positive roll tilts the head
    to the image's left.
    """
    angles = motion.angles
    for axis, value in enumerate((pitch, yaw, roll)):
        if value is not None:
            angles[:, axis] = angles[:, axis] + value if add else value
    return replace(motion, rotation=euler_to_rotation(*angles.T))


def change_expression(motion: HeadMotion, change: np.ndarray, *, add: bool = True) -> HeadMotion:
    """change (n_exp,) or (T,n_exp) in sigmas, added to the expression or put in its place."""
    wide = np.broadcast_to(np.asarray(change, np.float32), motion.expression.shape)
    return replace(motion, expression=motion.expression + wide if add else wide.copy())


def offset_identity_coeffs(motion: HeadMotion, change: np.ndarray) -> HeadMotion:
    """change (n_id,) or (T,n_id) in sigmas, added to the identity: another face under the same motion."""
    return replace(motion, identity=motion.identity + np.asarray(change, np.float32))
