import numpy as np
import pytest

from pipelines.preprocess.boxes import enlarge_box, largest_box, median_filter_boxes, pad_box


def test_the_largest_box_is_that_of_most_pixels_and_the_first_of_equals():
    boxes = np.array([[0, 0, 4, 4, 0.9], [0, 0, 2, 9, 0.1], [5, 5, 14, 7, 0.5]])
    assert largest_box(boxes).tolist() == boxes[1].tolist()


@pytest.mark.parametrize(
    ("aspect", "expected"), [("stretch", [-1, -2, 11, 22]), ("square", [-7, -2, 17, 22])]
)
def test_a_box_grows_by_a_share_of_its_sides_and_becomes_square(aspect, expected):
    grown = enlarge_box(np.array([0.0, 0, 10, 20]), 0.1, aspect)
    assert grown == pytest.approx(expected)


def test_a_margin_is_a_share_of_each_side():
    assert pad_box(np.array([0.0, 0, 10, 20]), 0.5).tolist() == [-5, -10, 15, 30]


def test_the_median_takes_out_a_single_jump_and_keeps_the_ends():
    boxes = np.tile(np.array([0, 0, 8, 8], np.float32), (7, 1))
    boxes[3] += 100
    assert (median_filter_boxes(boxes, 3) == boxes[0]).all()
    assert median_filter_boxes(boxes, 1) is boxes
