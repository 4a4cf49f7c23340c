"""Validation's figures: named as evaluation names them, after the net that measured them."""

import numpy as np
import pytest

from models.task import ValidationOutput
from pipelines.train.validation_metrics import compute_validation_metrics


def pictures(level):
    return np.full((2, 16, 16, 3), level, np.uint8)


def landmarks_by_brightness(frames):
    """A stand-in net: 68 points whose x is the picture's level; no face in a black picture."""
    levels = frames.reshape(len(frames), -1).mean(axis=1)
    points = np.zeros((len(frames), 68, 2), np.float32)
    points[..., 0] = np.where(levels == 0, np.nan, levels)[:, None]
    return points


def figures(output, driving, source, landmarks):
    sample = ValidationOutput(
        row=pictures(output), output=pictures(output), driving=pictures(driving), source=pictures(source)
    )
    return compute_validation_metrics([sample], landmarks)


def test_landmark_distances_are_named_after_the_net():
    found = figures(30, 20, 60, lambda: landmarks_by_brightness)
    assert found["akd_l2_dlib"] == pytest.approx(10)
    assert (found["copy_akd_l2_dlib"], found["akd_l2_dlib_frames"]) == (pytest.approx(40), 2)
    assert found["l1"] == pytest.approx(10 / 255)
    assert "psnr" not in found
    assert "copy_psnr" in found


def test_a_distance_that_no_sample_allows_is_left_out():
    assert "akd_l2_dlib" not in figures(30, 20, 60, None)
    black = figures(0, 20, 60, lambda: landmarks_by_brightness)
    assert "akd_l2_dlib" not in black
    assert black["akd_l2_dlib_frames"] == 0
