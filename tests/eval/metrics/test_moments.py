import numpy as np
import pytest

from pipelines.eval.metrics.moments import feature_moments

VECTORS = np.random.default_rng(0).normal(3, 2, (50, 7)).astype(np.float32)


def test_mean_and_covariance_are_numpys():
    moments = feature_moments(VECTORS)
    assert moments.mean == pytest.approx(VECTORS.astype(np.float64).mean(0), rel=1e-12)
    assert moments.covariance == pytest.approx(np.cov(VECTORS.astype(np.float64), rowvar=False), rel=1e-10)


def test_moments_of_two_parts_add_up_to_those_of_the_whole():
    parts, whole = feature_moments(VECTORS[:13]) + feature_moments(VECTORS[13:]), feature_moments(VECTORS)
    assert parts.n == whole.n
    assert parts.covariance == pytest.approx(whole.covariance, rel=1e-10)


def test_no_vectors_change_nothing():
    whole = feature_moments(VECTORS)
    assert (whole + feature_moments(VECTORS[:0])).mean == pytest.approx(whole.mean, rel=1e-15)
