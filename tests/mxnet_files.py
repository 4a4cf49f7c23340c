"""Files in MXNet's formats, written by the layout of its serialisation, not by the code that reads them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = {1: 0xF993FAC8, 2: 0xF993FAC9, 3: 0xF993FACA}
FLAGS = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}


def array_bytes(array: np.ndarray, version: int = 2, storage: int = 0) -> bytes:
    """version 0: the layout before there was a magic, whose lengths have 4 bytes."""
    head = b"" if version == 0 else struct.pack("<I", MAGIC[version])
    head += struct.pack("<i", storage) if version >= 2 else b""
    head += struct.pack("<I", array.ndim) + struct.pack(
        f"<{array.ndim}{'q' if version else 'I'}", *array.shape
    )
    context = struct.pack("<ii", 1, 0)  # a CPU's memory
    return head + context + struct.pack("<i", FLAGS[array.dtype.name]) + array.tobytes()


def params_bytes(arrays: Mapping[str, np.ndarray], version: int = 2) -> bytes:
    body = b"".join(array_bytes(array, version) for array in arrays.values())
    names = b"".join(struct.pack("<Q", len(name.encode())) + name.encode() for name in arrays)
    count = struct.pack("<Q", len(arrays))
    return struct.pack("<QQ", 0x112, 0) + count + body + count + names


class SymbolWriter:
    """Builds a symbol's JSON as `Symbol.tojson` lays it out, and keeps its arrays."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = [{"op": "null", "name": "data", "inputs": []}]
        self.arrays: dict[str, np.ndarray] = {}

    def array(self, name: str, values: Any, kind: str = "arg") -> int:
        self.arrays[f"{kind}:{name}"] = np.asarray(values, np.float32)
        self.nodes.append({"op": "null", "name": name, "inputs": []})
        return len(self.nodes) - 1

    def add(self, op: str, name: str, inputs: Sequence[int], **settings: Any) -> int:
        attributes = {key: str(value) for key, value in settings.items()}
        self.nodes.append(
            {"op": op, "name": name, "attrs": attributes, "inputs": [[i, 0, 0] for i in inputs]}
        )
        return len(self.nodes) - 1

    def graph(self) -> dict[str, Any]:
        """With what a reader does not need, as the real files have it."""
        arguments = [i for i, node in enumerate(self.nodes) if node["op"] == "null"]
        rows, version = list(range(len(self.nodes) + 1)), {"mxnet_version": ["int", 10500]}
        heads = [[len(self.nodes) - 1, 0, 0]]
        return {
            "nodes": self.nodes, "arg_nodes": arguments, "node_row_ptr": rows, "heads": heads,
            "attrs": version,
        }  # fmt: skip

    def save(self, folder: Path, name: str = "A3", epoch: int = 70) -> Path:
        (folder / f"{name}-symbol.json").write_text(json.dumps(self.graph()))
        path = folder / f"{name}-{epoch:04d}.params"
        path.write_bytes(params_bytes(self.arrays))
        return path
