"""Values of fields as bytes and back."""

import time

import numpy as np
import pytest

from storage import codecs

VALUES = {
    "json": {"b": 1, "a": [1.5, "ü"]},
    "npy": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1],
    "npz": {"b": np.ones(2), "a": np.arange(3)},
}


@pytest.mark.parametrize("extension", VALUES)
def test_a_value_comes_back_as_it_was(extension):
    np.testing.assert_equal(codecs.decode_member(extension, codecs.encode_member(extension,
    VALUES[extension])),
                            VALUES[extension])  # fmt: skip


def test_the_bytes_of_arrays_hold_no_time_of_day_and_no_order_of_keys(monkeypatch):
    first = codecs.encode_npz({"a": np.arange(3), "b": np.ones(2)})
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert codecs.encode_npz({"b": np.ones(2), "a": np.arange(3)}) == first


def test_sound_comes_back_to_half_a_step_of_16_bits():
    sound = np.sin(np.arange(1600) / 9).astype(np.float32)
    assert np.abs(codecs.decode_flac(codecs.encode_flac(sound)) - np.clip(sound, -1, 1)).max() <= 2**-15


def test_arrays_of_python_objects_are_not_written():
    with pytest.raises(ValueError, match="Object arrays"):
        codecs.encode_npy(np.array([object()]))


def test_json_has_no_numbers_that_other_readers_refuse():
    with pytest.raises(ValueError, match="JSON compliant"):
        codecs.encode_json(float("nan"))
