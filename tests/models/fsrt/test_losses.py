import pytest
import torch

from models.fsrt import losses
from models.fsrt.keypoints import heatmap_axis


def test_pixel_is_a_mean_over_all_elements():
    assert losses.pixel(torch.zeros(2, 5, 3), torch.full((2, 5, 3), 0.5)).item() == pytest.approx(0.25)


def test_invariance_counts_source_and_driving_alike():
    a, b = torch.zeros(4, 8), torch.ones(4, 8)
    assert losses.invariance(a, b, a, a).item() == pytest.approx(0.5)
    assert losses.invariance(a, a, a, b).item() == pytest.approx(0.5)
    assert losses.invariance(b, b, b, b).item() == 0


def test_variance_looks_over_features_not_over_the_batch():
    torch.manual_seed(0)
    row = torch.randn(1, 64)
    assert losses.variance((row * 10).repeat(4, 1)).item() == 0  # equal rows, each widely spread
    assert losses.variance(torch.arange(4.0).view(4, 1).expand(4, 64)).item() == pytest.approx(0.99, abs=1e-6)


def test_covariance_of_equal_vectors_is_zero():
    assert losses.covariance(torch.randn(1, 8).repeat(5, 1)).item() == pytest.approx(0, abs=1e-12)


def test_heatmap_loss_prefers_the_right_place():
    target = torch.tensor([[[0.5, -0.25]]])
    axis = heatmap_axis(26, target)

    def at(x: float, y: float) -> float:
        logits = -((axis - y).view(-1, 1).square() + (axis - x).view(1, -1).square()) / (2 * 0.08**2)
        heatmap = logits.flatten().softmax(0).view(1, 1, 26, 26)
        return losses.heatmap_cross_entropy(heatmap, target, axis, 0.08).item()

    assert at(0.5, -0.25) < min(at(0.6, -0.25), at(0.5, -0.15), at(-0.25, 0.5))


def test_losses_are_computed_in_float32_for_half_precision():
    x = torch.full((4, 8), 300.0, dtype=torch.float16)  # squares overflow half precision
    assert torch.isfinite(losses.covariance(x * torch.arange(4).view(4, 1).half()))
    assert losses.pixel(x, -x).item() == 360_000
