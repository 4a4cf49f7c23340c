import numpy as np
import pytest

from models.errors import InvalidFile
from models.headgan.audio import select_audio_vectors
from models.headgan.config import AudioFeatureConfig

WAV2VEC = AudioFeatureConfig(window=8, normalise=True)


def impulse(frame, frames=30, features=3):
    speech = np.zeros((frames, features), np.float32)
    speech[frame] = 1
    return speech


def frames_that_hear(frame, how):
    return np.flatnonzero(select_audio_vectors(impulse(frame), range(30), how)[:, 0]).tolist()


def test_vectors_that_hold_a_window_already_are_taken_as_they_are():
    speech = np.random.default_rng(0).normal(size=(10, 300)).astype(np.float16)
    found = select_audio_vectors(speech, [3, 0], AudioFeatureConfig())
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, speech[[3, 0]].astype(np.float32))


def test_a_click_is_heard_as_far_ahead_as_behind():
    assert frames_that_hear(15, AudioFeatureConfig(window=8)) == list(range(11, 20))
    weights = select_audio_vectors(impulse(15), range(30), AudioFeatureConfig(window=8))[11:20, 0]
    np.testing.assert_allclose(weights, [1 / 16, *[1 / 8] * 7, 1 / 16])


def test_the_authors_hear_a_click_before_it_comes():
    assert frames_that_hear(15, AudioFeatureConfig(window=8, align="official")) == list(range(8, 16))


@pytest.mark.parametrize("align", ["centred", "official"])
def test_rows_beyond_the_clip_do_not_count(align):
    speech = np.full((30, 3), 5, np.float16)
    found = select_audio_vectors(speech, range(30), AudioFeatureConfig(window=8, align=align))
    np.testing.assert_allclose(found, 5)


def test_wav2vecs_vectors_have_mean_0_and_variance_1():
    speech = 3 + 2 * np.random.default_rng(0).normal(size=(30, 768))
    found = select_audio_vectors(speech.astype(np.float16), [0, 14, 29], WAV2VEC)
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(found.var(1), 1, rtol=1e-3)


def test_a_clip_without_sound_is_heard_as_zeros():
    speech = np.random.default_rng(0).normal(size=(30, 768))
    found = select_audio_vectors(speech, [1, 2], WAV2VEC, has_sound=False)
    assert found.shape == (2, 768)
    assert found.dtype == np.float32
    assert (found == 0).all()


def test_features_that_are_not_finite_are_an_error():
    with pytest.raises(
        InvalidFile, match="clip x: speech features hold a NaN or an infinity near frames 2 to"
    ):
        select_audio_vectors(np.full((5, 3), np.nan), [2], AudioFeatureConfig(), whose="clip x")


@pytest.mark.parametrize("window", [-2, 7])
def test_windows_are_an_even_number_of_frames(window):
    with pytest.raises(ValueError, match="expected an even number"):
        AudioFeatureConfig(window=window)
