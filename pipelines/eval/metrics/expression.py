"""How alike two expressions are by coefficients of a 3D head, as Directions measures them (Sec. 4.1: "Exp.",
mean L1 of 12 coefficients).

The paper does not say on what scale its coefficients are. Its authors' monitor divides each by its range over
VoxCeleb, which cannot give the tables' 0.8 to 2.3; the scale of +-6 on which their directions are learned
does, and so does a sum over coefficients. All are here, and none can be told to be the paper's.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from pipelines.eval.features import DECA_FEATURE, MESH_LANDMARKS_FEATURE
from pipelines.eval.metrics.metric import Metric

VOXCELEB_RANGES = np.array([
    (-0.11170, 0.19479), (-0.99688, 2.35403), (-0.95585, 1.60168), (-0.25135, 0.63006), (-0.32552, 1.65576),
    (-1.88960, 1.33328), (-1.35066, 1.22582), (-1.12499, 1.05212), (-1.67798, 0.92898), (-0.91706, 1.08662),
    (-0.77372, 1.87179), (-1.66550, 0.82435),
])  # fmt: skip
"""Least and greatest of the jaw's opening, in radians, and of FLAME's first 11 expressions over VoxCeleb, as
StelaBou/stylegan_directions_face_reenactment releases them."""
DIRECTION_UNITS = 12
"""What a range is long in the units of the directions' shifts: from -6 to 6."""


def expression_l1_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,K) coefficients -> mean absolute difference of each frame (T,)."""
    return np.abs(prediction.astype(np.float64) - target).mean(axis=1)


def expression_l1_sum_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,K) coefficients -> sum of absolute differences of each frame (T,)."""
    return np.abs(prediction.astype(np.float64) - target).sum(axis=1)


def expression_l1_in_ranges_per_frame(
    prediction: np.ndarray, target: np.ndarray, ranges: np.ndarray = VOXCELEB_RANGES, units: float = 1
) -> np.ndarray:
    """Two (T,K) coefficients, ranges (K,2): least and greatest -> mean absolute difference of each frame
    (T,), each coefficient's range being `units` long."""
    length = (ranges[:, 1] - ranges[:, 0]) / units
    return (np.abs(prediction.astype(np.float64) - target) / length).mean(axis=1)


EXP_UNIT_DECA_METRIC = Metric(
    name="exp_unit_deca", title="Exp unit (DECA)", variant="mean_abs_jaw_and_11_over_voxceleb_range",
    better="down", unit="", per_frame=expression_l1_in_ranges_per_frame, feature=DECA_FEATURE,
    field="exp_coeffs", cross_reference="driving", moved_by_speech=True, on_request=True,
    meaning="mean absolute difference of DECA's jaw and first 11 expressions, each over its range in "
    "VoxCeleb",
)  # fmt: skip
EXP_A_DECA_METRIC = Metric(
    name="exp_a_deca", title="Exp (DECA)", variant="mean_abs_jaw_and_11_voxceleb_range_as_12", better="down",
    unit="", per_frame=partial(expression_l1_in_ranges_per_frame, units=DIRECTION_UNITS),
    feature=DECA_FEATURE, field="exp_coeffs", cross_reference="driving", moved_by_speech=True,
    on_request=True,
    meaning="the same on the scale of Directions' shifts, on which a range is 12 long: the scale that fits "
    "the paper's Exp., which does not tell its own",
)  # fmt: skip
EXP_RAW_MEAN_DECA_METRIC = Metric(
    name="exp_raw_mean_deca", title="Exp raw mean (DECA)", variant="mean_abs_jaw_and_11", better="down",
    unit="", per_frame=expression_l1_per_frame, feature=DECA_FEATURE, field="exp_coeffs",
    cross_reference="driving", moved_by_speech=True, on_request=True,
    meaning="mean absolute difference of DECA's jaw, in radians, and first 11 expressions, as they are",
)  # fmt: skip
EXP_RAW_SUM_DECA_METRIC = Metric(
    name="exp_raw_sum_deca", title="Exp raw sum (DECA)", variant="sum_abs_jaw_and_11", better="down", unit="",
    per_frame=expression_l1_sum_per_frame, feature=DECA_FEATURE, field="exp_coeffs",
    cross_reference="driving", moved_by_speech=True, on_request=True,
    meaning="sum of the absolute differences of DECA's jaw and first 11 expressions, as they are",
)  # fmt: skip
EXP_MESH_METRIC = Metric(
    name="exp_mesh", title="Expression (mesh)", variant="mean_abs_exp_coeffs_of_analytic_head", better="down",
    unit="σ", per_frame=expression_l1_per_frame, feature=MESH_LANDMARKS_FEATURE, field="exp_coeffs",
    cross_reference="driving", moved_by_speech=True,
    meaning="mean absolute difference of the expression coefficients of the 3D head fitted to the mesh's "
    "points, in standard deviations; it sees jaw, lips and lids well, frowns hardly",
)  # fmt: skip
EXPRESSION_METRICS = (
    EXP_MESH_METRIC, EXP_A_DECA_METRIC, EXP_UNIT_DECA_METRIC, EXP_RAW_MEAN_DECA_METRIC,
    EXP_RAW_SUM_DECA_METRIC,
)  # fmt: skip
