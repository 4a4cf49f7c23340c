import io
import os
import pickle

import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from models.errors import InvalidFile
from models.perception.array_unpickler import read_pickle, to_array


def read(value, protocol=2):
    return read_pickle(io.BytesIO(pickle.dumps(value, protocol=protocol)), "a.pkl")


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "u4", ">f4", "u1"])
def test_arrays_come_out_as_they_went_in(protocol, dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for stored in (array, np.asfortranarray(array)):
        found = to_array(read({"a": stored}, protocol)["a"])
        assert (found == array).all()
        assert found.shape == array.shape
        assert found.dtype.kind == array.dtype.kind


@pytest.mark.parametrize("kind", [csc_matrix, csr_matrix])
def test_sparse_matrices_come_out_dense(kind):
    dense = np.array([[0, 2.5, 0], [1, 0, 0]])
    assert (to_array(read(kind(dense))) == dense).all()


def test_an_array_of_one_object_gives_the_object():
    found = read(np.array({"a": np.arange(3), "b": [1, 2]}, dtype=object))
    assert to_array(found["a"]).tolist() == [0, 1, 2]
    assert to_array(found["b"]).tolist() == [1, 2]


class Evil:
    def __reduce__(self):
        return os.system, ("touch EVIL",)


class Sneaky:
    def __reduce__(self):
        return getattr, ("text", "upper")


@pytest.mark.parametrize(
    "payload", [Evil(), {"a": [Evil()]}, {"a": eval}, Sneaky(), np.array([Evil()], dtype=object)]
)
def test_a_pickle_that_is_a_program_is_refused_and_not_run(payload, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for protocol in (0, 2, 4):
        with pytest.raises(InvalidFile, match=r"a\.pkl is not a pickle of arrays alone: it names"):
            read(payload, protocol)
    assert not (tmp_path / "EVIL").exists()


@pytest.mark.parametrize("data", [b"", b"not a pickle", pickle.dumps(np.arange(9))[:-20]])
def test_what_is_no_pickle_is_told(data):
    with pytest.raises(InvalidFile, match="not a pickle of arrays alone"):
        read_pickle(io.BytesIO(data), "a.pkl")


@pytest.mark.parametrize(
    "value", ["text", 3, np.array(["a"]), np.array([1, None], dtype=object), np.datetime64(1, "s")]
)
def test_what_is_no_array_of_numbers_is_told(value):
    with pytest.raises(ValueError, match="expected"):
        to_array(read({"a": value})["a"])
