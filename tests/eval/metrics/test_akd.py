import numpy as np
import pytest

from pipelines.eval.metrics import akd

ALL = np.ones(3, dtype=bool)


def test_akd_l1_is_the_golden_one(landmarks, golden):
    value = akd.compute(akd.update_l1(*landmarks, ALL))
    assert value == pytest.approx(golden["landmarks"]["akd_fomm_l1_mean"], abs=1e-12)


def test_akd_l2_is_the_golden_one(landmarks, golden):
    value = akd.compute(akd.update_l2(*landmarks, ALL))
    assert value == pytest.approx(golden["landmarks"]["akd_euclidean_mean"], abs=1e-12)


def test_frames_left_out_are_counted_and_do_not_move_the_mean(landmarks, golden):
    sums = akd.update_l1(*landmarks, np.array([True, False, True]))
    per_frame = golden["landmarks"]["akd_fomm_per_frame"]
    assert (sums.n, sums.missing) == (2, 1)
    assert akd.compute(sums) == pytest.approx((per_frame[0] + per_frame[2]) / 2, abs=1e-12)


def test_a_method_without_a_face_is_named_as_the_one_that_lost_it(landmarks):
    prediction = landmarks[0].copy()
    prediction[1] = np.nan
    sums = akd.update_l1(prediction, landmarks[1], np.array([True, False, True]))
    assert (sums.missing, sums.undetected) == (1, 1)


def test_keeping_a_frame_without_a_face_is_an_error(landmarks):
    prediction = landmarks[0].copy()
    prediction[1] = np.nan
    with pytest.raises(ValueError, match="intersection over all methods"):
        akd.update_l1(prediction, landmarks[1], ALL)


def test_no_face_anywhere_gives_nan(landmarks):
    assert np.isnan(akd.compute(akd.update_l1(*landmarks, ~ALL)))
