import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.eval.metrics.temporal import flicker_per_frame, jitter_per_frame


def points(seed=0, frames=6):
    return np.random.default_rng(seed).normal(128, 30, (frames, 68, 2))


def test_flicker_is_the_difference_of_what_pixels_do(images):
    expected = np.abs(np.diff(images[1], axis=0) - np.diff(images[0], axis=0)).mean((1, 2, 3))
    values = flicker_per_frame(images[1], images[0])
    assert np.isnan(values[0])
    assert values[1:] == pytest.approx(expected, abs=1e-12)


def test_flicker_of_8_bit_frames_is_what_their_values_say(images_8_bit):
    floats = flicker_per_frame(*(one / 255 for one in images_8_bit))
    assert flicker_per_frame(*images_8_bit) == pytest.approx(floats, abs=1e-12, nan_ok=True)


def test_a_video_that_is_brighter_throughout_does_not_flicker(images):
    darker = images[0] / 2
    assert flicker_per_frame(darker + 0.3, darker)[1:] == pytest.approx([0] * 3, abs=1e-12)


def test_a_frozen_video_flickers_by_what_the_truth_moves(images):
    frozen = np.broadcast_to(images[0][:1], images[0].shape)
    expected = np.abs(np.diff(images[0], axis=0)).mean((1, 2, 3))
    assert flicker_per_frame(frozen, images[0])[1:] == pytest.approx(expected, abs=1e-12)


@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-20, 20), drift=st.floats(-5, 5))
def test_a_face_that_drifts_away_evenly_does_not_jitter(seed, shift, drift):
    truth = points(seed)
    time = np.arange(len(truth)).reshape(-1, 1, 1)
    values = jitter_per_frame(truth + shift + drift * time, truth)
    assert np.isnan(values[:2]).all()
    assert values[2:] == pytest.approx(np.zeros(len(truth) - 2), abs=1e-9)


def test_a_face_that_trembles_jitters_by_the_second_difference_of_its_steps():
    truth = points()
    trembling = truth.copy()
    trembling[::2, :, 0] += 1
    assert jitter_per_frame(trembling, truth)[2:] == pytest.approx([2] * 4)
    trembling[1::2, :, 0] -= 1
    assert jitter_per_frame(trembling, truth)[2:] == pytest.approx([4] * 4)


def test_a_frame_without_a_face_takes_the_value_of_two_more():
    prediction = points()
    prediction[3] = np.nan
    assert np.isfinite(jitter_per_frame(prediction, points(1))).tolist() == [0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_clips_too_short_to_tremble_have_no_value(frames, images):
    assert np.isnan(jitter_per_frame(points(frames=frames), points(frames=frames))).all()
    assert len(flicker_per_frame(images[0][:frames], images[1][:frames])) == frames
