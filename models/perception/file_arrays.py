"""Arrays that a file from elsewhere holds, checked as they are read, so that errors name file and
field.
"""

from __future__ import annotations

import lzma
import tokenize
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO
from zipfile import BadZipFile, is_zipfile

import numpy as np

from models.errors import InvalidFile

READ_ERRORS = (
    OSError, EOFError, RuntimeError, MemoryError, BadZipFile, zlib.error, lzma.LZMAError,  # the zip
    ValueError, TypeError, SyntaxError, tokenize.TokenError,  # an array's header
)  # fmt: skip
"""What zipfile and numpy raise on files that are cut, changed, encrypted, or say that they are huge."""

Shape = tuple[int | None, ...]
"""None: any number, 1 or more."""


@dataclass(frozen=True, slots=True)
class FileArrays:
    """All checks raise InvalidFile: the file, the field, what was found, what is expected, what to do."""

    file: str
    """Its name, without folders."""
    what: str
    """What it should be, as "Deep3DFaceRecon's model"."""
    found: Mapping[str, Any]

    def require_fields(self, *names: str) -> None:
        if missing := [name for name in names if name not in self.found]:
            has = ", ".join(sorted(map(str, self.found))[:8]) or "nothing"
            raise InvalidFile(
                f"{self.file}: no {', '.join(missing)}; expected {self.what}, found {has}. {self._advice}"
            )

    def read_floats(
        self, name: str, shape: Shape, *, folded: bool = False, finite: bool = True
    ) -> np.ndarray:
        """-> float64, all finite unless they need not be, of this shape. folded: stored in another shape,
        read row by row into this one; its last lengths must be known.
        """
        array = self._array(name, "fiub", "numbers")
        if folded:
            row = int(np.prod([length or 1 for length in shape]))
            fits = array.size == row if None not in shape else array.size > 0 and array.size % row == 0
            array = array.reshape([-1 if length is None else length for length in shape]) if fits else array
        else:
            fits = _fits(array, shape)
        if not fits:
            raise self.field_error(name, f"has shape {array.shape}", _shape_text(shape))
        array = array.astype(np.float64)
        if finite and not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            raise self.field_error(name, f"holds {count} of {array.size} numbers not finite", "all finite")
        return array

    def read_index_array(
        self, name: str, shape: Shape, count: int, *, first: int = 0, folded: bool = False
    ) -> np.ndarray:
        """-> int64 from 0, each below `count`. first: the number that the file begins to count with."""
        array = self.read_floats(name, shape, folded=folded)
        integers = np.rint(array).astype(np.int64)
        if (integers != array).any():
            raise self.field_error(name, "holds fractions", "whole numbers")
        if integers.min() < first or integers.max() >= count + first:
            raise self.field_error(
                name, f"runs from {integers.min()} to {integers.max()}", f"{first} to {count + first - 1}"
            )
        return integers - first

    def read_text(self, name: str) -> str:
        return str(self._texts(name, ()))

    def read_texts(self, name: str) -> tuple[str, ...]:
        return tuple(map(str, self._texts(name, (None,))))

    def _texts(self, name: str, shape: Shape) -> np.ndarray:
        array = self._array(name, "U", "text")
        if not _fits(array, shape):
            raise self.field_error(name, f"has shape {array.shape}", _shape_text(shape))
        return array

    def _array(self, name: str, kinds: str, expected: str) -> np.ndarray:
        array = np.asarray(self.found[name])
        if array.dtype.kind not in kinds:
            raise self.field_error(name, f"is of type {array.dtype}", expected)
        return array

    def field_error(self, name: str, found: str, expected: str) -> InvalidFile:
        """The error to raise."""
        return InvalidFile(f"{self.file}: {name} {found}, expected {expected}. {self._advice}")

    @property
    def _advice(self) -> str:
        return f"Is it {self.what}, whole and unchanged?"


def read_npz(stream: BinaryIO, file: str, what: str) -> FileArrays:
    """All arrays of an npz; nothing in it is unpickled. file, what: as FileArrays has them. InvalidFile: it
    is none, or one of its arrays cannot be read.
    """
    found: dict[str, Any] = {}
    read = FileArrays(file, what, found)
    if not is_zipfile(stream):
        raise read.field_error("the file", "is no zip archive, or one cut short", "an npz")
    stream.seek(0)
    name = "the file"
    try:
        with np.load(stream, allow_pickle=False) as archive:
            for name in archive.files:
                found[name] = archive[name]
                if not isinstance(found[name], np.ndarray):  # numpy hands over what else lies in the zip
                    raise ValueError("it holds other bytes")
    except READ_ERRORS as error:
        raise read.field_error(name, f"cannot be read ({error})", "an array of an npz") from error
    return read


def _fits(array: np.ndarray, shape: Shape) -> bool:
    return len(array.shape) == len(shape) and all(
        have == wanted if wanted is not None else have > 0
        for have, wanted in zip(array.shape, shape, strict=True)
    )


def _shape_text(shape: Shape) -> str:
    """(None, 3) -> "(any, 3)"."""
    lengths = ["any" if length is None else str(length) for length in shape]
    return f"({', '.join(lengths)}{',' if len(lengths) == 1 else ''})"
