from __future__ import annotations

import pytest
import torch

from models.headgan import losses
from models.perception.vgg19 import IMAGENET_MEAN, IMAGENET_STD, load_random_vgg19


def outputs(*predictions: float) -> list[list[torch.Tensor]]:
    """One scale for each prediction, with one map before it."""
    return [[torch.rand(2, 3, 4, 4), torch.full((2, 1, 5, 5), prediction)] for prediction in predictions]


def test_predictions_beyond_the_margin_cost_nothing():
    assert losses.real_hinge_loss(outputs(1.0, 7.0)) == 0
    assert losses.fake_hinge_loss(outputs(-1.0, -7.0)) == 0
    assert losses.real_hinge_loss(outputs(0.5, 1.5)) == 0.25
    assert losses.fake_hinge_loss(outputs(0.5, -1.5)) == 0.75


def test_the_generator_wants_high_predictions():
    assert losses.generator_gan_loss(outputs(2.0, -1.0)) == -0.5


def test_feature_matching_sees_a_constant_shift_of_maps_but_not_of_predictions():
    real = [[torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4), torch.zeros(1)] for _ in range(2)]
    shifted = [[maps[0] + 0.5, maps[1], maps[2] + 9] for maps in real]
    assert losses.feature_matching_loss(real, real) == 0
    # weight 4 / 3 convolutions, the same at both scales
    assert losses.feature_matching_loss(shifted, real).item() == pytest.approx(0.5 * 4 / 3)
    with pytest.raises(ValueError, match="zip"):
        losses.feature_matching_loss(shifted[:1], real)


def test_no_gradient_reaches_the_real_side():
    fake, real = torch.rand(2, requires_grad=True), torch.rand(2, requires_grad=True)
    total = losses.feature_matching_loss([[fake, fake]], [[real, real]])
    (total + losses.perceptual_loss([fake], [real], [1.0])).backward()
    assert fake.grad is not None
    assert real.grad is None


def test_masked_pixels_do_not_count_but_are_divided_by():
    condition = torch.zeros(1, 3, 4, 4)
    condition[:, 1, :2] = 0.02
    counted = losses.head_mask(condition)
    assert counted.shape == (1, 1, 4, 4)
    gap = losses.pixel_l1_loss(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4), counted)
    assert gap == 0.5


def test_perceptual_weighs_each_map():
    rendered, target = [torch.zeros(1, 2, 3, 3)] * 5, [torch.ones(1, 2, 3, 3)] * 5
    flat = losses.perceptual_loss(rendered, target, (1.0,) * 5)
    assert flat == 5
    assert losses.perceptual_loss(rendered, target, (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)).item() == 1 + 15 / 32


@pytest.mark.parametrize("normalised", [False, True])
def test_vgg_sees_images_as_they_are_or_normalised(normalised):
    vgg, images = load_random_vgg19({}), torch.rand(1, 3, 16, 16) * 2 - 1
    seen = images
    if normalised:
        seen = ((images + 1) / 2 - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(
            IMAGENET_STD
        ).view(3, 1, 1)
    first = vgg.features(losses.perceptual_net_input(images, normalised))[0]
    expected = vgg._net.features[0](seen).relu()
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-5)


def test_the_mask_should_be_the_union_of_both_foregrounds():
    found = torch.ones(1, 1, 2, 2)
    driving, reference = (
        torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]]),
        torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]]),
    )
    assert losses.mask_loss(found, driving, reference) == 0.25


def test_all_terms_are_float32_for_half_precision():
    half = torch.rand(1, 3, 4, 4).bfloat16()
    some = [[half, half]]
    for value in (
        losses.real_hinge_loss(some),
        losses.fake_hinge_loss(some),
        losses.generator_gan_loss(some),
        losses.feature_matching_loss(some, some),
        losses.pixel_l1_loss(half, half, losses.head_mask(half)),
        losses.perceptual_loss([half], [half], [1.0]),
        losses.mask_loss(half, half, half),
    ):
        assert value.dtype == torch.float32
