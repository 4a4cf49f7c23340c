"""Pose and expression as Directions measures them: by DECA, in a crop about the face mesh's landmarks (its
authors': FAN's)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from models.perception.head.pose import rotation_to_euler
from pipelines.eval.features import MESH_LANDMARKS_FEATURE, read_input_feature, resize_for_nets
from pipelines.eval.mesh_features import configure_nets

if TYPE_CHECKING:
    from models.perception.head.deca import DecaNet
    from pipelines.cluster.runtime import RuntimeConfig
    from pipelines.eval.pair_clips import FamilySamples, Sample

DECA_NET = "deca"
FLAME_EXPRESSIONS = 50
"""Of a fit by DECA; the jaw's rotation follows them."""
DIRECTIONS_EXPRESSIONS = (FLAME_EXPRESSIONS, *range(11))
"""Of a fit by DECA, the 12 coefficients that Directions moves and measures: the jaw's opening, in radians,
and the first 11 expressions."""


def compute_deca_coefficients(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """Of each generated frame pitch, yaw, roll in degrees (T,3) and Directions' 12 expression coefficients
    (T,12); float32, NaN where no face is found. Without the net, or those of the landmarks, its weights."""
    key, mesh = inputs["generated"].keys[0], read_input_feature(inputs, MESH_LANDMARKS_FEATURE)
    if DECA_NET not in nets:
        yield {"__key__": key, "needs": {"weights": DECA_NET}}
        return
    if "needs" in mesh:
        yield {"__key__": key, "needs": mesh["needs"]}
        return
    net = cast("DecaNet", nets[DECA_NET])
    configure_nets((net,), runtime)
    frames = resize_for_nets(inputs["generated"][0]["frames"])
    angles, exp_coeffs = read_coefficients(net, frames, mesh["landmarks"])
    yield {"__key__": key, "angles": angles, "exp_coeffs": exp_coeffs}


def read_coefficients(
    net: DecaNet, frames: np.ndarray, landmarks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """frames (T,H,W,3) uint8, landmarks (T,68,2) in their pixels, NaN where there is no face -> angles (T,3)
    and expression coefficients (T,12)."""
    angles = np.full((len(frames), 3), np.nan, np.float32)
    exp_coeffs = np.full((len(frames), len(DIRECTIONS_EXPRESSIONS)), np.nan, np.float32)
    rows = np.flatnonzero(np.isfinite(landmarks).all((1, 2)))
    if len(rows):
        fit = net.to_face_fit(net.predict(frames[rows], landmarks[rows]))
        angles[rows] = rotation_to_euler(fit.rotation)
        exp_coeffs[rows] = fit.exp[:, list(DIRECTIONS_EXPRESSIONS)]
    return angles, exp_coeffs
