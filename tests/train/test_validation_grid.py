"""The picture of a validation."""

import io

import numpy as np
import pytest
from PIL import Image

from models.task import ValidationOutput
from pipelines.figures.picture_grids import CELL_GAP
from pipelines.train.validation_grid import GRID_ROWS, encode_png_grid


def output(count, titles=(), columns=2):
    """Rows of pictures of 64 px, each of one grey."""
    greys = np.arange(count * columns).reshape(count, 1, columns, 1, 1) + 10
    row = np.broadcast_to(greys, (count, 64, columns, 64, 3)).reshape(count, 64, columns * 64, 3)
    return ValidationOutput(row=row.astype(np.uint8), titles=titles)


def opened(outputs):
    return np.asarray(Image.open(io.BytesIO(encode_png_grid(outputs))))


def test_the_first_rows_are_shown_enlarged():
    picture = opened([output(6), output(6)])
    assert picture.shape == (GRID_ROWS * 128, 256, 3)
    assert picture[6 * 128 : 7 * 128, :128].max() == 10  # the second batch begins


def test_each_picture_stands_under_its_title():
    picture = opened([output(2, ("source", "output"))])
    assert picture.shape[1] == 2 * (128 + CELL_GAP) + CELL_GAP
    for grey, column in ((12, 0), (13, 1)):  # of the last row
        left = CELL_GAP + column * (128 + CELL_GAP)
        cell = picture[-CELL_GAP - 128 : -CELL_GAP, left : left + 128]
        assert (cell == grey).all()


def test_titles_that_are_not_the_rows_are_an_error():
    with pytest.raises(ValueError, match="source, output: expected 2 pictures of side 64"):
        opened([output(1, ("source", "output"), columns=3)])
