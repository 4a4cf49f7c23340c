"""Run alone, in its own process: a checkpoint file -> safetensors. Loads tensors only, never code.

python -m storage.weights_import SOURCE TARGET     prints {"tensors": n, "format": ...}
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor of a nested dict, named by its dotted path; counters and settings are left behind."""
    import torch

    if isinstance(value, torch.Tensor):
        yield prefix, value.detach().contiguous().clone()
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from tensors(inner, f"{prefix}.{name}" if prefix else str(name))


def convert(source: Path, target: Path) -> dict[str, Any]:
    """Returns what was found. Raises ValueError for a file that holds more than tensors and plain values."""
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
    save_file(dict(sorted(found.items())), target)
    return {"tensors": len(found), "format": kind}


def main() -> None:
    sys.stdout.write(json.dumps(convert(Path(sys.argv[1]), Path(sys.argv[2]))))


if __name__ == "__main__":
    main()
