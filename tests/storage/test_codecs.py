"""Values of fields as bytes and back."""

import ast
import io
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import (
    array_shapes,
    arrays,
    boolean_dtypes,
    floating_dtypes,
    integer_dtypes,
    unicode_string_dtypes,
)

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


# --- arrays as numpy writes them ----------------------------------------------------------------------------
KINDS = boolean_dtypes() | integer_dtypes() | floating_dtypes() | unicode_string_dtypes()


@given(arrays(KINDS, array_shapes(min_dims=0, min_side=0)))
def test_an_array_is_what_numpy_reads(array):
    data = codecs.encode_npy(array)
    found, expected = codecs.decode_npy(data), np.load(io.BytesIO(data))
    assert (found.dtype, found.shape, found.flags.writeable) == (expected.dtype, expected.shape, True)
    assert found.tobytes() == expected.tobytes()


def test_an_array_is_read_without_parsing_python(monkeypatch):
    """CPython 3.11 cannot do that safely in threads."""
    data = codecs.encode_npz({"a": np.arange(6.0).reshape(2, 3), "b": np.array("text")})
    monkeypatch.setattr(ast, "literal_eval", None)
    assert codecs.decode_npz(data)["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("lost", [1, 8, 47])
def test_an_array_that_is_cut_short_is_refused(lost):
    data = codecs.encode_npy(np.arange(6.0))
    with pytest.raises(ValueError, match=r"size|reshape"):
        codecs.decode_npy(data[:-lost])


def test_an_array_in_another_order_is_read_by_numpy():
    out = io.BytesIO()
    np.save(out, np.asfortranarray(np.arange(6).reshape(2, 3)))
    assert codecs.decode_npy(out.getvalue()).tolist() == [[0, 1, 2], [3, 4, 5]]
