from __future__ import annotations

import pytest
import torch
from torch.func import functional_call

from models.headgan import losses
from models.headgan.config import DiscriminatorConfig
from models.headgan.discriminator import (
    crop_around_centres,
    image_discriminator,
    mouth_centre,
    mouth_discriminator,
)


@pytest.fixture
def sizes() -> DiscriminatorConfig:
    return DiscriminatorConfig(width=4, max_width=16, mouth_size=16)


@torch.no_grad()
def test_predictions_have_the_published_sides(nano, sizes):
    discriminator = image_discriminator(sizes)
    scales = discriminator(torch.rand(1, 3, 256, 256), torch.rand(1, 3, 256, 256))
    assert [maps[-1].shape for maps in scales] == [(1, 1, 35, 35), (1, 1, 19, 19)]
    assert [len(maps) for maps in scales] == [5, 5]
    mouths = mouth_discriminator(sizes, nano.audio)(torch.rand(1, 5), torch.rand(1, 3, 64, 64))
    assert [maps[-1].shape[-1] for maps in mouths] == [11, 7]


@torch.no_grad()
def test_samples_do_not_see_each_other(nano, sizes):
    discriminator = image_discriminator(sizes).eval()
    given, images = torch.rand(3, 3, 32, 32), torch.rand(3, 3, 32, 32)
    together, alone = discriminator(given, images), discriminator(given[1:2], images[1:2])
    for maps, single in zip(together, alone, strict=True):
        torch.testing.assert_close(maps[-1][1:2], single[-1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_audio_is_told_at_every_pixel(nano, sizes):
    discriminator = mouth_discriminator(sizes, nano.audio).eval()
    audio, mouth = torch.rand(2, 5), torch.rand(2, 3, 16, 16)
    spread = audio[..., None, None].expand(-1, -1, 16, 16)
    assert torch.equal(discriminator(audio, mouth)[1][-1], discriminator(spread, mouth)[1][-1])


def test_a_generator_learns_through_a_discriminator_whose_weights_are_held(nano, sizes):
    discriminator = image_discriminator(sizes)
    held = {name: tensor.detach() for name, tensor in discriminator.state_dict(keep_vars=True).items()}
    image = torch.rand(2, 3, 32, 32, requires_grad=True)
    scales = functional_call(discriminator, held, (torch.rand(2, 3, 32, 32), image))
    losses.generator_gan_loss(scales).backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in discriminator.parameters())


@torch.no_grad()
def test_a_net_that_hears_nothing_has_a_mouth_discriminator_of_pictures(nano, sizes):
    discriminator = mouth_discriminator(sizes, 0)
    assert discriminator(None, torch.rand(1, 3, 16, 16))[0][-1].shape[1] == 1


@torch.no_grad()
# --- the mouth ----------------------------------------------------------------------------------------------
def test_the_centre_is_the_median_of_the_mouths_points():
    landmarks = torch.zeros(2, 70, 2)
    landmarks[:, 48:68, 0] = torch.arange(20.0) + 100  # median 109.5
    landmarks[:, 48:68, 1] = 55.9
    landmarks[:, 68:] = 9e9  # pupils, which do not count
    assert mouth_centre(landmarks).tolist() == [[109, 55]] * 2
    assert mouth_centre(landmarks).dtype == torch.int64


def test_landmarks_of_another_scheme_are_an_error():
    with pytest.raises(ValueError, match=r"landmarks \(2, 5, 2\): expected"):
        mouth_centre(torch.zeros(2, 5, 2))


def test_each_image_is_cropped_round_its_own_centre_and_gets_the_gradient():
    images = torch.rand(2, 3, 20, 24, requires_grad=True)
    centres = torch.tensor([[10, 8], [100, -5]])  # the second one outside
    cropped = crop_around_centres(images, centres, 8)
    assert torch.equal(cropped[0], images[0, :, 4:12, 6:14])
    assert torch.equal(cropped[1], images[1, :, :8, 16:])
    cropped.sum().backward()
    assert images.grad is not None
    assert images.grad.sum() == cropped.numel()
    assert images.grad[0, 0, 4, 6] == 1


def test_a_crop_larger_than_the_image_is_an_error():
    with pytest.raises(ValueError, match="a crop of 32 pixels from images of 16 x 24"):
        crop_around_centres(torch.rand(1, 3, 16, 24), torch.tensor([[8, 8]]), 32)
