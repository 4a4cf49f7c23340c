import numpy as np
import pytest
import torch

from models.fsrt import losses
from models.fsrt.keypoints import heatmap_cell_coordinates


def test_pixel_is_a_mean_over_all_elements():
    assert losses.pixel_mse_loss(torch.zeros(2, 5, 3), torch.full((2, 5, 3), 0.5)).item() == pytest.approx(
        0.25
    )


def test_invariance_counts_source_and_driving_alike():
    a, b = torch.zeros(4, 8), torch.ones(4, 8)
    assert losses.expression_colour_invariance_loss(a, b, a, a).item() == pytest.approx(0.5)
    assert losses.expression_colour_invariance_loss(a, a, a, b).item() == pytest.approx(0.5)
    assert losses.expression_colour_invariance_loss(b, b, b, b).item() == 0


def test_variance_looks_over_features_not_over_the_batch():
    torch.manual_seed(0)
    row = torch.randn(1, 64)
    equal_rows = (row * 10).repeat(4, 1)  # each widely spread
    assert losses.feature_variance_hinge_loss(equal_rows).item() == 0
    assert losses.feature_variance_hinge_loss(
        torch.arange(4.0).view(4, 1).expand(4, 64)
    ).item() == pytest.approx(0.99, abs=1e-6)


def test_covariance_of_equal_vectors_is_zero():
    assert losses.covariance_loss(torch.randn(1, 8).repeat(5, 1)).item() == pytest.approx(0, abs=1e-12)


def test_the_perceptual_term_of_another_net_than_vgg19_is_scaled():
    a, b = [torch.zeros(1, 2, 3, 3)], [torch.ones(1, 2, 3, 3)]
    assert losses.perceptual_loss(a, b, "vgg19") == losses.perceptual_loss(a, b, "vgg19_random") == 1
    found = losses.perceptual_loss(a, b, "efficientnet_lite0").item()
    assert found == pytest.approx(losses.PERCEPTUAL_LOSS_SCALES["efficientnet_lite0"])


@pytest.mark.parametrize("loss", [losses.perceptual_loss, losses.feature_matching_loss])
def test_gaps_of_maps_are_means_within_a_map_and_summed_over_maps(loss):
    torch.manual_seed(0)
    maps = [torch.randn(2, 4, 8, 8), torch.randn(2, 8, 4, 4)]
    assert loss(maps, maps) == 0
    shifted = [maps[0] + 0.5, maps[1] - 0.25]
    assert loss(shifted, maps).item() == pytest.approx(0.75)
    with pytest.raises(ValueError, match="longer"):  # a map is missing
        loss(maps[:1], maps)


def test_feature_matching_gives_no_gradient_to_the_real_side():
    fake, real = (torch.rand(1, 2, 3, 3, requires_grad=True) for _ in range(2))
    losses.feature_matching_loss([fake], [real]).backward()
    assert fake.grad is not None
    assert real.grad is None


def test_the_generator_wants_predictions_of_one():
    assert losses.generator_gan_loss(torch.ones(2, 1, 3, 3)).item() == 0
    assert losses.generator_gan_loss(torch.full((2, 1, 3, 3), 0.5)).item() == pytest.approx(0.25)


def test_the_discriminator_wants_one_for_real_and_zero_for_rendered():
    one, zero = torch.ones(2, 1, 3, 3), torch.zeros(2, 1, 3, 3)
    assert losses.discriminator_loss(one, zero).item() == 0
    assert losses.discriminator_loss(zero, one).item() == pytest.approx(2)
    assert losses.discriminator_loss(one, one / 2).item() == pytest.approx(0.25)


def test_heatmap_loss_prefers_the_right_place():
    target = torch.tensor([[[0.5, -0.25]]])
    axis = heatmap_cell_coordinates(26, target)

    def at(x: float, y: float) -> float:
        logits = -((axis - y).view(-1, 1).square() + (axis - x).view(1, -1).square()) / (2 * 0.08**2)
        heatmap = logits.flatten().softmax(0).view(1, 1, 26, 26)
        return losses.heatmap_cross_entropy(heatmap, target, axis, 0.08).item()

    assert at(0.5, -0.25) < min(at(0.6, -0.25), at(0.5, -0.15), at(-0.25, 0.5))


def test_losses_are_computed_in_float32_for_half_precision():
    x = torch.full((4, 8), 300.0, dtype=torch.float16)  # squares overflow half precision
    assert torch.isfinite(losses.covariance_loss(x * torch.arange(4).view(4, 1).half()))
    assert losses.pixel_mse_loss(x, -x).item() == 360_000


def test_no_term_falls_back_to_half_precision_under_autocast():
    x = torch.linspace(-1, 1, 64).view(4, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert losses.covariance_loss(x).dtype == torch.float32
        halves = x.bfloat16()
        for loss in (
            losses.generator_gan_loss(halves),
            losses.perceptual_loss([halves], [x]),
            losses.feature_variance_hinge_loss(halves),
        ):
            assert loss.dtype == torch.float32
    assert losses.covariance_loss(x).item() == pytest.approx(
        np.square(np.cov(x.numpy().T)).sum() / 16, rel=1e-5
    )
