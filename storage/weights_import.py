"""Run alone, in its own process: a checkpoint file -> safetensors. Loads tensors only, never code.

| format | read by |
|---|---|
| .safetensors | safetensors |
| torch's zip and its old format | torch.load with weights_only; numpy's arrays and settings by stubs |
| TorchScript | torch_archives.py: the tensors of the archive, and none of its code |
| .pkl | torch_archives.py: arrays, tensors and modules, by a reader that calls nothing the file names |
| .npz, .npy, .mat (before 7.3) | array_files.py: arrays alone |
| .onnx | onnx_tensors.py: initialisers |
| .params | mxnet_params.py |

python -m storage.weights_import SOURCE TARGET [--drop-prefixes NAME ...] [--settings FILE.json ...]
prints {"tensors": n, "format": ..., "left": [...]}, or {"error": why} of a file of other things; what
else goes wrong ends with a traceback.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from storage.array_files import read_matlab_arrays, read_numpy_arrays
from storage.errors import InvalidInput
from storage.mxnet_params import read_mxnet_params
from storage.onnx_tensors import read_onnx_initialisers
from storage.pickle_stubs import NUMPY_STUBS, ArrayStub, ObjectStub
from storage.torch_archives import is_torchscript, read_pickled_tensors, read_torchscript_tensors

MAX_SETTINGS_BYTES = 2**20
PICKLE_SUFFIXES = (".pkl", ".pickle")
TORCH_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""A pickle of the number 0x1950a86a20f9469cfc6c, with which files before torch 1.6 begin."""


def find_tensors(value: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor and numpy array of a nested dict, named by its dotted path; counters and settings are left
    behind."""
    import torch

    if isinstance(value, torch.Tensor):
        yield prefix, value.detach().contiguous().clone()
    elif isinstance(value, ArrayStub):
        yield prefix, torch.from_numpy(value.array())
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from find_tensors(inner, f"{prefix}.{name}" if prefix else str(name))


def convert_checkpoint_to_safetensors(
    source: Path, target: Path, settings: Sequence[Path] = (), drop_prefixes: Collection[str] = ()
) -> dict[str, Any]:
    """Returns what was found. Raises InvalidInput for a file that holds more than tensors and plain values.

    Tensors whose name begins with a part in `drop_prefixes` are dropped. Settings go into the header as text:
    {"settings": {file name: its JSON}} under `reenact`. One entry, because safetensors writes several in no
    fixed order.
    """
    from safetensors.torch import save_file

    loaded, kind = load_weights_file(source)
    if not isinstance(loaded, Mapping):
        raise InvalidInput(f"it holds a {type(loaded).__name__}, expected tensors by name")
    left = {first for name in loaded if (first := str(name).split(".")[0]) in drop_prefixes}
    found: dict[str, Any] = {}
    kept = {k: v for k, v in loaded.items() if str(k).split(".")[0] not in left}
    try:
        for name, tensor in find_tensors(kept):
            if name in found:
                raise InvalidInput(f"two tensors would be called {name}")
            found[name] = tensor
    except ValueError as error:
        raise InvalidInput(f"not a file of tensors alone: {error}") from error
    if not found:
        raise InvalidInput("no tensor in the file" + (f" beside {', '.join(sorted(left))}" if left else ""))
    beside = {path.name: read_weights_settings(path) for path in settings}
    header = {"reenact": json.dumps({"settings": beside}, sort_keys=True)} if beside else None
    save_file(dict(sorted(found.items())), target, metadata=header)
    return {"tensors": len(found), "format": kind, "left": sorted(left)}


def load_weights_file(source: Path) -> tuple[Any, str]:
    """What a file holds, and its format. The suffix tells formats that are their authors' own, the content
    torch's from TorchScript's and from a plain pickle (.pkl)."""
    read = _READERS.get(source.suffix.lower())
    if read is not None:
        kind, reader = read
        return _as_tensors(reader(source)), kind
    if is_torchscript(source):
        return read_torchscript_tensors(source), "torchscript"
    if source.suffix.lower() in PICKLE_SUFFIXES and not is_torch_file(source):
        return read_pickled_tensors(source), "pickle"
    return load_torch_file(source), "torch"


def is_torch_file(source: Path) -> bool:
    """By its first bytes: torch's old format, or the zip of the new one."""
    with source.open("rb") as stream:
        start = stream.read(len(TORCH_LEGACY_MAGIC))
    return start == TORCH_LEGACY_MAGIC or start[:2] == b"PK"


def _as_tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    import numpy as np
    import torch

    return {
        name: torch.from_numpy(one) if isinstance(one, np.ndarray) else one for name, one in arrays.items()
    }


def _read_safetensors(source: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(source)
    except SafetensorError as error:
        raise InvalidInput(f"not a file of tensors alone: {str(error).splitlines()[0]}") from error


_READERS: dict[str, tuple[str, Callable[[Path], Mapping[str, Any]]]] = {
    ".safetensors": ("safetensors", _read_safetensors),
    ".params": ("mxnet", read_mxnet_params),
    ".npz": ("numpy", read_numpy_arrays),
    ".npy": ("numpy", read_numpy_arrays),
    ".mat": ("matlab", read_matlab_arrays),
    ".onnx": ("onnx", read_onnx_initialisers),
}


def load_torch_file(source: Path) -> Any:
    """torch's own format, old and new, with tensors, plain values, numpy's arrays and numbers, and settings
    as argparse gives them."""
    import torch

    stubs: Any = [(stub, f"{module}.{name}") for (module, name), stub in NUMPY_STUBS.items()]
    stubs.append((ObjectStub, "argparse.Namespace"))
    try:
        with torch.serialization.safe_globals(stubs):
            return torch.load(source, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise  # the machine, not the file
    except Exception as error:  # bytes that are no pickle make pickle raise anything
        if "allocate memory" in str(error):
            raise MemoryError(str(error).splitlines()[0]) from error
        raise InvalidInput(f"not a file of tensors alone: {one_line_error_message(error)}") from error


def one_line_error_message(error: Exception) -> str:
    """What is wrong with the file, without torch's advice on how to load it all the same."""
    if code := re.search(r"(?i)unsupported global:? (?:GLOBAL )?([\w.]+)", str(error)):
        return f"it calls {code[1]}"
    if isinstance(error, RuntimeError) and str(error):
        return str(error).splitlines()[0]
    return "it is cut off, or in no format of torch's"


def read_weights_settings(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_SETTINGS_BYTES:
        raise InvalidInput(
            f"{path.name} has {path.stat().st_size} bytes; settings have less than {MAX_SETTINGS_BYTES}"
        )
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise InvalidInput(f"{path.name} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{path.name} holds a {type(value).__name__}, expected an object of settings")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m storage.weights_import")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--drop-prefixes", nargs="*", default=())
    parser.add_argument("--settings", nargs="*", type=Path, default=())
    arguments = parser.parse_args()
    try:
        found = convert_checkpoint_to_safetensors(
            arguments.source, arguments.target, arguments.settings, arguments.drop_prefixes
        )
    except InvalidInput as error:
        found = {"error": str(error)}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
