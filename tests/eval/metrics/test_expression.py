import numpy as np
import pytest

from pipelines.eval.metrics import METRICS
from pipelines.eval.metrics.expression import (
    VOXCELEB_RANGES,
    expression_l1_in_ranges_per_frame,
    expression_l1_per_frame,
    expression_l1_sum_per_frame,
)

Q = np.arange(12)
RANGES = np.stack([-1 - 0.05 * Q, 1.5 + 0.1 * Q], axis=1)


@pytest.fixture
def coefficients():
    """The golden file's generated and target coefficients, one frame of 12."""
    return 0.6 * np.sin(1.1 * Q + 0.3)[None], 0.6 * np.sin(1.1 * Q)[None]


def test_the_raw_mean_and_sum_are_the_golden_ones(coefficients, golden):
    wanted = golden["pose_exp"]["exp_l1_raw_mean12"]
    assert expression_l1_per_frame(*coefficients) == pytest.approx(wanted, abs=1e-12)
    assert expression_l1_sum_per_frame(*coefficients) == pytest.approx(12 * wanted, abs=1e-12)


def test_the_mean_in_ranges_is_the_golden_one(coefficients, golden):
    wanted = golden["pose_exp"]["exp_l1_range_normalised_mean12"]
    assert expression_l1_in_ranges_per_frame(*coefficients, ranges=RANGES) == pytest.approx(wanted, abs=1e-12)


def test_the_mean_of_jaw_and_11_in_ranges_is_the_golden_one(coefficients, golden):
    jaw, wanted = golden["pose_exp"]["jaw"], golden["pose_exp"]["exp_l1_range_normalised_mean11_plus_jaw"]
    generated, target = (one.copy() for one in coefficients)
    ranges = np.concatenate([[(jaw["lo"], jaw["hi"])], RANGES[:11]])
    generated, target = (np.concatenate([[[jaw[side]]], one[:, :11]], axis=1)
                         for side, one in (("generated", generated), ("target", target)))  # fmt: skip
    found = expression_l1_in_ranges_per_frame(generated, target, ranges=ranges)
    assert found == pytest.approx(wanted, abs=1e-12)


def test_on_directions_scale_a_range_is_12_long():
    low, high = VOXCELEB_RANGES.T
    names = ("exp_unit_deca", "exp_a_deca")
    unit, scaled = (METRICS[name].per_frame(high[None], low[None]) for name in names)
    assert (float(unit[0]), float(scaled[0])) == pytest.approx((1, 12))
    # the released scales of jaw and first expression, to the digits that are known
    assert 12 / (high - low)[:2] == pytest.approx([39.1528, 3.5811], rel=1e-4)


def test_a_frame_without_a_face_has_no_expression(coefficients):
    a, b = (np.repeat(one, 2, axis=0) for one in coefficients)
    a[1] = np.nan
    for measure in (expression_l1_per_frame, expression_l1_sum_per_frame, expression_l1_in_ranges_per_frame):
        assert np.isfinite(measure(a, b)).tolist() == [True, False]
