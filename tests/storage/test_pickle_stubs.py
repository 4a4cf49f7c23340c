"""A pickle names what it likes, and nothing of that is called."""

import io
import pickle

import numpy as np
import pytest

from storage.pickle_stubs import (
    BYTES_STUBS,
    NUMPY_STUBS,
    ArrayStub,
    ObjectStub,
    StubCall,
    StubUnpickler,
    find_arrays,
)

ALLOWED = {**NUMPY_STUBS, **BYTES_STUBS}


def read(data):
    return StubUnpickler(io.BytesIO(data), ALLOWED).load()


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize(
    "array",
    [np.arange(6, dtype=">f8").reshape(2, 3), np.asfortranarray(np.arange(6, dtype="i4").reshape(2, 3)),
     np.zeros((0, 3), "f2"), np.array(True)],
)  # fmt: skip
def test_an_array_comes_out_equal(array, protocol):
    found = read(pickle.dumps(array, protocol))
    assert isinstance(found, ArrayStub)
    assert np.array_equal(found.array(), array)
    assert found.array().dtype == array.dtype.newbyteorder("=")


@pytest.mark.parametrize("array", [np.array([{}, None]), np.array(["a"]), np.zeros(2, "f4,f4"), np.array(1j)])
def test_an_array_of_other_things_is_none(array):
    with pytest.raises(ValueError, match="expected numbers"):
        read(pickle.dumps(array, 2)).array()


@pytest.mark.parametrize("state", [None, (), (1, (4,), None, False, b""), "x"])
def test_an_array_put_together_wrongly_is_a_value_error(state):
    stub = ArrayStub()
    stub.__setstate__(state)
    with pytest.raises(ValueError, match="an array"):
        stub.array()


def test_an_array_with_fewer_bytes_than_its_shape_is_refused():
    found = read(pickle.dumps(np.arange(4.0), 2))
    version, _, *rest = found.state
    found.__setstate__((version, (10**12,), *rest))
    with pytest.raises(ValueError, match="other bytes than it needs"):
        found.array()


def test_a_function_of_ours_cannot_be_changed_by_a_file():
    call = b"\x80\x02c_codecs\nencode\n}X\x01\x00\x00\x00aK\x01sb."  # BUILD of what the name gives
    with pytest.raises(pickle.UnpicklingError, match="changes a function"):
        read(call)
    with pytest.raises(AttributeError):
        StubCall(print).name = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_what_lies_outside_of_the_file_is_refused():
    with pytest.raises(pickle.UnpicklingError, match="outside of the file"):
        read(b"\x80\x02X\x04\x00\x00\x00pathQ.")


@pytest.mark.parametrize("name", ["system", "_reconstruct.__globals__", "__builtins__"])
def test_a_path_of_attributes_is_no_way_around_the_list(name):
    with pytest.raises(pickle.UnpicklingError, match="it calls"):
        StubUnpickler(io.BytesIO(), ALLOWED).find_class("numpy.core.multiarray", name)


def test_a_module_is_read_as_its_state_dict():
    inner, outer = ObjectStub(), ObjectStub()
    inner.__setstate__({"_parameters": {"w": read(pickle.dumps(np.ones(2), 2))}, "training": True})
    outer.__setstate__({"_modules": {"a": inner}, "_buffers": {"n": None}, "other": inner})
    assert [name for name, _ in find_arrays({"net": outer})] == ["net.a.w"]
