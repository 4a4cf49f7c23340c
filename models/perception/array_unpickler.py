"""Pickles of arrays read without running them.

A pickle is a program: it names functions and classes, and the reader calls them. This reader knows numpy's
arrays, scipy's sparse matrices and the box that chumpy puts around an array, makes stand-ins that keep what
they are given, builds the arrays from that itself, and refuses whatever else a file names.
"""

from __future__ import annotations

import pickle
import re
from typing import Any, BinaryIO

import numpy as np

from models.errors import InvalidFile


class ObjectStub:
    """Stands for an object that the file asks for: keeps what it would be made of, does nothing."""

    def __new__(cls, *args: Any) -> ObjectStub:
        made = object.__new__(cls)
        made.args, made.state = args, None
        return made

    args: tuple[Any, ...]
    state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state


class PickledArrayStub(ObjectStub):
    """State: version, shape, dtype, whether columns come first, bytes (a list, if of objects)."""

    def array(self) -> np.ndarray:
        _, shape, dtype, fortran, data = self.state
        kind = dtype.args[0] if isinstance(dtype, DtypeStub) else None
        if not isinstance(kind, str) or not re.fullmatch("[bifu][1248]", kind):
            raise ValueError(f"an array of {kind!r}, expected numbers")
        order = dtype.state[1] if dtype.state else "="
        raw = data.encode("latin-1") if isinstance(data, str) else data
        numbers = np.frombuffer(raw, np.dtype(kind).newbyteorder(">" if order == ">" else "<"))
        return numbers.reshape(shape, order="F" if fortran else "C").astype(kind)


class DtypeStub(ObjectStub):
    pass


class SparseColumnMatrix(ObjectStub):
    """A compressed matrix of scipy: data, indices, indptr and shape."""

    def array(self) -> np.ndarray:
        data, indices, starts = (to_array(self.state[name]) for name in ("data", "indices", "indptr"))
        shape = self.state.get("_shape", self.state.get("shape"))
        major = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        out = np.zeros(shape)
        np.add.at(out, (major, indices) if isinstance(self, SparseRowMatrix) else (indices, major), data)
        return out


class SparseRowMatrix(SparseColumnMatrix):
    pass


def _latin1(text: str, codec: str) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if codec not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in {codec!r}")
    return text.encode("latin-1")


def _instance(cls: type, base: type, state: Any) -> Any:
    """How protocols 0 and 1 make instances."""
    if not issubclass(cls, ObjectStub):
        raise pickle.UnpicklingError(f"an instance of {cls!r}")
    return cls()


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): PickledArrayStub, ("numpy", "dtype"): DtypeStub,
    **{(module, "_reconstruct"): PickledArrayStub for module in _MULTIARRAY},
    **{(module, "scalar"): ObjectStub for module in _MULTIARRAY},
    ("_codecs", "encode"): _latin1,
    **{(module, "_reconstructor"): _instance for module in ("copy_reg", "copyreg")},
    **{(module, "object"): object for module in ("__builtin__", "builtins")},
    ("chumpy.ch", "Ch"): ObjectStub,
    **{(f"scipy.sparse.{module}", "csc_matrix"): SparseColumnMatrix for module in ("csc", "_csc")},
    **{(f"scipy.sparse.{module}", "csr_matrix"): SparseRowMatrix for module in ("csr", "_csr")},
    # the outline's tables are torch tensors: not needed, not made
    ("torch._utils", "_rebuild_tensor_v2"): ObjectStub,
    ("torch.storage", "_load_from_bytes"): ObjectStub,
    ("collections", "OrderedDict"): ObjectStub,
}  # fmt: skip


class ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, which is not an array")
        return _ALLOWED[module_name, global_name]


def read_pickle(stream: BinaryIO, name: str) -> Any:
    """A pickle by Python 2 or 3: numbers, texts, lists, dicts, and arrays that `to_array` opens. An array of
    one object gives that object. InvalidFile where the file names anything else; `name` is for the
    message."""
    try:
        found = ArrayUnpickler(stream, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, AttributeError, TypeError, LookupError, ValueError) as error:
        raise InvalidFile(f"{name} is not a pickle of arrays alone: {error}") from error
    if (
        isinstance(found, PickledArrayStub)
        and isinstance(found.state, tuple)
        and isinstance(found.state[-1], list)
    ):
        return found.state[-1][0]
    return found


def to_array(value: Any) -> np.ndarray:
    """An array of numbers out of whatever box it came in: numpy's, scipy's, chumpy's."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list) and all(isinstance(one, (int, float)) for one in value):
        return np.array(value)
    if isinstance(value, (PickledArrayStub, SparseColumnMatrix)):
        try:
            return value.array()
        except (TypeError, AttributeError, LookupError, OverflowError) as error:
            raise ValueError(f"an array that is put together wrongly: {error}") from error
    if isinstance(value, ObjectStub) and isinstance(value.state, dict) and "x" in value.state:
        return to_array(value.state["x"])
    raise ValueError(f"found a {type(value).__name__}, expected an array of numbers")
