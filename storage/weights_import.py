"""Run alone, in its own process: a checkpoint file -> safetensors. Loads tensors only, never code.

python -m storage.weights_import SOURCE TARGET [SETTINGS.json ...]     prints {"tensors": n, "format": ...}
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MOST_SETTINGS = 2**20


def tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor of a nested dict, named by its dotted path; counters and settings are left behind."""
    import torch

    if isinstance(value, torch.Tensor):
        yield prefix, value.detach().contiguous().clone()
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from tensors(inner, f"{prefix}.{name}" if prefix else str(name))


def convert(source: Path, target: Path, settings: Sequence[Path] = ()) -> dict[str, Any]:
    """Returns what was found. Raises ValueError for a file that holds more than tensors and plain values.

    Settings go into the header as text: {"settings": {file name: its JSON}} under `reenact`. One entry,
    because safetensors writes several in no fixed order.
    """
    import pickle

    import torch
    from safetensors.torch import load_file, save_file

    if source.suffix == ".safetensors":
        found, kind = load_file(source), "safetensors"
    else:
        try:
            loaded = torch.load(source, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ValueError(f"not a file of tensors alone: {str(error).splitlines()[0]}") from error
        found, kind = dict(tensors(loaded)), "torch"
    if not found:
        raise ValueError("no tensor in the file")
    beside = {path.name: read_settings(path) for path in settings}
    header = {"reenact": json.dumps({"settings": beside}, sort_keys=True)} if beside else None
    save_file(dict(sorted(found.items())), target, metadata=header)
    return {"tensors": len(found), "format": kind}


def read_settings(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MOST_SETTINGS:
        raise ValueError(
            f"{path.name} has {path.stat().st_size} bytes; settings have less than {MOST_SETTINGS}"
        )
    value = json.loads(path.read_text())
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds a {type(value).__name__}, expected an object of settings")
    return value


def main() -> None:
    source, target, *settings = (Path(argument) for argument in sys.argv[1:])
    sys.stdout.write(json.dumps(convert(source, target, settings)))


if __name__ == "__main__":
    main()
