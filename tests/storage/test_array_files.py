"""Arrays of numpy's and Matlab's files."""

import numpy as np
import pytest
from scipy.io import savemat

from storage.array_files import read_matlab_arrays, read_numpy_arrays
from storage.errors import InvalidInput
from tests.storage.weights_files import npy_header


def test_arrays_of_numbers_come_out_of_npz_and_texts_stay_behind(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([1, 2], ">i4"), "name": np.array("flame")}
    np.savez(tmp_path / "x.npz", **arrays)
    found = read_numpy_arrays(tmp_path / "x.npz")
    assert found.keys() == {"a", "b"}
    assert all(np.array_equal(found[name], arrays[name]) and found[name].dtype.isnative for name in found)


def test_one_array_of_npy_is_called_array(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((2, 1)))
    assert read_numpy_arrays(tmp_path / "x.npy")["array"].shape == (2, 1)


def test_an_array_of_objects_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}], object))
    with pytest.raises(InvalidInput, match="not a file of arrays alone: Object arrays cannot be loaded"):
        read_numpy_arrays(tmp_path / "x.npy")


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04cut", npy_header("'<f4'", "(2,)") + b"1234"])
@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_what_is_no_numpy_file_is_told_in_a_line(tmp_path, content, suffix):
    (tmp_path / f"x{suffix}").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"^not a file of arrays alone: [^\n]*$"):
        read_numpy_arrays(tmp_path / f"x{suffix}")


def test_matlabs_arrays_and_structures_come_out_by_dotted_path(tmp_path):
    savemat(tmp_path / "x.mat", {"shapePC": np.arange(6.0).reshape(2, 3), "model": {"tri": np.ones(3, "i4")},
                                 "note": "text", "cells": np.array([1, "a"], object)})  # fmt: skip
    found = read_matlab_arrays(tmp_path / "x.mat")
    assert found.keys() == {"shapePC", "model.tri"}
    assert np.array_equal(found["shapePC"], np.arange(6.0).reshape(2, 3))


def test_matlabs_hdf5_is_told_with_what_to_do(tmp_path):
    header = b"MATLAB 7.3 MAT-file".ljust(124, b" ") + b"\x00\x02IM"
    (tmp_path / "x.mat").write_bytes(header + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(InvalidInput, match=r"version 7\.3; save it with -v7"):
        read_matlab_arrays(tmp_path / "x.mat")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>" * 20])
def test_what_is_no_matlab_file_is_told_in_a_line(tmp_path, content):
    (tmp_path / "x.mat").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"^not a \.mat file: [^\n]*$"):
        read_matlab_arrays(tmp_path / "x.mat")
