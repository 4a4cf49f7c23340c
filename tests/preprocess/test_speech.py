from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.preprocess.speech import SpeechConfig, encode_speech, frame_features
from storage.shards import encode_sample


def clip_of(sound, frames):
    return {"__key__": "a#r#000000#000010", "sound": sound, "clip": {"frames": frames}}


def encode(sound, frames, **settings):
    config = SimpleNamespace(speech=SpeechConfig(**settings))
    return encode_speech({"clips": [clip_of(sound, frames)]}, config, {})[0]


@pytest.mark.parametrize("samples", [0, 6399, 6400, 9000])
def test_a_row_a_frame_whatever_the_sound(samples):
    speech = encode(np.zeros(samples, np.float32), 10)["speech"]
    assert speech.shape == (10, 320)
    assert speech.dtype == np.float32
    assert np.isfinite(speech).all()


def test_a_click_is_in_its_own_frame():
    sound = np.zeros(6400, np.float32)
    sound[5 * 640 + 320] = 0.8
    loud = encode(sound, 10)["speech"].mean(1)
    assert loud.argmax() == 5


def test_the_columns_of_a_frame_are_in_order_of_time():
    sound = np.zeros(6400, np.float32)
    sound[5 * 640 + 560 :] = 0.1 * np.random.default_rng(0).normal(
        size=6400 - 5 * 640 - 560
    )  # the last 5 ms of frame 5
    first, *_, last = encode(sound, 10)["speech"][5].reshape(4, 80).mean(1)
    assert last > first + 3


def test_context_joins_neighbours():
    sound = np.random.default_rng(0).normal(size=6400).astype(np.float32) * 0.1
    plain, wide = encode(sound, 10)["speech"], encode(sound, 10, context=1)["speech"]
    assert wide.shape == (10, 960)
    np.testing.assert_array_equal(wide[4], np.concatenate([plain[3], plain[4], plain[5]]))
    np.testing.assert_array_equal(wide[0], np.concatenate([plain[0], plain[0], plain[1]]))


def test_the_same_sound_gives_the_same_bytes():
    sound = np.random.default_rng(0).normal(size=6400).astype(np.float32) * 0.1
    assert encode_sample(encode(sound, 10)) == encode_sample(encode(sound, 10))


def test_a_frame_does_not_depend_on_how_long_the_clip_is():
    sound = np.random.default_rng(0).normal(size=6400).astype(np.float32) * 0.1
    short = frame_features(sound[:3200], 5, SpeechConfig())
    np.testing.assert_allclose(frame_features(sound, 10, SpeechConfig())[:4], short[:4], rtol=1e-5)


@pytest.mark.parametrize("bad", [{"mels": 0}, {"window_ms": 100.0}, {"context": -1}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        SpeechConfig(**bad)
