from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(order=st.permutations(range(50)), cuts=st.lists(st.integers(0, 50), max_size=5))
def test_moments_of_any_parts_in_any_order_add_up_to_those_of_one_pass(order, cuts):
    edges = [0, *sorted(cuts), 50]
    first, *rest = (feature_moments(VECTORS[order[a:b]]) for a, b in pairwise(edges))
    whole, total = feature_moments(VECTORS), sum(rest, first)
    assert total.n == 50
    np.testing.assert_allclose(total.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(total.covariance, whole.covariance, rtol=0, atol=1e-12)


def test_no_vectors_change_nothing():
    whole = feature_moments(VECTORS)
    assert (whole + feature_moments(VECTORS[:0])).mean == pytest.approx(whole.mean, rel=1e-15)
