import numpy as np
import pytest

from pipelines.eval.metrics.pictures import absolute_difference, check_pictures, to_pixel_values


def test_formula_images_are_the_ones_the_golden_file_was_made_from(images_8_bit, golden):
    checks = golden["images"]["checks"]
    assert [int(one.sum()) for one in images_8_bit] == [checks["A8_sum"], checks["B8_sum"]]


def test_differences_of_8_bit_pixels_are_whole_numbers():
    first, second = np.array([[[0, 200, 7]]], np.uint8), np.array([[[255, 190, 7]]], np.uint8)
    assert absolute_difference(first, second).tolist() == [[[255, 10, 0]]]


def test_8_bit_pixels_and_floats_differ_by_what_their_values_say():
    frame = np.full((2, 2, 3), 51, np.uint8)
    assert absolute_difference(frame, np.full((2, 2, 3), 0.5)) == pytest.approx(76.5)
    assert to_pixel_values(np.full(3, 0.2)) == pytest.approx(51)


def test_frames_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"prediction \(1, 8, 8, 3\) and target \(1, 4, 4, 3\)"):
        check_pictures(np.zeros((1, 8, 8, 3)), np.zeros((1, 4, 4, 3)))


def test_grey_frames_are_refused():
    with pytest.raises(ValueError, match=r"expected two equal \(T,H,W,3\)"):
        check_pictures(np.zeros((1, 8, 8)), np.zeros((1, 8, 8)))


def test_frames_without_a_pixel_are_refused():
    with pytest.raises(ValueError, match="0 x 8 pixels"):
        check_pictures(np.zeros((1, 0, 8, 3)), np.zeros((1, 0, 8, 3)))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_frames_with_nan_are_named(wrong):
    good = np.zeros((4, 2, 2, 3))
    bad = good.copy()
    bad[2, 1, 1, 0] = wrong
    with pytest.raises(ValueError, match="prediction: NaN or infinite pixels in frame 2, 1 of 4"):
        check_pictures(bad, good)
    with pytest.raises(ValueError, match="target: NaN"):
        check_pictures(good, bad)
