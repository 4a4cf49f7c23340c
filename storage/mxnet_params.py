"""Apache MXNet's `.params` files: arrays by name, as `mx.nd.save` and a checkpoint's epoch write them.

All numbers are little-endian. A file is the magic 0x112 and a reserved number (8 bytes each), the number of
arrays, the arrays, the number of names, the names (length and text each). An array is

| version | layout |
|---|---|
| 3, 2 | magic, kind of storage (0 = dense), dimensions and their lengths of 8 bytes, device, dtype, values |
| 1 | magic, dimensions and their lengths of 8 bytes, device, dtype, values |
| before | dimensions and their lengths of 4 bytes, device, dtype, values |

Values lie row by row. Names begin with `arg:` or `aux:` (running statistics).
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from storage.errors import InvalidInput

FILE_MAGIC, VERSION_1, VERSION_2, VERSION_3 = 0x112, 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DTYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8"}
MAX_DIMENSIONS, MAX_NAME_BYTES = 32, 4096


class _Bytes:
    """What is left of a file."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = memoryview(data), 0

    def skip(self, count: int, what: str) -> memoryview:
        """The next `count` bytes."""
        if count < 0 or count > len(self.data) - self.at:
            raise InvalidInput(
                f"{what} at byte {self.at} has {count} bytes, the file {len(self.data) - self.at} more: is "
                "it cut off?"
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, kind: str, what: str) -> int:
        """kind: of struct, such as Q."""
        return struct.unpack(f"<{kind}", self.skip(struct.calcsize(f"<{kind}"), what))[0]


def read_mxnet_params(path: Path) -> dict[str, np.ndarray]:
    """A .params file -> its arrays by name, in the file's dtypes. InvalidInput for a file of another kind,
    one that is cut off, and for sparse arrays."""
    source = _Bytes(path.read_bytes())
    if (found := source.number("Q", "the magic")) != FILE_MAGIC:
        raise InvalidInput(f"no file of MXNet's arrays: it begins with {found:#x}, expected {FILE_MAGIC:#x}")
    source.number("Q", "the reserved number")
    arrays = [_read_array(source, i) for i in range(_count(source, "arrays"))]
    names = [_read_name(source, i) for i in range(_count(source, "names"))]
    if len(names) != len(arrays) or len(set(names)) != len(names):
        raise InvalidInput(
            f"{len(names)} names ({len(set(names))} of them different) for {len(arrays)} arrays"
        )
    return dict(zip(names, arrays, strict=True))


def _count(source: _Bytes, what: str) -> int:
    count = source.number("Q", f"the number of {what}")
    if count > len(source.data):
        raise InvalidInput(f"{count} {what} in a file of {len(source.data)} bytes")
    return count


def _read_name(source: _Bytes, at: int) -> str:
    what = f"name {at}"
    length = source.number("Q", what)
    if length > MAX_NAME_BYTES:
        raise InvalidInput(f"{what} has {length} bytes, expected at most {MAX_NAME_BYTES}")
    name = bytes(source.skip(length, what)).decode("utf-8", "replace")
    if not name.isprintable():
        raise InvalidInput(f"{what} {name[:40]!r}: expected printable text")
    return name


def _read_array(source: _Bytes, at: int) -> np.ndarray:
    what = f"array {at}"
    version = source.number("I", what)
    if version in (VERSION_2, VERSION_3) and (kind := source.number("i", what)) != 0:
        raise InvalidInput(f"{what} is stored in way {kind}, expected 0: sparse arrays are not read")
    legacy = version not in (VERSION_1, VERSION_2, VERSION_3)
    dimensions = version if legacy else source.number("i", what)
    if not 0 < dimensions <= MAX_DIMENSIONS:
        raise InvalidInput(f"{what} has {dimensions} dimensions, expected 1 to {MAX_DIMENSIONS}")
    shape = [source.number("I" if legacy else "q", f"the shape of {what}") for _ in range(dimensions)]
    if min(shape) < 0:
        raise InvalidInput(f"{what} has shape {tuple(shape)}")
    source.skip(8, f"the device of {what}")
    if (flag := source.number("i", f"the dtype of {what}")) not in DTYPES:
        raise InvalidInput(f"{what} has dtype {flag}, expected one of {', '.join(map(str, DTYPES))}")
    dtype, count = np.dtype(DTYPES[flag]), 1
    for length in shape:
        count *= length  # Python's own numbers: no file can make them wrap round
    return (
        np.frombuffer(source.skip(count * dtype.itemsize, f"the values of {what}"), dtype)
        .reshape(shape)
        .copy()
    )
