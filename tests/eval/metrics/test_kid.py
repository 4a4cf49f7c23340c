import numpy as np
import pytest
import torch

from pipelines.eval.metrics import kid
from pipelines.eval.metrics.feature_sample import FeatureSample, feature_sample
from pipelines.eval.metrics.kid import kernel_distance


def distance(first, second):
    return kernel_distance(*(FeatureSample(np.arange(len(one)), one) for one in (first, second)))


def test_it_is_the_golden_one(golden):
    i, j = np.arange(50)[:, None], np.arange(6)
    first = np.sin(0.37 * i * (j + 1) + 0.2 * j)
    second = (0.1 * j + 1.1 * np.sin(0.31 * i * (j + 1) + 0.5 * j))[:40]
    assert distance(first, second) == pytest.approx(
        golden["frechet"]["kid_unbiased_poly3_n50_m40"], abs=1e-12
    )


def test_blocks_are_no_matter(monkeypatch):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(50, 8)), rng.normal(0.3, 1, size=(33, 8))
    whole = distance(first, second)
    monkeypatch.setattr(kid, "KERNEL_BLOCK", 7)
    assert distance(first, second) == pytest.approx(whole, rel=1e-12)


def test_torchmetrics_agrees_where_its_one_subset_is_everything():
    judge = pytest.importorskip("torchmetrics.image.kid")
    rng = np.random.default_rng(1)
    first, second = (rng.normal(mean, 1, size=(60, 20)).astype(np.float32) for mean in (0, 0.2))
    features = torch.nn.Identity()
    features.num_features = 20
    metric = judge.KernelInceptionDistance(features, subsets=1, subset_size=60, normalize=True)
    metric.update(torch.from_numpy(second), real=True)
    metric.update(torch.from_numpy(first), real=False)
    expected, _ = metric.compute()
    names = [str(i) for i in range(60)]
    found = kernel_distance(feature_sample(names, first), feature_sample(names, second))
    assert found == pytest.approx(float(expected), rel=1e-4)  # in float32


def test_equal_distributions_are_0_in_the_mean_however_few_the_frames():
    rng = np.random.default_rng(2)
    found = [distance(rng.normal(size=(8, 16)), rng.normal(size=(8, 16))) for _ in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20
    assert min(found) < 0


@pytest.mark.parametrize("n", [0, 1])
def test_one_frame_is_no_set(n):
    vectors = np.random.default_rng(3).normal(size=(9, 4))
    assert np.isnan(distance(vectors[:n], vectors))
