"""Tensors of files that torch.load does not read with `weights_only`: TorchScript archives, whose code is
left where it is, and pickles of modules as StyleGAN2-ADA's authors publish them.

| file | how it is written |
|---|---|
| TorchScript | a zip: data.pkl names objects of classes `__torch__.*` with their attributes, and |
| | tensors by the number of their storage, which lies in `data/`; `code/` is not read |
| module pickle | objects by torch_utils.persistence with their source text, which is not run; tensors |
| | with their storage in place, as a file of torch's own within the pickle |
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from storage.errors import InvalidInput
from storage.pickle_stubs import (
    BYTES_STUBS,
    NUMPY_STUBS,
    DictStub,
    ObjectStub,
    StubCall,
    StubUnpickler,
    check_sizes,
    find_arrays,
)

STORAGE_DTYPES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
    "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
"""Class of torch that a pickle names -> dtype of its storage."""
PICKLE_ERRORS = (
    pickle.UnpicklingError, EOFError, AttributeError, TypeError, LookupError, ValueError, RuntimeError,
    RecursionError, OverflowError, ImportError, AssertionError, MemoryError,
)  # fmt: skip
"""What bytes that are no pickle, or a pickle of other things, make a reader raise. A number that counts what
was read before may be made up, and then asks for more memory than there is."""
MODULE_PREFIX = "__torch__."
"""Of the classes that a TorchScript archive brings along."""


class StorageType(NamedTuple):
    """Stands in for a storage's class."""

    dtype: str


def rebuild_tensor(storage: Any, offset: Any, sizes: Any, strides: Any, *_more: Any) -> Any:
    """What torch._utils._rebuild_tensor_v2 makes, of a storage that is a flat tensor: a copy. ValueError
    where the tensor would reach beyond it."""
    import torch

    check_sizes(sizes)
    check_sizes(strides)
    if not isinstance(storage, torch.Tensor) or type(offset) is not int or offset < 0:
        raise ValueError("a tensor without a storage")
    if len(sizes) != len(strides):
        raise ValueError(f"a tensor of sizes {sizes} and strides {strides}")
    if math.prod(sizes) > len(storage):  # an expanded one would be as large as the file likes
        raise ValueError(f"a tensor of sizes {sizes} of a storage of {len(storage)} numbers")
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if 0 not in sizes and last >= len(storage):
        raise ValueError(f"a tensor that ends at number {last} of a storage of {len(storage)}")
    return torch.as_strided(storage, tuple(sizes), tuple(strides), offset).clone()


def _first(value: Any, *_more: Any) -> Any:
    """Of a parameter its tensor, of TorchScript's typed lists the list."""
    return value


_TENSOR_STUBS: dict[tuple[str, str], Any] = {
    **NUMPY_STUBS,
    **{("torch", name): StorageType(dtype) for name, dtype in STORAGE_DTYPES.items()},
    **BYTES_STUBS,
    ("torch._utils", "_rebuild_tensor_v2"): StubCall(rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): StubCall(_first),
    ("collections", "OrderedDict"): OrderedDict,
}


# --- TorchScript --------------------------------------------------------------------------------------------
_TORCHSCRIPT_STUBS: dict[tuple[str, str], Any] = {
    **_TENSOR_STUBS,
    **{
        ("torch.jit._pickle", name): StubCall(_first)
        for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
    },
    ("torch.jit._pickle", "restore_type_tag"): StubCall(_first),
}


class AttributesStub(ObjectStub):
    """An object of a class of the archive's. state: its attributes by name."""


class _TorchScriptUnpickler(StubUnpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(_read_stored(archive, f"{root}/data.pkl")), _TORCHSCRIPT_STUBS)
        self._archive, self._root = archive, root
        self._storages: dict[str, Any] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        if f"{module_name}.".startswith(MODULE_PREFIX):
            return AttributesStub
        return super().find_class(module_name, global_name)

    def persistent_load(self, pid: Any) -> Any:
        """("storage", class, number, device, length) -> a flat tensor."""
        import torch

        match pid:
            case ("storage", StorageType(dtype), str(name), _, int(length)) if name.isdigit():
                if name not in self._storages:
                    data = np.frombuffer(_read_stored(self._archive, f"{self._root}/data/{name}"), np.uint8)
                    kind = getattr(torch, dtype)
                    if len(data) != length * kind.itemsize:
                        raise ValueError(f"storage {name} has {len(data)} bytes for {length} numbers")
                    self._storages[name] = torch.from_numpy(data.copy()).view(kind)
                return self._storages[name]
        return super().persistent_load(pid)


def is_torchscript(path: Path) -> bool:
    """Whether it is a zip with code of TorchScript's."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(PurePosixPath(name).name == "constants.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return False  # torch's own reader says what is wrong with it


def read_torchscript_tensors(path: Path) -> dict[str, Any]:
    """Parameters and buffers by the names of the state dict, and tensors that are plain attributes.
    InvalidInput for an archive that holds other things."""
    try:
        with zipfile.ZipFile(path) as archive:
            (data,) = (name for name in archive.namelist() if PurePosixPath(name).name == "data.pkl")
            model = _TorchScriptUnpickler(archive, data.removesuffix("/data.pkl")).load()
        return dict(_attributes(model))
    except (*PICKLE_ERRORS, zipfile.BadZipFile) as error:
        raise InvalidInput(f"not a TorchScript archive of tensors alone: {_one_line(error)}") from error


def _read_stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """ValueError where it is compressed: torch compresses code alone, and what this grows to is no
    surprise."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(name)


def _attributes(value: Any, prefix: str = "") -> Any:
    """Tensors of an archive's objects by dotted path."""
    import torch

    if isinstance(value, torch.Tensor):
        yield prefix, value
    elif isinstance(value, AttributesStub) and isinstance(value.state, Mapping):
        for name, inner in value.state.items():
            yield from _attributes(inner, f"{prefix}.{name}" if prefix else str(name))


# --- module pickles -----------------------------------------------------------------------------------------
def _load_storage(data: Any) -> Any:
    """The bytes of a storage as torch saves one -> a flat tensor; by torch's own loader of tensors alone."""
    import torch

    found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if isinstance(found, torch.storage.TypedStorage):
        return torch.tensor([], dtype=found.dtype).set_(found._untyped_storage)
    raise ValueError(f"a storage that is a {type(found).__name__}")


class PersistentModuleStub(ObjectStub):
    """An object of StyleGAN2-ADA's torch_utils.persistence. args: {type, version, module_src, class_name,
    state}; the source text in it is not looked at."""

    def __new__(cls, *args: Any, **_given: Any) -> ObjectStub:
        made = ObjectStub.__new__(cls, *args)
        about = args[0] if args else None
        made.state = about.get("state") if isinstance(about, Mapping) else None
        return made

    def __setstate__(self, state: Any) -> None:
        if state is not None:
            self.state = state


_MODULE_STUBS: dict[tuple[str, str], Any] = {
    **_TENSOR_STUBS,
    ("torch.storage", "_load_from_bytes"): StubCall(_load_storage),
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): PersistentModuleStub,
    ("dnnlib.util", "EasyDict"): DictStub,
    ("argparse", "Namespace"): ObjectStub,
}


def read_pickled_tensors(path: Path) -> dict[str, Any]:
    """A plain pickle's arrays and tensors by dotted path: of dicts, lists, and modules as their state dicts.
    InvalidInput where the pickle names anything else."""
    try:
        with path.open("rb") as stream:
            return dict(find_arrays(StubUnpickler(stream, _MODULE_STUBS).load()))
    except PICKLE_ERRORS as error:
        raise InvalidInput(f"not a pickle of arrays and tensors alone: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or ["it asks for more memory than there is"])[0][:200]
