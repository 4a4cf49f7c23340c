"""MXNet's files of arrays, written by the test, of every version; and files that are none."""

import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numbers
from safetensors.torch import load_file

from storage.errors import InvalidInput
from storage.mxnet_params import read_mxnet_params
from storage.weights_import import convert_checkpoint_to_safetensors
from tests.mxnet_files import FLAGS, array_bytes, params_bytes

ONE = struct.pack("<QQQ", 0x112, 0, 1)
"""How a file of one array begins."""
SHAPES = numbers.array_shapes(min_dims=1, max_dims=4, max_side=4)


@pytest.mark.parametrize("version", [0, 1, 2, 3])
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_arrays_of_every_version_and_dtype_are_read_back(version, data, tmp_path_factory):
    dtypes = data.draw(st.lists(st.sampled_from(sorted(FLAGS)), min_size=0, max_size=4))
    arrays = {f"arg:{at}_é": data.draw(numbers.arrays(dtype, SHAPES)) for at, dtype in enumerate(dtypes)}
    path = tmp_path_factory.mktemp("mxnet") / "a.params"
    path.write_bytes(params_bytes(arrays, version))
    found = read_mxnet_params(path)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


WEIGHTS = {
    "arg:fc1_weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "aux:bn_moving_mean": np.ones(2, np.float32),
}
WHOLE = params_bytes(WEIGHTS)


@given(at=st.integers(0, len(WHOLE) - 1))
@settings(max_examples=60, deadline=None)
def test_a_file_that_is_cut_off_is_refused(at, tmp_path_factory):
    path = tmp_path_factory.mktemp("mxnet") / "a.params"
    path.write_bytes(WHOLE[:at])
    with pytest.raises(InvalidInput):
        read_mxnet_params(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\x03\x04" + bytes(60), "no file of MXNet's arrays: it begins with 0x4034b50, expected 0x112"),
        (struct.pack("<QQQ", 0x112, 0, 2**60), "arrays in a file of 24 bytes"),
        (ONE + array_bytes(np.ones(2, np.float32), 2, storage=1), "sparse arrays are not"),
        (ONE + array_bytes(np.ones(2, np.float32)).replace(struct.pack("<q", 2), struct.pack("<q", 2**62)),
         "is it cut off"),
        (params_bytes({"\n": np.ones(1, np.float32)}), "expected printable text"),
    ],
)  # fmt: skip
def test_another_file_is_refused_by_its_fault(content, told, tmp_path):
    (tmp_path / "a.params").write_bytes(content)
    with pytest.raises(InvalidInput, match=told):
        read_mxnet_params(tmp_path / "a.params")


def test_an_import_keeps_the_arrays_and_the_symbol_beside_them(tmp_path):
    (tmp_path / "A3-0070.params").write_bytes(WHOLE)
    (tmp_path / "A3-symbol.json").write_text('{"nodes": []}')
    facts = convert_checkpoint_to_safetensors(
        tmp_path / "A3-0070.params", tmp_path / "out.safetensors", [tmp_path / "A3-symbol.json"]
    )
    assert facts == {"tensors": 2, "format": "mxnet", "left": []}
    found = load_file(tmp_path / "out.safetensors")
    assert torch.equal(found["arg:fc1_weight"], torch.arange(6.0).reshape(2, 3))
