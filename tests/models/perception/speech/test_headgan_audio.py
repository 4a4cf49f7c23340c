import json
from pathlib import Path

import numpy as np
import pytest

from models.perception.speech.headgan_audio import (
    FEATURE_SIZE,
    CharacterOnset,
    character_class_index,
    compute_headgan_audio_features,
    encode_one_hot,
    frame_character_classes,
    low_level_audio_features,
    mel_filters,
    short_term_features,
    stack_frame_windows,
    zero_mean_unit_peak,
)

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "headgan_data.json").read_text())
LOW, TOKENS = GOLDEN["audio_low_level"], GOLDEN["audio_tokens"]
RATE, FRAME = 16_000, 640


def golden_sound():
    """2 s by the formula of the golden file, as 16-bit numbers over 2^15."""
    n = np.arange(32_000, dtype=np.int64)
    noise = 500 * (2 * ((31 * n * n + 17 * n + 101 * 5) % 65537) / 65536 - 1)
    beats = 8000 * np.sin(2 * np.pi * 220 * n / RATE) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * n / RATE))
    sweep = 3000 * np.sin(2 * np.pi * (500 + 400 * n / RATE) * n / RATE)
    return np.round(beats + sweep + noise) / 2**15


def click(frame, frames=30):
    """A click in the middle of a frame."""
    sound = np.zeros(frames * FRAME, np.float32)
    sound[frame * FRAME + FRAME // 2] = 0.9
    return sound


# --- the authors' numbers -----------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [0, 1])
def test_golden_short_features(number):
    """Acceptance test 3 of the specification."""
    found = short_term_features(zero_mean_unit_peak(golden_sound()), RATE, 320, 40)
    assert len(found) == LOW["n_short_frames"]
    np.testing.assert_allclose(found[number], LOW[f"short{number}_42"], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("frame", "name"), [(0, "frame0"), (25, "frame25"), (49, "last_frame")])
def test_golden_low_level_features(frame, name):
    found = low_level_audio_features(golden_sound(), 50, RATE)
    assert list(found.T.shape) == LOW["mid_shape"]
    np.testing.assert_allclose(found[frame], LOW[name], rtol=1e-9, atol=1e-9)


def test_golden_windows_of_eight():
    assert stack_frame_windows(np.arange(10)).tolist() == TOKENS["window8_of_0_9"]


def test_golden_one_hots():
    classes = np.array([character_class_index(character) for character in TOKENS["onehot_argmax_of"]])
    found = encode_one_hot(classes[None])
    assert found.shape == (1, TOKENS["dim"])
    assert found.reshape(8, 27).argmax(1).tolist() == TOKENS["argmax"]
    assert (found.reshape(8, 27).sum(1) == 1).all()


# --- by reasoning -------------------------------------------------------------------------------------------
def test_a_tones_centroid_is_its_frequency():
    sound = np.sin(2 * np.pi * 2000 * np.arange(RATE) / RATE)
    found = short_term_features(sound, RATE, 320, 40)[0]
    assert found[3] * RATE / 2 == pytest.approx(2000, abs=60)
    assert found[4] < 0.05  # spread
    assert found[0] == pytest.approx(2 * 2000 / RATE, rel=0.05)  # zero crossings a sample
    assert found[1] == pytest.approx(0.5, rel=0.02)  # energy


def test_noise_is_spread_wider_than_a_tone_in_time_and_frequency():
    rng = np.random.default_rng(0)
    tone = np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE)
    one, other = (short_term_features(x, RATE, 320, 40).mean(0) for x in (tone, rng.normal(size=RATE)))
    for place in (4, 5, 7):  # spread, spectral entropy, roll-off
        assert other[place] > 1.5 * one[place]


def test_filters_are_the_plain_definition():
    edges = [133.33 + 200 / 3 * i for i in range(13)]
    edges += [edges[12] * 1.0711703**i for i in range(1, 30)]
    bank = mel_filters(RATE, 160)
    for i in (0, 7, 20, 39):
        lo, centre, hi = edges[i : i + 3]
        for k in range(160):
            f, weight = 100.0 * k, 0.0
            if lo < f <= centre and k > int(lo / 100):
                weight = (f - lo) / (centre - lo) * 2 / (hi - lo)
            elif centre < f <= hi:
                weight = (hi - f) / (hi - centre) * 2 / (hi - lo)
            assert bank[i, k] == pytest.approx(weight, abs=1e-12)


def test_blocks_do_not_change_the_features(monkeypatch):
    whole = short_term_features(zero_mean_unit_peak(golden_sound()), RATE, 320, 40)
    monkeypatch.setattr("models.perception.speech.headgan_audio.SHORT_FRAMES_PER_PASS", 100)
    np.testing.assert_allclose(
        short_term_features(zero_mean_unit_peak(golden_sound()), RATE, 320, 40), whole, atol=1e-12
    )


# --- alignment ----------------------------------------------------------------------------------------------
def heard_in(sound, align, frames=30):
    """Frames whose energy a click raises."""
    energy = compute_headgan_audio_features(sound, frames, align=align)[:, 1]
    return np.flatnonzero(energy > 0.01 * energy.max()).tolist()


def test_a_click_is_heard_as_far_ahead_as_behind():
    """The span: 8 frames about the frame's middle."""
    assert heard_in(click(15), "centred") == list(range(11, 20))


def test_the_authors_hear_a_click_before_it_comes():
    """Frame t: from t on, 8 frames ahead."""
    assert heard_in(click(15), "official") == list(range(8, 16))


@pytest.mark.parametrize(("align", "least", "most"), [("centred", 0, 0.03), ("official", 0.3, 1)])
def test_centred_energies_of_sound_run_backwards_are_those_run_backwards(align, least, most):
    """As a share of the largest energy; the authors' are not, for they look one way."""
    sound = np.zeros(30 * FRAME, np.float32)
    sound[13 * FRAME : 17 * FRAME + 100] = np.random.default_rng(0).normal(size=4 * FRAME + 100) * 0.1
    there, back = (compute_headgan_audio_features(x, 30, align=align)[:, 1] for x in (sound, sound[::-1]))
    assert least <= np.abs(there - back[::-1]).max() / there.max() <= most


def test_spans_are_cut_at_the_ends_of_the_sound():
    sound = np.random.default_rng(0).normal(size=20 * FRAME).astype(np.float32) * 0.1
    for align in ("centred", "official"):
        found = compute_headgan_audio_features(sound, 20, align=align)
        assert np.isfinite(found).all()
        assert (found[:, 1] > 0).all()


def test_frames_after_the_sound_repeat_its_last_vector():
    sound = np.random.default_rng(0).normal(size=10 * FRAME) * 0.1
    found = low_level_audio_features(sound, 30, RATE)
    assert (found[12:] == found[11]).all()


@pytest.mark.parametrize("samples", [0, 100, FRAME])
def test_hardly_any_sound_is_finite(samples):
    found = compute_headgan_audio_features(np.full(samples, 0.1, np.float32), 3)
    assert found.shape == (3, FEATURE_SIZE)
    assert np.isfinite(found).all()


def test_silence_is_finite_and_the_same_everywhere():
    found = compute_headgan_audio_features(np.zeros(30 * FRAME, np.float32), 30)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, np.tile(found[:1], (30, 1)), atol=1e-6)


# --- characters ---------------------------------------------------------------------------------------------
SAID = [CharacterOnset("h", 0.40), CharacterOnset("i", 0.48), CharacterOnset(" ", 0.60)]


def test_without_a_transcript_nobody_says_a_letter():
    letters = compute_headgan_audio_features(golden_sound(), 50)[:, 84:].reshape(50, 8, 27)
    assert (letters.argmax(2) == 26).all()
    assert (letters.sum(2) == 1).all()


def test_a_token_holds_until_the_next_one():
    """25 fps: h in frames 10 and 11, i in 12 to 14, looked up a frame ahead."""
    classes = frame_character_classes(SAID, 20, 25.0, "centred")
    assert classes.tolist() == [26] * 9 + [7] * 2 + [8] * 3 + [26] * 6


def test_the_authors_look_up_a_token_five_frames_ahead():
    assert np.flatnonzero(frame_character_classes(SAID, 20, 25.0, "official") == 7).tolist() == [5, 6]


def test_a_letter_is_heard_as_far_ahead_as_behind():
    """One letter that fills frame 15: the windows of 8 about the middles of frames 11 to 19 touch it."""
    said = [CharacterOnset("a", 15 / 25), CharacterOnset(" ", 16 / 25)]
    found = compute_headgan_audio_features(np.zeros(30 * FRAME, np.float32), 30, said)[:, 84:].reshape(
        30, 8, 27
    )[..., 0]
    places = [np.flatnonzero(found[frame]).tolist() for frame in range(30)]
    assert [frame for frame in range(30) if places[frame]] == list(range(11, 19))
    assert (places[11], places[18]) == ([7], [0])
