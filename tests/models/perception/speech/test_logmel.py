import numpy as np
import pytest

from models.perception.speech.logmel import HOP_LENGTH, LOG_FLOOR, SAMPLE_RATE, log_mel, mel_filter_bank


def test_power_is_a_plain_discrete_fourier_transform():
    sound = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    n, t = 400, 3
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    piece = np.array(
        [
            sound[i] if 0 <= i < len(sound) else 0
            for i in range(t * HOP_LENGTH - n // 2, t * HOP_LENGTH + n // 2)
        ]
    )
    spectrum = [
        abs(np.sum(piece * window * np.exp(-2j * np.pi * f * np.arange(n) / 512))) ** 2 for f in range(257)
    ]
    expected = np.log(mel_filter_bank(40) @ np.array(spectrum) + LOG_FLOOR)
    np.testing.assert_allclose(log_mel(sound, 8, 40)[t], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frequency", [300, 1000, 4000])
def test_a_tone_is_loudest_in_the_band_around_it(frequency):
    sound = np.sin(2 * np.pi * frequency * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    band = log_mel(sound, 50, 64)[25].argmax()
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 66) / 2595) - 1)
    assert corners[band] < frequency < corners[band + 2]


def test_bands_have_area_one_and_cover_all_but_the_ends():
    bank = mel_filter_bank(40)
    np.testing.assert_allclose(bank[10:].sum(1) / 512, 1, rtol=0.1)
    assert (bank.sum(0)[4:-4] > 0).all()


def test_silence_is_the_floor():
    np.testing.assert_allclose(log_mel(np.zeros(100, np.float32), 4, 20), np.log(LOG_FLOOR), rtol=1e-6)
