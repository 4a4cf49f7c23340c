import numpy as np
import pytest

from pipelines.eval.metrics.blink import blink_f1, openness_difference_per_frame, shut_agreement

OPEN, SHUT = 0.26, 0.05


def eyes(marks):
    """ "--x-": a frame a mark, x = eyes shut, ? = no face."""
    values = {"-": OPEN, "x": SHUT, "?": np.nan}
    return np.array([[values[mark]] * 2 for mark in marks], np.float32)


def test_an_eye_that_is_shut_beside_an_open_one_differs_by_half_of_its_openness():
    a, b = np.array([[0.3, 0.3]]), np.array([[0.0, 0.3]])
    assert openness_difference_per_frame(a, b) == pytest.approx(15.0)


@pytest.mark.parametrize(
    ("generated", "real", "agreement", "f1"),
    [
        ("---xx-----xx---", "---xx-----xx---", 1, 1),
        ("---------------", "---xx----------", 13 / 15, 0),  # none of one blink
        ("---xx----------", "---xx-----xx---", 13 / 15, 2 / 3),  # one of two
        ("----xx---------", "---xx----------", 13 / 15, 1),  # a frame late
        ("-----------xx--", "---xx----------", 11 / 15, 0),  # another time
        ("---------------", "---------------", 1, np.nan),  # nothing to find
    ],
)
def test_blinks_agree_when_they_meet(generated, real, agreement, f1):
    assert shut_agreement(eyes(generated), eyes(real)) == pytest.approx(agreement)
    assert blink_f1(eyes(generated), eyes(real)) == pytest.approx(f1, nan_ok=True)


@pytest.mark.parametrize(("late", "expected"), [(2, 1), (3, 1), (4, 0)])
def test_a_blink_of_one_frame_may_miss_by_two_frames_between(late, expected):
    real = "--x---------"
    generated = "--" + "-" * late + "x" + "-" * (9 - late)
    assert blink_f1(eyes(generated), eyes(real)) == expected


def test_what_the_net_sees_too_narrow_on_both_sides_falls_out():
    generated, real = eyes("--xx----"), eyes("--xx----")
    assert blink_f1(generated * 0.6, real * 0.6) == 1


def test_eyes_that_are_never_open_enough_count_as_shut():
    assert shut_agreement(eyes("--------") * 0.4, eyes("--------")) == 0


def test_frames_without_a_face_on_either_side_do_not_count():
    assert shut_agreement(eyes("?-x-----"), eyes("x-x---?-")) == 1
    assert blink_f1(eyes("?-x-----"), eyes("x-------")) == 0
    assert np.isnan(shut_agreement(eyes("????"), eyes("----")))
    assert np.isnan(blink_f1(eyes("????"), eyes("????")))


def test_openness_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"expected two equal \(T,2\)"):
        blink_f1(np.zeros((3, 1)), np.zeros((3, 1)))
