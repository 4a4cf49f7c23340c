"""What stands in for the objects that a pickle asks for, so that nothing it names is called.

A pickle is a program: it names functions and classes, and a reader calls them with what the file chooses.
The stand-ins here take what they are given and do nothing; what we want, arrays and tensors, is made from
that by our own code, with every length and dtype checked. numpy's own functions are not called either: a
made-up dtype can make them read memory as pointers.

models/perception/array_unpickler.py does the like for publishers' face models, for which arrays are enough.
"""

from __future__ import annotations

import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

MULTIARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMBER_DTYPE = re.compile(r"[biuf][1248]")


class ObjectStub:
    """An object of which nothing is made: `args` it would be made of, `state` it would be given."""

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **_given: Any) -> ObjectStub:
        made = object.__new__(cls)
        made.args, made.state = args, None
        return made

    def __init__(self, *_args: Any, **_given: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state


class DtypeStub(ObjectStub):
    """args: its name, such as f4; state: version, byte order, ..."""


class ArrayStub(ObjectStub):
    """An array of numpy's. state: version, shape, dtype, whether columns come first, bytes."""

    def array(self) -> np.ndarray:
        """ValueError where it is not an array of numbers, or not as long as its shape says."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise ValueError("an array without its content")
        _, shape, dtype, fortran, data = self.state
        name = dtype.args[0] if isinstance(dtype, DtypeStub) and dtype.args else None
        if not isinstance(name, str) or not _NUMBER_DTYPE.fullmatch(name):
            raise ValueError(f"an array of {name!r}, expected numbers")
        check_sizes(shape)
        order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
        kind = np.dtype(name).newbyteorder(">" if order == ">" else "<")
        raw = data.encode("latin-1") if isinstance(data, str) else data
        if not isinstance(raw, bytes) or len(raw) != math.prod(shape) * kind.itemsize:
            raise ValueError(f"an array of shape {shape} with other bytes than it needs")
        return np.frombuffer(raw, kind).reshape(shape, order="F" if fortran else "C").astype(name)


class BufferArrayStub(ArrayStub):
    """An array as protocol 5 writes it. args: bytes, dtype, shape, order."""

    def __new__(cls, *args: Any, **_given: Any) -> ObjectStub:
        made = ObjectStub.__new__(cls, *args)
        if len(args) == 4 and isinstance(args[0], (bytes, bytearray)):
            data, dtype, shape, order = args
            made.state = (1, shape, dtype, order == "F", bytes(data))
        return made


class DictStub(dict):
    """A dict of a class of the publisher's."""

    def __setstate__(self, _state: Any) -> None: ...


NUMPY_STUBS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): ArrayStub,
    ("numpy", "dtype"): DtypeStub,
    **{(module, "_reconstruct"): ArrayStub for module in MULTIARRAY_MODULES},
    **{(module, "scalar"): ObjectStub for module in MULTIARRAY_MODULES},
    **{(module, "_frombuffer"): BufferArrayStub for module in ("numpy.core.numeric", "numpy._core.numeric")},
}
"""(module, name) that a pickle gives -> what is called in its place: what numpy's arrays and numbers are made
of. Numbers stay unread: training scripts keep their best score as one."""


class StubCall:
    """A function of ours that a pickle may call. A plain function has attributes, which a pickle can set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, _state: Any) -> None:
        raise pickle.UnpicklingError("it changes a function")


def _latin1(text: Any, codec: Any) -> bytes:
    """How protocols 0 to 2 write bytes."""
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in {codec!r:.20}")
    return text.encode("latin-1")


BYTES_STUBS: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): StubCall(_latin1),
    ("__builtin__", "bytes"): StubCall(lambda: b""),
}


def check_sizes(sizes: Any) -> None:
    """ValueError unless it is a tuple or list of lengths."""
    if not isinstance(sizes, (tuple, list)) or not all(type(one) is int and one >= 0 for one in sizes):
        raise ValueError(f"{sizes!r:.60} is no shape")


class StubUnpickler(pickle.Unpickler):
    """Reads a pickle whose every global is in `allowed`, and refuses it where one is not."""

    def __init__(self, stream: BinaryIO, allowed: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(stream, encoding="latin1")
        self._allowed = allowed

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in self._allowed:
            raise pickle.UnpicklingError(f"it calls {module_name}.{global_name}")
        return self._allowed[module_name, global_name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError(f"it refers to {pid!r:.60}, outside of the file")


def find_arrays(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every array and tensor of nested dicts, lists and modules, by its dotted path. Of a module (an object
    whose state has `_parameters`, `_buffers` and `_modules`) the names are those of its state dict."""
    import torch

    if isinstance(value, torch.Tensor):
        yield prefix, value
    elif isinstance(value, ArrayStub):
        yield prefix, torch.from_numpy(value.array())
    elif isinstance(value, ObjectStub):
        yield from find_arrays(_module_parts(value), prefix)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from find_arrays(inner, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from find_arrays(inner, f"{prefix}.{i}" if prefix else str(i))


def _module_parts(stub: ObjectStub) -> Mapping[Any, Any]:
    """Parameters, buffers and parts of a module by name; {} of other objects."""
    state = stub.state
    if not isinstance(state, Mapping):
        return {}
    parts: dict[Any, Any] = OrderedDict()
    for name in ("_parameters", "_buffers", "_modules"):
        some = state.get(name)
        parts |= some if isinstance(some, Mapping) else {}
    return parts
