import pytest
import torch

from models.fsrt.config import DiscriminatorConfig
from models.fsrt.discriminator import Discriminator, keypoint_heatmaps

SMALL = DiscriminatorConfig(size=32, width=2, max_width=8, blocks=3)


def test_a_map_peaks_at_its_keypoint():
    maps = keypoint_heatmaps(torch.tensor([[[0.5, -0.25], [3.0, 0.0]]]), 33, 0.01)
    assert maps.shape == (1, 2, 33, 33)
    peak = divmod(int(maps[0, 0].argmax()), 33)
    assert peak == (12, 24)  # y -0.25, x 0.5 on 33 pixels from -1 to 1
    assert maps[0, 0].max().item() == pytest.approx(1)
    assert maps[0, 1].max() < 1e-12  # far outside: nothing to see


def test_it_sees_where_the_keypoints_are():
    torch.manual_seed(0)
    net, image = Discriminator(SMALL, 4), torch.rand(1, 3, 32, 32)
    here, there = (net(image, torch.full((1, 4, 2), place))[1] for place in (0.0, 0.5))
    assert not torch.allclose(here, there)


def test_without_keypoints_it_gets_no_maps_of_them():
    net = Discriminator(SMALL, 0)
    assert net.discs["1"].down_blocks[0].conv.weight.shape[1] == 3
    keypoints = torch.zeros(1, 10, 2)
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(net(image, keypoints)[1], net(image, keypoints + 0.5)[1])


def test_sides_and_channels_are_those_of_the_settings():
    net, image = Discriminator(SMALL, 4), torch.rand(2, 3, 32, 32)
    maps, predictions = net(image, torch.zeros(2, 4, 2))
    assert [m.shape[1] for m in maps] == SMALL.channels == [4, 8, 8]
    assert [m.shape[2] for m in maps] == [14, 5, 2]
    assert predictions.shape == (2, 1, SMALL.output_size, SMALL.output_size)


def test_images_of_another_size_are_resized_with_their_corners_in_place():
    net, image = Discriminator(SMALL, 4), torch.rand(1, 3, 16, 16)
    large = torch.nn.functional.interpolate(image, (32, 32), mode="bilinear", align_corners=True)
    keypoints = torch.zeros(1, 4, 2)
    assert torch.equal(net(image, keypoints)[1], net(large, keypoints)[1])


def test_keypoints_get_no_gradient():
    keypoints = torch.zeros(1, 4, 2, requires_grad=True)
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    Discriminator(SMALL, 4)(image, keypoints)[1].sum().backward()
    assert keypoints.grad is None
    assert image.grad is not None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: DiscriminatorConfig(size=60),
            r"size 60: 4 blocks leave fewer than 2 pixels of it; expected 61 or more",
        ),
        (lambda: DiscriminatorConfig(size=12, blocks=2), r"expected 13 or more"),
        (lambda: DiscriminatorConfig(variance=0), "variance 0"),
    ],
)
def test_impossible_sizes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_least_size_works():
    least = DiscriminatorConfig(size=61, width=2, max_width=8)
    assert least.output_size == 2
    Discriminator(least, 0)(torch.rand(1, 3, 61, 61), torch.zeros(1, 10, 2))
