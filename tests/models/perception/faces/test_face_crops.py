import numpy as np
import pytest
import torch

from models.perception.faces.face_crops import CropSquares, crop_to_image_points, sample_crops


def square(x, y, side, angle=0.0, dtype=torch.float64):
    values = ([[x, y]], [side], [angle])
    return CropSquares(*(torch.tensor(one, dtype=dtype) for one in values))


@pytest.fixture
def image():
    source = torch.Generator().manual_seed(5)
    return torch.rand((1, 3, 20, 30), generator=source, dtype=torch.float64)


def test_a_square_on_whole_pixels_is_those_pixels(image):
    crop = sample_crops(image, square(13, 8, 12), 12)
    torch.testing.assert_close(crop, image[:, :, 2:14, 7:19])


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_square_is_the_turned_crop(image, turns):
    crop = sample_crops(image, square(13, 8, 12, turns * np.pi / 2), 12)
    torch.testing.assert_close(crop, torch.rot90(image[:, :, 2:14, 7:19], turns, (2, 3)))


def test_outside_the_image_its_border_is_repeated(image):
    crop = sample_crops(image, square(0, 0, 8), 8)
    torch.testing.assert_close(crop[0, :, 4:, 4:], image[0, :, :4, :4])
    torch.testing.assert_close(crop[0, :, :4, :4], image[0, :, :1, :1].expand(3, 4, 4))


def test_places_in_a_crop_are_where_its_pixels_came_from(image):
    """An image of its own coordinates, linear, is sampled without error."""
    y, x = torch.meshgrid(torch.arange(20) + 0.5, torch.arange(30) + 0.5, indexing="ij")
    coordinates = torch.stack([x, y, x])[None].double()
    at = square(14, 9, 9, 0.4)
    crop = sample_crops(coordinates, at, 6)  # (1,3,6,6)
    column, row = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="xy")
    points = ((torch.stack([column, row], dim=-1) + 0.5) / 6).reshape(1, 36, 2).double()
    torch.testing.assert_close(crop_to_image_points(points, at), crop[:, :2].flatten(2).transpose(1, 2))


def test_depth_is_scaled_and_not_turned():
    points = torch.tensor([[[0.5, 0.5, 0.25]]], dtype=torch.float64)
    found = crop_to_image_points(points, square(7, 8, 12, 1.0))
    torch.testing.assert_close(found[0, 0], torch.tensor([7.0, 8.0, 3.0], dtype=torch.float64))


def test_a_wide_square_is_averaged_before_it_is_sampled():
    stripes = torch.zeros((1, 1, 64, 64), dtype=torch.float64)
    stripes[..., ::2] = 1
    crop = sample_crops(stripes, square(32, 32, 48), 8)
    torch.testing.assert_close(crop, torch.full_like(crop, 0.5))


def test_squares_of_different_sizes_do_not_change_each_other(image):
    images = image.repeat(3, 1, 1, 1)
    sides = (6.0, 17.0, 30.0)
    together = CropSquares(
        torch.tensor([[13.0, 8.0]] * 3).double(), torch.tensor(sides).double(), torch.zeros(3).double()
    )
    alone = torch.cat([sample_crops(image, square(13, 8, side), 6) for side in sides])
    torch.testing.assert_close(sample_crops(images, together, 6), alone)


def test_gradient_reaches_the_image(image):
    image = image[:, :1, :7, :8].clone().requires_grad_()

    def crop(image):
        return sample_crops(image, square(4.2, 3.1, 5, 0.3), 3)

    assert torch.autograd.gradcheck(crop, (image,), atol=1e-6)


@pytest.mark.parametrize("side", [90.0, 141.8, 700.0])
def test_opencv_samples_as_torch_does(side):
    images = torch.rand((2, 3, 200, 180), generator=torch.Generator().manual_seed(3))
    squares = CropSquares(
        torch.tensor([[80.3, 60.7], [10.2, 190.1]]), torch.tensor([side, side]), torch.tensor([0.3, -2.1])
    )
    by_opencv = sample_crops(images, squares, 192)
    by_torch = sample_crops(images.double(), CropSquares(*(one.double() for one in squares)), 192)
    torch.testing.assert_close(by_opencv.double(), by_torch, atol=5e-5, rtol=0)


@pytest.mark.parametrize("side", [150.0, 500.0])  # of 192 px, and of twice that, averaged
def test_bytes_count_in_255ths(side):
    images = torch.randint(0, 256, (2, 3, 600, 600), dtype=torch.uint8, generator=torch.manual_seed(0))
    at = square(300, 280, side, 0.3)
    squares = CropSquares(*(one.repeat(2, *[1] * (one.ndim - 1)) for one in at))
    torch.testing.assert_close(sample_crops(images, squares, 192), sample_crops(images / 255, squares, 192))
