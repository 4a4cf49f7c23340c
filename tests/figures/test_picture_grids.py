import numpy as np
import pytest

from pipelines.figures import picture_grids
from tests.moving_square import moving_square


def test_shrinking_by_a_whole_factor_is_the_block_mean():
    frames = moving_square()
    blocks = (frames / 255.0).reshape(6, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(picture_grids.resize_frames(frames, 32), blocks, atol=1e-12)


@pytest.mark.parametrize("size", [17, 48, 64, 100])
def test_resizing_keeps_a_flat_picture_flat(size):
    flat = np.full((2, 64, 48, 3), 0.3)
    np.testing.assert_allclose(picture_grids.resize_frames(flat, size), 0.3, atol=1e-12)


def test_shrinking_by_any_factor_keeps_the_mean():
    noise = np.random.default_rng(0).random((1, 50, 50, 3))
    assert picture_grids.resize_frames(noise, 37).mean() == pytest.approx(noise.mean(), abs=1e-9)


def test_resizing_to_the_same_size_changes_nothing():
    frames = moving_square()
    np.testing.assert_array_equal(picture_grids.to_uint8(picture_grids.resize_frames(frames, 64)), frames)


def test_to_uint8_rounds_instead_of_truncating():
    assert picture_grids.to_uint8(np.array([0.5 / 255, 0.499 / 255, 2.0, -1.0])).tolist() == [1, 0, 255, 0]


def test_equal_pictures_have_a_black_error_map():
    image = np.full((4, 4, 3), 0.4)
    assert picture_grids.make_error_map(image, image).max() == 0


def test_a_grid_holds_its_cells_unchanged():
    cells = [f for f in moving_square(3)]
    image = picture_grids.picture_grid([cells, cells], ["one", "two", "three"], ["clip a", "clip b"])
    top = 22 + 2 * picture_grids.CELL_GAP
    x = picture_grids.CELL_GAP + 64 + picture_grids.CELL_GAP
    np.testing.assert_array_equal(image[top : top + 64, x : x + 64], cells[1])


def test_a_row_that_does_not_fit_the_titles_is_refused():
    with pytest.raises(ValueError, match="2 titles"):
        picture_grids.picture_grid([moving_square(3)], ["a", "b"])


def test_long_text_is_cut_to_the_strip():
    assert picture_grids.render_text("keypoint detector: distilled from dlib landmarks " * 3, 80).shape == (
        22,
        80,
        3,
    )


def test_the_same_image_gives_the_same_png_bytes():
    image = moving_square(1)[0]
    assert picture_grids.encode_png(image) == picture_grids.encode_png(image)


def test_side_by_side_frames_have_even_sides():
    video = picture_grids.side_by_side_video([moving_square(2, 63)] * 3, ["a", "b", "c"], "random weights")
    assert video.shape[1] % 2 == 0
    assert video.shape[2] % 2 == 0


def test_landmarks_are_drawn_where_they_are():
    image = np.full((20, 20, 3), 100, np.uint8)
    picture_grids.overlay_points(image, np.array([[5.4, 9.2], [np.nan, np.nan]]))
    assert (image[9, 5] == 255).all()
    assert (image[0, 0] == 100).all()


def test_a_box_is_outlined_and_cut_to_the_image():
    image = np.zeros((20, 20, 3), np.uint8)
    picture_grids.overlay_box(image, np.array([5.0, 6, 30, 12]), (1, 2, 3))
    assert (image[6, 5:20] == (1, 2, 3)).all()
    assert (image[10:12, 5:20] == (1, 2, 3)).all()
    assert image.any(axis=2).sum() == 4 * 15 + 2 * 2
    before = image.copy()
    picture_grids.overlay_box(image, np.full(4, np.nan), (9, 9, 9))
    assert (image == before).all()
