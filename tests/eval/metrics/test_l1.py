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


def test_formula_images_are_the_ones_the_golden_file_was_made_from(images, golden):
    u8 = [np.floor(np.clip(i, 0, 1) * 255 + 0.5).astype(np.uint8) for i in images]
    assert [int(i.sum()) for i in u8] == [
        golden["images"]["checks"]["A8_sum"],
        golden["images"]["checks"]["B8_sum"],
    ]


def test_l1_refuses_frames_of_two_sizes():
    with pytest.raises(ValueError, match=r"prediction \(1, 8, 8, 3\)"):
        l1_per_frame(np.zeros((1, 8, 8, 3)), np.zeros((1, 4, 4, 3)))


def test_l1_of_no_frames_is_nan():
    assert np.isnan(L1_METRIC.compute(FrameSums()))
