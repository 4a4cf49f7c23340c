import pytest
import torch

from models.fsrt.pixel_sampling import LatticePixels, RandomPixels, merge_pixel_lattices, split_pixel_lattices

SIDE = 6
NUMBERED = torch.arange(SIDE * SIDE).view(SIDE, SIDE, 1)


def test_a_lattice_is_every_second_pixel_of_every_second_row():
    found = split_pixel_lattices(NUMBERED)
    for dy in (0, 1):
        for dx in (0, 1):
            expected = NUMBERED[dy::2, dx::2].flatten(0, 1)
            assert torch.equal(found[2 * dy + dx], expected)


def test_lattices_join_to_the_image_again():
    image = merge_pixel_lattices(split_pixel_lattices(NUMBERED).unsqueeze(0))
    assert torch.equal(image, NUMBERED.permute(2, 0, 1).unsqueeze(0))


def random_quarter() -> RandomPixels:
    torch.manual_seed(0)
    queries = torch.stack([torch.randperm(SIDE * SIDE)[: SIDE * SIDE // 4] for _ in range(3)])
    return RandomPixels(queries, SIDE)


@pytest.mark.parametrize(
    "quarter",
    [LatticePixels(torch.tensor([[0, 0], [1, 0], [1, 1]]), SIDE), random_quarter()],
    ids=["lattice", "random"],
)
def test_parts_hold_each_pixel_once_and_compose_to_the_image(quarter):
    table = quarter.flatten_pixel_grid(NUMBERED)
    parts = [quarter.gather_pixels(table, part) for part in range(quarter.parts)]
    assert [part.shape[1] for part in parts] == quarter.count
    assert quarter.count[0] == SIDE * SIDE / 4
    image = quarter.compose_image_from_parts(parts)
    assert torch.equal(image, NUMBERED.permute(2, 0, 1).expand(3, 1, SIDE, SIDE))


@pytest.mark.parametrize(
    "quarter",
    [LatticePixels(torch.tensor([[0, 1], [1, 0], [1, 1]]), SIDE), random_quarter()],
    ids=["lattice", "random"],
)
def test_rows_can_be_asked_for_piece_by_piece(quarter):
    table = quarter.flatten_pixel_grid(NUMBERED)
    pieces = [
        quarter.gather_pixels(table, 1, slice(start, start + 4)) for start in range(0, quarter.count[1], 4)
    ]
    assert torch.equal(torch.cat(pieces, dim=1), quarter.gather_pixels(table, 1))


def test_the_corner_says_which_lattice_is_rendered():
    quarter = LatticePixels(torch.tensor([[1, 0]]), SIDE)
    rows = quarter.gather_pixels(quarter.flatten_pixel_grid(NUMBERED), 0)
    assert torch.equal(rows[0], NUMBERED[1::2, 0::2].flatten(0, 1))


def test_a_lattice_alone_is_an_image_of_half_the_side():
    corners = torch.tensor([[0, 1], [1, 1]])
    quarter = LatticePixels(corners, SIDE)
    images = torch.rand(2, 3, SIDE, SIDE)
    expected = torch.stack(
        [image[:, dy::2, dx::2] for image, (dy, dx) in zip(images, corners.tolist(), strict=True)]
    )
    assert torch.equal(quarter.subsample_images(images), expected)
    rows = quarter.gather_pixels(quarter.flatten_pixel_grid(NUMBERED), 0)
    assert torch.equal(quarter.quarter_to_half_size_image(rows)[0], NUMBERED[0::2, 1::2].permute(2, 0, 1))


@pytest.mark.parametrize("kind", ["lattice", "random"])
def test_the_gradient_of_shared_rows_is_the_same_in_every_run(kind):
    side, samples = 64, 8
    generator = torch.Generator().manual_seed(0)
    if kind == "lattice":
        quarter = LatticePixels(torch.zeros(samples, 2, dtype=torch.int64), side)
    else:
        orders = [
            torch.randperm(side * side, generator=generator)[: side * side // 4] for _ in range(samples)
        ]
        quarter = RandomPixels(torch.stack(orders), side)
    table = quarter.flatten_pixel_grid(torch.rand(side, side, 64, generator=generator)).requires_grad_()
    weights = torch.rand(samples, side * side // 4, 64, generator=generator)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        found = [
            torch.autograd.grad((quarter.gather_pixels(table, 0) * weights).sum(), table)[0] for _ in range(8)
        ]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, found[0]) for one in found[1:])
