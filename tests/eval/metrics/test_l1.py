import numpy as np
import pytest

from pipelines.eval.metrics.l1 import L1_METRIC, l1_per_frame
from pipelines.eval.metrics.metric import FrameSums, sum_frame_values


def test_l1_of_the_formula_clip_is_the_golden_one(images, golden):
    value = L1_METRIC.compute(sum_frame_values(l1_per_frame(images[1], images[0])))
    assert value == pytest.approx(golden["l1"]["float01"], abs=1e-12)


def test_l1_of_each_frame_is_the_golden_one(images, golden):
    values = l1_per_frame(images[1], images[0])
    assert values == pytest.approx(golden["l1"]["per_frame_float01"], abs=1e-12)


def test_l1_of_8_bit_frames_is_the_golden_one(images_8_bit, golden):
    values = l1_per_frame(images_8_bit[1], images_8_bit[0])
    assert values * 255 == pytest.approx(golden["l1"]["per_frame_u8"], rel=1e-12)
    assert values.mean() * 255 == pytest.approx(golden["l1"]["u8_0_255"], rel=1e-12)


def test_l1_of_no_frames_is_nan():
    assert np.isnan(L1_METRIC.compute(FrameSums()))
