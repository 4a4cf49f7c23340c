"""What drives a head at inference: points of a whole video fitted as stage fit3dmm fitted the clips that the
model learned from, and what a user wants changed of the motion (sections 1.6 and 9 of our specification of
the paper).

T = frames, m = points of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from models.errors import InvalidFile, InvalidSettings
from models.headgan.fitter import LANDMARK_FITS
from models.headgan.motion import (
    CameraAdaptation,
    HeadMotion,
    adapt_motion_to_reference_head,
    change_expression,
    offset_identity_coeffs,
    set_frontal,
    set_pose,
)
from models.perception.head.face_fitter import FaceFitSettings, fit_video
from models.perception.head.landmark_fit import face_size
from models.perception.head.morphable import MorphableModel
from models.reenactor import ANGLES, MAX_FACELESS_SHARE, MotionEdit, MotionMode

NO_CAMERA_ADAPTATION = CameraAdaptation(scale=False, translation=False)


def fit_motion(
    model: MorphableModel,
    landmarks: np.ndarray,
    whose: str,
    points: np.ndarray | None = None,
    settings: FaceFitSettings = LANDMARK_FITS,
) -> tuple[HeadMotion, list[str]]:
    """landmarks (T,68,2) pixels, NaN where there is no face, and the points (T,m,2 or 3) that the settings
    fit to, if not those -> the motion of one person over all frames, and what stands for frames that have no
    fit, for people. whose: "source" or "driving", for errors.

    A run of frames without a fit, because there is no face or the 3D face does not fit, is bridged from both
    sides up to `max_gap` of the settings; in a longer one, and at the ends, the last fit before it (at the
    start: the first after it) is kept. Raises InvalidFile, naming the frames, where the 3D face does not fit
    in more than `max_gap` frames of a run, and where more than `MAX_FACELESS_SHARE` of all have no fit.
    """
    points, bridged = landmarks if points is None else points, settings.max_gap
    size = face_size(landmarks)
    has_face = (size > 1) & np.isfinite(points).all((1, 2))
    if not has_face.any():
        raise InvalidFile(f"{whose}: no landmarks in any of {len(landmarks)} frames")
    fit, good = fit_video(model, landmarks, points, settings)
    notes, standing = [], np.arange(len(good))
    for first, last in true_runs(~good):
        misfits = first + np.flatnonzero(has_face[first:last])
        gap = f"{whose} {describe_unfitted_frames(first, last, len(misfits))}"
        if len(misfits) > bridged or not good.any():
            off = (fit.error / size)[misfits].max()
            raise InvalidFile(
                f"{gap}; it is off by up to {off:.0%} of the face's size, and up to {bridged} such frames in "
                "a row can be bridged; another picture, or a video cut into parts, may do"
            )
        inside = first > 0 and last < len(good)
        if inside and last - first <= bridged:
            notes.append(f"{gap}; bridged from both sides")
        else:
            standing[first:last] = kept = first - 1 if first else last
            notes.append(f"{gap}; frame {kept}'s motion is kept")
    lost = int((~good).sum())
    if lost > MAX_FACELESS_SHARE * len(good):
        raise InvalidFile(
            f"{whose}: no face, or none that the 3D face fits, in {lost} of {len(good)} frames, more than "
            f"{MAX_FACELESS_SHARE:.0%}"
        )
    motion = HeadMotion(
        identity=np.broadcast_to(fit.id, (len(landmarks), model.n_id)).copy(),
        expression=fit.exp,
        scale=fit.scale,
        rotation=fit.rotation,
        translation=fit.translation,
    )
    return motion.select_frames(standing), notes


def true_runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """mask (T,) bool -> its runs of True: first frame, and the first after it."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def describe_unfitted_frames(first: int, last: int, misfits: int) -> str:
    """Frames first to last - 1 and why they have no fit: the 3D face does not fit in `misfits` of them, the
    others show no face."""
    where = f"frame {first}" if last - first == 1 else f"frames {first} to {last - 1}"
    if not misfits:
        return f"{where}: no face"
    some = f" in {misfits} of them, no face in the others" if misfits < last - first else ""
    return f"{where}: the 3D face does not fit the landmarks{some}"


def transfer_motion(driving: HeadMotion, reference: HeadMotion, follow: MotionMode) -> HeadMotion:
    """The driving motion on the reference's face. absolute: with its camera, as in reconstruction; relative:
    with the reference's mean size and place (1.6).
    """
    return adapt_motion_to_reference_head(
        driving, reference, NO_CAMERA_ADAPTATION if follow == "absolute" else None
    )


def edit_motion(
    motion: HeadMotion, edit: MotionEdit, model: MorphableModel, expression_from: np.ndarray | None = None
) -> HeadMotion:
    """expression_from (n_exp,): the expression of another picture, where `edit` wants one. InvalidSettings
    for a component that the model does not have.
    """
    if edit.frontal:
        motion = set_frontal(motion)
    for changes, add in ((edit.pose, False), (edit.turn, True)):
        if changes:
            motion = set_pose(motion, *(changes.get(angle) for angle in ANGLES), add=add)
    if expression_from is not None:
        motion = change_expression(motion, expression_from, add=False)
    changed = change_expression(motion, coefficient_deltas("expression", edit.expression, model))
    return offset_identity_coeffs(changed, coefficient_deltas("identity", edit.identity, model))


def coefficient_deltas(
    kind: Literal["expression", "identity"], changes: Mapping[str, float], model: MorphableModel
) -> np.ndarray:
    """Component by number or name -> sigmas, as (n_exp,) or (n_id,) float32. InvalidSettings for another."""
    known = {"expression": model.exp_names, "identity": model.id_names}[kind]
    change = np.zeros({"expression": model.n_exp, "identity": model.n_id}[kind], np.float32)
    for component, sigmas in changes.items():
        if component in known:
            at = known.index(component)
        elif component.isdecimal() and int(component) < len(change):
            at = int(component)
        else:
            names = f" or one of {', '.join(known)}" if known else ""
            raise InvalidSettings(
                f"{kind} {component}: {model.name} has components 0 to {len(change) - 1}{names}"
            )
        change[at] += sigmas
    return change
