"""MFCC against figures of python_speech_features 0.6, and by what a cepstrum is."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from models.perception.speech.mfcc import mfcc

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "syncnet.json").read_text())
N = np.arange(16_000)


def wave():
    """The signal of the figures `mfcc_wave`."""
    low, high = (
        8000 * np.sin(2 * np.pi * 220 * N / 16_000),
        3000 * np.sin(2 * np.pi * 1800 * N / 16_000 + 0.4),
    )
    sweep = 1000 * np.sin(2 * np.pi * (300 + 2000 * N / 16_000) * N / 16_000)
    return np.round(low + high + sweep).astype(np.int16)


def modulated():
    """The signal of the figures `mfcc_modulated`."""
    low = 8000 * np.sin(2 * np.pi * 220 * N / 16_000) * np.sin(2 * np.pi * 3 * N / 16_000)
    high, sweep = 2000 * np.sin(2 * np.pi * 1900 * N / 16_000 + 0.3), 300 * np.sin(0.01 * N**1.5)
    return np.round(low + high + sweep).astype(np.int16)


def test_a_wave_has_the_packages_coefficients():
    golden = GOLDEN["mfcc_wave"]
    samples = wave()
    assert int(samples.astype(np.int64).sum()) == golden["wave_sum"]
    assert hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest() == golden["wave_sha256"]
    found = mfcc(samples)
    assert list(found.shape) == golden["shape"]
    for row, name in ((0, "frame0"), (50, "frame50"), (-1, "frame_last")):
        np.testing.assert_allclose(found[row], golden[name], rtol=0, atol=1e-9)
    assert found.mean() == pytest.approx(golden["mean"], abs=1e-9)
    assert found.std() == pytest.approx(golden["std"], abs=1e-9)


def test_a_modulated_wave_has_the_packages_coefficients():
    golden = GOLDEN["mfcc_modulated"]
    found = mfcc(modulated())
    assert list(found.shape) == golden["shape"]
    for row, name in ((0, "row0"), (50, "row50"), (-1, "row_last")):
        np.testing.assert_allclose(found[row], golden[name], rtol=0, atol=1e-9)
    assert np.linalg.norm(found) == pytest.approx(golden["l2"], rel=1e-12)


@pytest.mark.parametrize(("samples", "columns"), [(1, 1), (400, 1), (401, 2), (560, 2), (561, 3), (6400, 39)])
def test_a_column_begins_every_ten_milliseconds_until_the_sound_is_covered(samples, columns):
    assert mfcc(wave()[:samples]).shape == (columns, 13)


def test_louder_sound_moves_the_first_coefficient_alone():
    quiet, loud = mfcc(wave() // 4), mfcc(wave() // 4 * 4)
    np.testing.assert_allclose(loud[:, 0] - quiet[:, 0], np.log(16), atol=1e-9)
    np.testing.assert_allclose(loud[:, 1:], quiet[:, 1:], atol=1e-6)


def test_silence_is_finite():
    assert np.isfinite(mfcc(np.zeros(3200, np.int16))).all()


def test_no_sound_at_all_is_refused():
    with pytest.raises(ValueError, match=r"samples \(0,\): expected \(n,\) with n > 0"):
        mfcc(np.zeros(0, np.int16))
