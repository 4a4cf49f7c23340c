import numpy as np

from pipelines.eval.metrics.perceptual import LPIPS_EFFLITE0_UNLEARNED_METRIC


def test_the_value_of_a_frame_is_what_its_feature_says():
    distance = np.array([0.25, np.nan], np.float32)
    values = LPIPS_EFFLITE0_UNLEARNED_METRIC.per_frame(distance, distance)
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, [0.25, np.nan])


def test_neither_name_nor_title_calls_it_lpips_without_saying_that_nothing_was_learnt():
    assert "unlearned" in LPIPS_EFFLITE0_UNLEARNED_METRIC.name
    assert "LPIPS" not in LPIPS_EFFLITE0_UNLEARNED_METRIC.title
