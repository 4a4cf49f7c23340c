import numpy as np
import pytest

from pipelines.eval.metrics.fid import FID_CLEAN_METRIC, FID_PT_METRIC
from pipelines.eval.metrics.moments import feature_moments


@pytest.mark.parametrize("metric", [FID_PT_METRIC, FID_CLEAN_METRIC])
def test_it_is_the_frechet_distance_of_both_sets_features(metric):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(40, 6)), rng.normal(size=(30, 6)) + 2
    states = [metric.set_state([""] * len(one), one) for one in (first, second)]
    assert metric.of_sets(*states) > 20  # the means alone are 24 apart
    assert metric.of_sets(states[0], feature_moments(first)) == pytest.approx(0, abs=1e-9)


def test_values_of_two_ways_to_resize_never_compare():
    assert FID_PT_METRIC.variant != FID_CLEAN_METRIC.variant
    assert FID_PT_METRIC.feature != FID_CLEAN_METRIC.feature


def test_without_a_truth_sets_are_compared_with_the_sources_clips():
    assert FID_PT_METRIC.reference_in(has_truth=False) == "source_clip"
