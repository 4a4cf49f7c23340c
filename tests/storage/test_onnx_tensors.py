"""Initialisers of ONNX files."""

import numpy as np
import pytest

from storage.errors import InvalidInput
from storage.onnx_tensors import read_onnx_initialisers
from tests.storage.weights_files import onnx_field, onnx_model, onnx_tensor, varint

ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) / 7,
    "683": np.array([-1, 2**40, 0]),
    "half": np.array([[0.5, -2.25]], np.float16),
    "double": np.array([1 / 3]),
    "mask": np.array([True, False]),
    "scalar": np.array(3.5, np.float32),
    "none": np.zeros((0, 4), np.float32),
}


@pytest.mark.parametrize("typed", [False, True])
def test_values_come_out_equal_however_they_are_written(tmp_path, typed):
    model = onnx_model(*(onnx_tensor(name, array, typed) for name, array in ARRAYS.items()))
    (tmp_path / "x.onnx").write_bytes(model)
    found = read_onnx_initialisers(tmp_path / "x.onnx")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert np.array_equal(found[name], array), name
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape


def test_a_file_cut_anywhere_is_refused_in_a_line(tmp_path):
    model = onnx_model(onnx_tensor("a", np.arange(4.0)), onnx_tensor("b", np.arange(2)))
    for end in range(len(model)):
        (tmp_path / "x.onnx").write_bytes(model[:end])
        with pytest.raises(InvalidInput, match=r"^[^\n]+$"):
            read_onnx_initialisers(tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (onnx_field(2, 1) + onnx_field(8, b"w") + onnx_field(14, 1), "lie in another file"),
        (onnx_field(2, 8) + onnx_field(8, b"w"), "data type 8"),
        (onnx_field(2, 1) + onnx_field(9, b"1234"), "is called ''"),
        (onnx_field(1, 3) + onnx_field(2, 1) + onnx_field(8, b"w") + onnx_field(9, b"1234"), "1 values"),
        (onnx_field(2, 1) + onnx_field(8, b"w") + onnx_field(9, b"123"), "3 bytes of float32"),
        (onnx_field(1, 2**62) + onnx_field(2, 1) + onnx_field(8, b"w"), "0 values"),
        (varint(8 << 3 | 3), "a field of kind 3"),
        (varint(8 << 3) + b"\xff" * 11, "a number without an end"),
    ],
)
def test_what_is_no_whole_tensor_is_told(tmp_path, tensor, told):
    (tmp_path / "x.onnx").write_bytes(onnx_model(tensor))
    with pytest.raises(InvalidInput, match=told):
        read_onnx_initialisers(tmp_path / "x.onnx")


def test_two_of_one_name_are_refused(tmp_path):
    (tmp_path / "x.onnx").write_bytes(onnx_model(*[onnx_tensor("a", np.ones(1))] * 2))
    with pytest.raises(InvalidInput, match="two initialisers are called a"):
        read_onnx_initialisers(tmp_path / "x.onnx")
