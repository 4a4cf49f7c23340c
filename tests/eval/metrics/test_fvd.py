"""FVD is the Frechet distance over n of windows' logits."""

import numpy as np
import pytest

from pipelines.eval.metrics import METRICS
from pipelines.eval.metrics.moments import feature_moments

FVD = METRICS["fvd16_i3d400"]


def golden_sets():
    i, j = np.arange(50)[:, None], np.arange(6)
    first = np.sin(0.37 * i * (j + 1) + 0.2 * j)
    second = 0.1 * j + 1.1 * np.sin(0.31 * i[:40] * (j + 1) + 0.5 * j)
    return first, second


def test_covariances_are_over_all_windows(golden):
    first, second = golden_sets()
    found = FVD.of_sets(feature_moments(first), feature_moments(second))
    assert found == pytest.approx(golden["frechet"]["n50_m40_ddof0"], abs=1e-9)


def test_of_few_windows_there_is_a_value_and_of_one_there_is_none():
    first, second = golden_sets()
    assert np.isfinite(FVD.of_sets(feature_moments(first[:2]), feature_moments(second[:3])))
    assert np.isnan(FVD.of_sets(feature_moments(first[:1]), feature_moments(second[:3])))


def test_it_counts_windows_and_is_compared_with_the_sources_clip_without_a_truth():
    assert (FVD.counts, FVD.window, FVD.reference_in(False)) == ("windows", 16, "source_clip")
