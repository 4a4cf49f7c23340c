import numpy as np
import pytest

from pipelines.eval.metrics import METRICS, sum_frame_values
from pipelines.eval.metrics.landmarks import landmark_box_size
from pipelines.eval.metrics.lmd import (
    lmd_by_eyes_per_frame,
    lmd_centred_per_frame,
    lmd_raw_per_frame,
    lmd_sum_per_frame,
)


@pytest.mark.parametrize("backend", ["dlib", "mesh", "fan2d"])
@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("lmd", "mean_euclid_mouth_centred"),
        ("lmd_raw", "mean_euclid_raw"),
        ("f_lmd", "face_f_lmd_all68_mean_euclid"),
    ],
)
def test_lmd_is_the_golden_one(landmarks, golden, backend, form, name):
    metric = METRICS[f"{form}_{backend}"]
    value = metric.compute(sum_frame_values(metric.per_frame(*landmarks)))
    assert value == pytest.approx(golden["lmd"][name], abs=1e-9)


def test_atvgnets_sum_over_the_mouth_is_the_golden_one(landmarks, golden):
    metric = METRICS["lmd_sum20_dlib"]
    value = metric.compute(sum_frame_values(metric.per_frame(*landmarks)))
    assert value == pytest.approx(golden["lmd"]["sum20_mouth_centred_mean_over_frames"], abs=1e-9)


def test_lmd_of_each_frame_is_the_golden_one(landmarks, golden):
    values = lmd_centred_per_frame(*landmarks)
    assert values == pytest.approx(golden["lmd"]["per_frame_mean_centred"], abs=1e-9)


def test_lmd_over_the_size_of_the_face_is_the_golden_one(landmarks, golden):
    values = lmd_centred_per_frame(*landmarks) / landmark_box_size(landmarks[1])
    expected = golden["lmd"]["mean_euclid_centred_over_box_norm"]
    assert values.mean() == pytest.approx(expected, abs=1e-9)


def test_a_head_that_sits_elsewhere_costs_lmd_nothing_and_its_raw_form_the_shift(landmarks):
    shifted = landmarks[1] + [3, 4]
    assert lmd_centred_per_frame(shifted, landmarks[1]) == pytest.approx([0] * 3, abs=1e-9)
    assert lmd_raw_per_frame(shifted, landmarks[1]) == pytest.approx([5] * 3)


def test_only_points_of_the_mouth_count(landmarks):
    moved = landmarks[1].copy()
    moved[:, :48] += 50
    assert lmd_raw_per_frame(moved, landmarks[1]).tolist() == [0] * 3


def test_lmd_by_the_eyes_does_not_depend_on_the_size_of_the_face(landmarks):
    small = lmd_by_eyes_per_frame(*(one / 4 for one in landmarks))
    assert small == pytest.approx(lmd_by_eyes_per_frame(*landmarks))


def test_a_frame_without_a_face_has_no_lmd(landmarks):
    prediction, target = (one.copy() for one in landmarks)
    prediction[1], target[2] = np.nan, np.nan
    for form in (lmd_centred_per_frame, lmd_raw_per_frame, lmd_by_eyes_per_frame, lmd_sum_per_frame):
        assert np.isfinite(form(prediction, target)).tolist() == [True, False, False]
