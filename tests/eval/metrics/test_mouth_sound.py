"""Mouths that open as a sound grows loud, sooner or later."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.eval.metrics import METRICS
from pipelines.eval.metrics.mouth_sound import (
    lagged_correlations,
    mouth_opening,
    mouth_sound_correlation,
    mouth_sound_lag,
    mouth_sound_lag_size,
)

T = 60


def syllables(frames=T, seed=0):
    """Loudness (frames,) of speech: bursts of some five frames, never the same."""
    rng = np.random.default_rng(seed)
    return np.interp(
        np.arange(frames), np.arange(0, frames + 3, 3), rng.uniform(0, 0.3, len(range(0, frames + 3, 3)))
    )


def at_lags(loudness):
    """(T,) -> (T,11): the sound five frames later first; NaN beyond the ends."""
    padded = np.pad(loudness, 5, constant_values=np.nan)
    return np.stack([padded[5 - lag : len(padded) - 5 - lag] for lag in range(-5, 6)], axis=1)


def face(opening):
    """Opening (T,) in eye distances -> landmarks (T,68,2) whose inner lips are so far apart."""
    points = np.zeros((len(opening), 68, 2))
    points[:, 36], points[:, 45] = (80, 100), (180, 100)
    for upper, lower in ((61, 67), (62, 66), (63, 65)):
        points[:, upper, 1], points[:, lower, 1] = 180, 180 + 100 * np.asarray(opening)
    return points


def test_the_opening_is_in_distances_of_the_eyes_at_any_size():
    opening = syllables()
    np.testing.assert_allclose(mouth_opening(face(opening)), opening, atol=1e-12)
    np.testing.assert_allclose(mouth_opening(0.3 * face(opening) + 7), opening, atol=1e-12)


def test_a_mouth_that_follows_the_sound_correlates_at_lag_0():
    loudness = syllables()
    landmarks = face(0.05 + 0.8 * loudness)
    assert mouth_sound_correlation(landmarks, at_lags(loudness)) == pytest.approx(1)
    assert mouth_sound_lag(landmarks, at_lags(loudness)) == 0


@pytest.mark.parametrize("frames", [1, 3, 5])
def test_sound_that_is_delayed_moves_the_lag_by_as_many_frames(frames):
    loudness = syllables()
    late = np.concatenate([np.zeros(frames), loudness])[:T]
    assert mouth_sound_lag(face(loudness), at_lags(late)) == -frames
    assert mouth_sound_lag(face(late), at_lags(loudness)) == frames
    assert mouth_sound_lag_size(face(loudness), at_lags(late)) == frames
    assert mouth_sound_correlation(face(loudness), at_lags(late)) == pytest.approx(1)


def test_a_delay_beyond_the_lags_loses_the_correlation():
    loudness = syllables(200)
    late = np.concatenate([np.zeros(20), loudness])[:200]
    assert mouth_sound_correlation(face(loudness), at_lags(late)) < 0.5


def test_each_lag_is_numpys_correlation_of_the_frames_that_both_have():
    opening, loudness = syllables(seed=1), syllables(seed=2)
    found = lagged_correlations(opening, at_lags(loudness))
    assert found[5] == pytest.approx(np.corrcoef(opening, loudness)[0, 1])
    assert found[5 + 3] == pytest.approx(np.corrcoef(opening[3:], loudness[:-3])[0, 1])
    assert found[5 - 4] == pytest.approx(np.corrcoef(opening[:-4], loudness[4:])[0, 1])


@given(st.floats(0.1, 10), st.floats(-3, 3))
def test_units_do_not_matter(scale, shift):
    opening, loudness = syllables(seed=3), syllables(seed=4)
    np.testing.assert_allclose(
        lagged_correlations(scale * opening + shift, at_lags(loudness)),
        lagged_correlations(opening, at_lags(loudness)),
        atol=1e-9,
    )


def test_frames_without_a_face_do_not_count():
    loudness = syllables()
    landmarks = face(loudness)
    landmarks[10:14] = np.nan
    assert mouth_sound_correlation(landmarks, at_lags(loudness)) == pytest.approx(1)
    assert mouth_sound_lag(landmarks, at_lags(loudness)) == 0


@pytest.mark.parametrize(
    ("opening", "loudness"),
    [
        (syllables(), np.zeros(T)),  # silence
        (syllables(), np.full(T, np.nan)),  # a clip without sound
        (np.full(T, 0.1), syllables()),  # a still picture
        (np.full(T, np.nan), syllables()),  # no face
        (syllables(9), syllables(9)),  # too short to tell
    ],
)
def test_silence_stillness_and_short_clips_have_no_value(opening, loudness):
    assert np.isnan(mouth_sound_correlation(face(opening), at_lags(loudness)))
    assert np.isnan(mouth_sound_lag(face(opening), at_lags(loudness)))


def test_both_are_compared_with_the_driving_sound_in_every_protocol():
    for name in ("mouth_sound_corr_mesh", "mouth_sound_lag_mesh"):
        metric = METRICS[name]
        assert metric.compared_with == ("sound.loudness", "loudness")
        assert (metric.reference_in(True), metric.reference_in(False)) == ("truth", "driving")
