"""ONNX files: the initialisers (a net's weights) by name, and nothing of the graph.

An ONNX file is one protobuf message. Of its fields these are read; all others are skipped by their length:

| message | field: what |
|---|---|
| ModelProto | 7: graph |
| GraphProto | 5: initialisers |
| TensorProto | 1: dims, 2: data type, 8: name; values: 9 as bytes, else 4 float, 5 int32, 7 int64, |
| | 10 double, 11 uint64; 14: where the values are (1: in another file) |
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from storage.errors import InvalidInput

DTYPES = {
    1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8",
    12: "<u4", 13: "<u8",
}  # fmt: skip
"""TensorProto.DataType -> numpy's."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOATS, _INT32S, _INT64S, _DOUBLES, _UINT64S = 4, 5, 7, 10, 11
_EXTERNAL = 1

Value = int | memoryview


def read_onnx_initialisers(path: Path) -> dict[str, np.ndarray]:
    """InvalidInput for a file that is cut off or no ONNX, and for values that lie in another file."""
    data = memoryview(path.read_bytes())
    found: dict[str, np.ndarray] = {}
    for graph in _messages(data, 7):
        for tensor in _messages(graph, 5):
            name, array = _read_tensor(tensor)
            if name in found:
                raise InvalidInput(f"two initialisers are called {name}")
            found[name] = array
    if not found:
        raise InvalidInput("no ONNX file with initialisers")
    return found


def _messages(data: memoryview, wanted: int) -> Iterator[memoryview]:
    for number, value in _fields(data):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """Every field of a message: its number, and its bytes or whole number."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == _BYTES:
            length, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise InvalidInput(f"no ONNX file: a field of kind {kind}")
        if length > len(data) - at:
            raise InvalidInput(f"no whole ONNX file: a field of {length} bytes, {len(data) - at} are left")
        yield number, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A whole number of up to 64 bits, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            break
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise InvalidInput("no whole ONNX file: a number without an end")


def _read_tensor(data: memoryview) -> tuple[str, np.ndarray]:
    dims: list[int] = []
    values: dict[int, list[Value]] = {}
    kind, name, raw = 0, "", None
    for number, value in _fields(data):
        if number == 1:
            dims += [value] if isinstance(value, int) else _varints(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8 and isinstance(value, memoryview):
            name = bytes(value).decode("utf-8", "replace")
        elif number == 9 and isinstance(value, memoryview):
            raw = value
        elif number == 14 and value == _EXTERNAL:
            raise InvalidInput(f"the values of {name or 'an initialiser'} lie in another file")
        elif number in (_FLOATS, _INT32S, _INT64S, _DOUBLES, _UINT64S):
            values.setdefault(number, []).append(value)
    if not name or not name.isprintable():
        raise InvalidInput(f"an initialiser is called {name[:40]!r}")
    if kind not in DTYPES:
        raise InvalidInput(f"initialiser {name} has data type {kind}, expected one of {sorted(DTYPES)}")
    dtype = np.dtype(DTYPES[kind])
    flat = np.frombuffer(raw, dtype) if raw is not None and _fits(raw, dtype) else _typed(values, dtype)
    if raw is not None and not _fits(raw, dtype):
        raise InvalidInput(f"initialiser {name} has {len(raw)} bytes of {dtype}")
    if math.prod(dims) != len(flat):
        raise InvalidInput(f"initialiser {name} has shape {tuple(dims)} and {len(flat)} values")
    return name, flat.reshape(dims).copy()


def _fits(raw: memoryview, dtype: np.dtype) -> bool:
    return len(raw) % dtype.itemsize == 0


def _typed(values: dict[int, list[Value]], dtype: np.dtype) -> np.ndarray:
    """Values that are not given as bytes: floats one after the other, whole numbers as varints, and halves as
    the whole number that their bits are."""
    for number, kind in ((_FLOATS, "<f4"), (_DOUBLES, "<f8")):
        if number in values:
            packed = b"".join(bytes(one) for one in values[number] if isinstance(one, memoryview))
            if len(packed) % np.dtype(kind).itemsize:
                raise InvalidInput(f"an initialiser has {len(packed)} bytes of {kind}")
            return np.frombuffer(packed, kind).astype(dtype)
    found: list[int] = []
    for number in (_INT32S, _INT64S, _UINT64S):
        for one in values.get(number, ()):
            found += [one] if isinstance(one, int) else _varints(one)
    whole = np.array(found, np.uint64)
    if dtype.kind == "f":
        return whole.astype(np.uint16).view(dtype) if dtype.itemsize == 2 else np.empty(0, dtype)
    return whole.astype(dtype) if dtype.kind in "ub" else whole.view(np.int64).astype(dtype)


def _varints(data: memoryview) -> list[int]:
    at, found = 0, []
    while at < len(data):
        value, at = _varint(data, at)
        found.append(value)
    return found
