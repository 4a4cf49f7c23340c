import numpy as np

from pipelines.eval.metrics.lpips import LPIPS_ALEX_METRIC, LPIPS_VGG_METRIC


def test_the_value_of_a_frame_is_what_its_feature_says():
    distance = np.array([0.25, np.nan], np.float32)
    for metric in (LPIPS_ALEX_METRIC, LPIPS_VGG_METRIC):
        values = metric.per_frame(distance, distance)
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, [0.25, np.nan])


def test_it_needs_a_ground_truth():
    assert LPIPS_ALEX_METRIC.feature_includes_truth
    assert LPIPS_ALEX_METRIC.reference_in(has_truth=False) is None
