"""What drives a head at inference: landmarks of a whole video fitted as stage fit3dmm fits a clip, and what a
user wants changed of the motion (sections 1.6 and 9 of our specification of the paper).

T = frames.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from models.animation import ANGLES, Edit, Follow
from models.headgan.motion import Adaptation, HeadMotion, frontal, posed, reenacted, with_expression
from models.perception.fit import FitOptions, face_size, fit_video
from models.perception.morphable import MorphableModel

BRIDGED = 5
"""Longest run of frames whose fit fails that is bridged from its neighbours; as in training."""
AS_IT_IS = Adaptation(scale=False, translation=False)


def fitted(model: MorphableModel, landmarks: np.ndarray, whose: str) -> tuple[HeadMotion, list[str]]:
    """landmarks (T,68,2) pixels, NaN where there is no face -> the motion of one person over all frames, and
    what was bridged, for people. whose: "source" or "driving", for errors.

    One identity for all frames. Raises ValueError where no frame shows a face, or where the fit fails in more
    than `BRIDGED` frames in a row, naming them.
    """
    shown = np.isfinite(landmarks).all((1, 2))
    if not shown.any():
        raise ValueError(f"{whose}: no landmarks in any of {len(landmarks)} frames")
    fit, good = fit_video(model, landmarks, FitOptions())
    failed = np.flatnonzero(shown & ~good)
    runs = np.split(failed, np.flatnonzero(np.diff(failed) > 1) + 1) if len(failed) else []
    for run in runs:
        if len(run) > BRIDGED or not good.any():
            where = f"frame {run[0]}" if len(run) == 1 else f"frames {run[0]} to {run[-1]}"
            off = (fit.error / face_size(landmarks))[run[0]]
            raise ValueError(
                f"{whose} {where}: the 3D face does not fit the landmarks, it is off by {off:.0%} of the "
                "face's size; another picture, or a video cut into parts, may do"
            )
    notes = [f"{whose} frame {t}: the 3D face does not fit; bridged from its neighbours" for t in failed]
    motion = HeadMotion(
        identity=np.tile(fit.id, (len(landmarks), 1)),
        expression=fit.exp,
        scale=fit.scale,
        rotation=fit.rotation,
        translation=fit.translation,
    )
    return motion, notes


def mixed(driving: HeadMotion, reference: HeadMotion, follow: Follow) -> HeadMotion:
    """The driving motion on the reference's face. absolute: with its camera, as in reconstruction; relative:
    with the reference's mean size and place (1.6).
    """
    return reenacted(driving, reference, AS_IT_IS if follow == "absolute" else None)


def edited(
    motion: HeadMotion, edit: Edit, model: MorphableModel, lent: np.ndarray | None = None
) -> HeadMotion:
    """lent (n_exp,): the expression of another picture, where `edit` wants one. ValueError for a component of
    the expression that the model does not have.
    """
    if edit.frontal:
        motion = frontal(motion)
    for changes, add in ((edit.pose, False), (edit.turn, True)):
        if changes:
            motion = posed(motion, *(changes.get(angle) for angle in ANGLES), add=add)
    if lent is not None:
        motion = with_expression(motion, lent, add=False)
    if edit.expression:
        motion = with_expression(motion, expression_change(model, edit.expression))
    return motion


def expression_change(model: MorphableModel, changes: Mapping[str, float]) -> np.ndarray:
    """Component by number or name -> sigmas, as (n_exp,) float32. ValueError for another."""
    change = np.zeros(model.n_exp, np.float32)
    for component, sigmas in changes.items():
        if component in model.exp_names:
            at = model.exp_names.index(component)
        elif component.isdecimal() and int(component) < model.n_exp:
            at = int(component)
        else:
            names = f" or one of {', '.join(model.exp_names)}" if model.exp_names else ""
            raise ValueError(
                f"expression {component}: {model.name} has components 0 to {model.n_exp - 1}{names}"
            )
        change[at] += sigmas
    return change
