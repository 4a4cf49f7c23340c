"""Files in the formats in which weights are published, made by formula; and such as try to run something."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

ONNX_KINDS = {"float32": 1, "int64": 7, "float16": 10, "float64": 11, "bool": 9}


class SmallNet(torch.nn.Module):
    """A convolution, a batch norm with its buffers, and a part of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)
        self.head = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU())
        with torch.no_grad():
            for i, tensor in enumerate(self.state_dict().values()):
                tensor.copy_((torch.arange(tensor.numel()) * 0.25 + i).reshape(tensor.shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.conv(x)).mean((2, 3)))


def equal_states(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) and found[name].dtype == expected[name].dtype
        for name in found
    )


def save_torchscript(path: Path, net: torch.nn.Module) -> None:
    torch.jit.save(torch.jit.script(net.eval()), str(path))


# --- StyleGAN2-ADA's pickles --------------------------------------------------------------------------------
def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("the source text of a file was run")


class _Persistent:
    """Is pickled as torch_utils.persistence pickles a module."""

    def __init__(self, state: dict[str, Any], source: str) -> None:
        self._state, self._source = state, source

    def __reduce__(self) -> Any:
        meta = {
            "type": "class", "version": 6, "module_src": self._source, "class_name": "Generator",
            "state": self._state,
        }  # fmt: skip
        return _reconstruct_persistent_obj, (meta,), None


def save_persistent_pickle(path: Path, net: torch.nn.Module, source: str = "") -> None:
    """{G_ema: a module and its parts, by the pickles of the authors}. source: of the module's class."""

    def persistent(module: torch.nn.Module) -> _Persistent:
        state: dict[str, Any] = dict(vars(module))
        parts = OrderedDict((name, persistent(one)) for name, one in module._modules.items() if one)
        hooks = [name for name in state if "hook" in name]
        kept = {name: one for name, one in state.items() if name not in hooks}
        return _Persistent(kept | {"_modules": parts, "init_kwargs": {"channels": 4}}, source)

    module = types.ModuleType("torch_utils.persistence")
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # pyright: ignore[reportAttributeAccessIssue]
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    names = ("torch_utils", "torch_utils.persistence")
    sys.modules |= dict.fromkeys(names, module)
    try:
        path.write_bytes(pickle.dumps({"G_ema": persistent(net), "training_set_kwargs": None}, protocol=4))
    finally:
        for name in names:
            del sys.modules[name]


# --- ONNX ---------------------------------------------------------------------------------------------------
def varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def onnx_field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx_tensor(name: str, array: np.ndarray, typed: bool = False) -> bytes:
    """A TensorProto. typed: values in the field of their type, and not as bytes."""
    out = b"".join(onnx_field(1, int(n)) for n in array.shape)
    out += onnx_field(2, ONNX_KINDS[array.dtype.name]) + onnx_field(8, name.encode())
    if not typed:
        return out + onnx_field(9, array.tobytes())
    if array.dtype == np.float32:
        return out + onnx_field(4, array.tobytes())
    if array.dtype == np.float64:
        return out + onnx_field(10, array.tobytes())
    if array.dtype == np.int64:
        return out + onnx_field(7, b"".join(varint(int(one) & 2**64 - 1) for one in array.ravel()))
    whole = array.view(np.uint16) if array.dtype == np.float16 else array
    return out + onnx_field(5, b"".join(varint(int(one)) for one in whole.ravel()))


def onnx_model(*tensors: bytes) -> bytes:
    """A ModelProto of one node with these initialisers."""
    node = onnx_field(1, b"x") + onnx_field(2, b"y") + onnx_field(4, b"Conv")
    graph = onnx_field(1, node) + onnx_field(2, b"net") + b"".join(onnx_field(5, one) for one in tensors)
    return onnx_field(1, 8) + onnx_field(2, b"pytorch") + onnx_field(7, graph)


# --- files that try to run something ------------------------------------------------------------------------
class Calls:
    """Is pickled as a call of a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def malicious_objects(marker: Path) -> dict[str, Any]:
    """What would make the file `marker` if a reader ran it."""
    import os

    made = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Calls(os.system, f"touch {marker}"),
        "builtins.eval": Calls(eval, made),
        "builtins.exec": Calls(exec, made),
        "builtins.open": Calls(open, str(marker), "w"),
        "pathlib": Calls(Path.touch, marker),
    }


def save_zip_of_torch(path: Path, value: Any) -> None:
    """torch's zip with a pickle of our choice."""
    torch.save({"a": torch.ones(2)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, pickle.dumps(value, 2) if name.endswith("data.pkl") else data)


def save_legacy_torch(path: Path, value: Any) -> None:
    """The old format: magic, protocol, system, the value, storages."""
    numbers = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    path.write_bytes(b"".join(pickle.dumps(one, 2) for one in (*numbers, value, [])))


def save_malicious(folder: Path, value: Any) -> dict[str, Path]:
    """The value in each format that is a pickle, or holds one."""
    files = {
        name: folder / f"x{suffix}"
        for name, suffix in {
            "pickle": ".pkl", "pickle called a checkpoint": ".pth", "torch zip": ".pt",
            "torch legacy": ".model", "TorchScript": ".ts", "npz": ".npz", "storage in a pickle": ".pickle",
        }.items()
    }  # fmt: skip
    files["pickle"].write_bytes(pickle.dumps({"a": value}))
    files["pickle called a checkpoint"].write_bytes(pickle.dumps({"a": value}))
    save_zip_of_torch(files["torch zip"], {"a": [{"b": value}]})
    save_legacy_torch(files["torch legacy"], {"a": value})
    with zipfile.ZipFile(files["TorchScript"], "w") as archive:
        archive.writestr("net/data.pkl", pickle.dumps({"a": value}, 2))
        archive.writestr("net/constants.pkl", pickle.dumps((), 2))
        archive.writestr("net/code/__torch__.py", "import os\nos.system('true')\n")
    np.savez(files["npz"], a=np.array([value, None], dtype=object))
    inner = io.BytesIO()
    pickle.dump(value, inner)
    files["storage in a pickle"].write_bytes(
        pickle.dumps({"a": Calls(torch.storage._load_from_bytes, inner.getvalue())})
    )
    return files


def npy_header(dtype: str, shape: str) -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
