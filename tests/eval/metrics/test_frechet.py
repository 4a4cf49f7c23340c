import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from pipelines.eval.metrics.frechet import frechet_distance
from pipelines.eval.metrics.moments import feature_moments


def golden_sets(n, m):
    """The golden file's two sets of vectors of 6."""
    i, j = np.arange(max(n, m))[:, None], np.arange(6)
    first = np.sin(0.37 * i * (j + 1) + 0.2 * j)[:n]
    return first, (0.1 * j + 1.1 * np.sin(0.31 * i * (j + 1) + 0.5 * j))[:m]


def distance(first, second):
    return frechet_distance(feature_moments(first), feature_moments(second))


def test_it_is_the_golden_one(golden):
    assert distance(*golden_sets(50, 40)) == pytest.approx(golden["frechet"]["n50_m40_ddof1"], abs=1e-9)


def test_sets_of_fewer_vectors_than_features_are_no_trouble(golden):
    assert distance(*golden_sets(4, 5)) == pytest.approx(golden["frechet"]["singular_n4_m5_ddof1"], abs=1e-6)


def test_it_agrees_with_scipys_square_root_of_a_matrix():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(300, 20)), rng.normal(0.2, 1.3, size=(200, 20))
    a, b = (np.cov(one, rowvar=False) for one in (first, second))
    difference = first.mean(0) - second.mean(0)
    expected = difference @ difference + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_torchmetrics_agrees_on_features_of_its_own_module():
    judge = pytest.importorskip("torchmetrics.image.fid")
    features = torch.nn.Identity()
    features.num_features = 6
    first, second = golden_sets(50, 40)
    metric = judge.FrechetInceptionDistance(features, normalize=True).set_dtype(torch.float64)
    metric.update(torch.from_numpy(second), real=True)
    metric.update(torch.from_numpy(first), real=False)
    assert distance(first, second) == pytest.approx(float(metric.compute()), rel=1e-9)


def test_it_is_the_same_both_ways_and_0_of_equal_sets():
    first, second = golden_sets(50, 40)
    assert distance(first, second) == pytest.approx(distance(second, first), rel=1e-9)
    assert distance(first, first) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("n", [0, 1])
def test_one_frame_is_no_set(n):
    first, second = golden_sets(50, 40)
    assert np.isnan(distance(first[:n], second))
