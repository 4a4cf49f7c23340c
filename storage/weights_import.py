"""Run alone, in its own process: a checkpoint file -> safetensors. Loads tensors only, never code.

python -m storage.weights_import SOURCE TARGET [--drop-prefixes NAME ...] [--settings FILE.json ...]
prints {"tensors": n, "format": ..., "left": [...]}, or {"error": why} of a file of other things; what
else goes wrong ends with a traceback.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from storage.errors import InvalidInput
from storage.mxnet_params import read_mxnet_params

MAX_SETTINGS_BYTES = 2**20
NUMPY_NUMBER_CLASSES = ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
"""What a pickle calls to make numpy's own numbers: training scripts keep their best score as one."""


class NumpyNumberStub:
    """Stands in for all of NUMPY_NUMBER_CLASSES: takes what the file gives and keeps nothing.

    Counters are left behind anyway. numpy's own functions would be called with whatever a file chooses, and
    a made-up dtype can make them read memory as pointers.
    """

    def __init__(self, *_given: object) -> None: ...

    def __setstate__(self, _state: object) -> None: ...


def find_tensors(value: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor of a nested dict, named by its dotted path; counters and settings are left behind."""
    import torch

    if isinstance(value, torch.Tensor):
        yield prefix, value.detach().contiguous().clone()
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
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    if source.suffix == ".safetensors":
        try:
            loaded, kind = load_file(source), "safetensors"
        except SafetensorError as error:
            raise InvalidInput(f"not a file of tensors alone: {str(error).splitlines()[0]}") from error
    elif source.suffix == ".params":
        import torch

        loaded = {name: torch.from_numpy(array) for name, array in read_mxnet_params(source).items()}
        kind = "mxnet"
    else:
        loaded, kind = load_torch_file(source), "torch"
    if not isinstance(loaded, Mapping):
        raise InvalidInput(f"it holds a {type(loaded).__name__}, expected tensors by name")
    left = {first for name in loaded if (first := str(name).split(".")[0]) in drop_prefixes}
    found: dict[str, Any] = {}
    for name, tensor in find_tensors({k: v for k, v in loaded.items() if str(k).split(".")[0] not in left}):
        if name in found:
            raise InvalidInput(f"two tensors would be called {name}")
        found[name] = tensor
    if not found:
        raise InvalidInput("no tensor in the file" + (f" beside {', '.join(sorted(left))}" if left else ""))
    beside = {path.name: read_weights_settings(path) for path in settings}
    header = {"reenact": json.dumps({"settings": beside}, sort_keys=True)} if beside else None
    save_file(dict(sorted(found.items())), target, metadata=header)
    return {"tensors": len(found), "format": kind, "left": sorted(left)}


def load_torch_file(source: Path) -> Any:
    """torch's own format, old and new, with tensors, plain values and numpy's numbers."""
    import torch

    numbers: Any = [(NumpyNumberStub, name) for name in NUMPY_NUMBER_CLASSES]
    try:
        with torch.serialization.safe_globals(numbers):
            return torch.load(source, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise  # the machine, not the file
    except Exception as error:  # bytes that are no pickle make pickle raise anything
        if "allocate memory" in str(error):
            raise MemoryError(str(error).splitlines()[0]) from error
        raise InvalidInput(f"not a file of tensors alone: {one_line_error_message(error)}") from error


def one_line_error_message(error: Exception) -> str:
    """What is wrong with the file, without torch's advice on how to load it all the same."""
    if code := re.search(r"Unsupported global: GLOBAL ([\w.]+)", str(error)):
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
