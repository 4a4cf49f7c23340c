"""What an error means: the user's mistake, bad data, a failure that may pass, or a fault of the code.

Only the classes listed here mean anything. No built-in class does: a ValueError or an OSError that nobody
translated is a fault of the code, and keeps its traceback wherever it was raised.
"""

from __future__ import annotations

import errno
import os
import stat
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from models.errors import InvalidFile, InvalidSettings
from storage.errors import DamagedFile, InvalidInput, StoreError, StoreUnreachable

MIN_FREE_BYTES = 2**16
"""Bytes that a disk must take of an output before work for it begins."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Full, and read-only: what a disk may become while a file is written."""
ErrorMeaning = Literal["user", "rejected", "transient", "store", "fault"]


class UserError(Exception):
    """Something the user can put right: one line, which says what was found, expected, and what to do."""


class Rejected(Exception):
    """Bad data, not a fault: recorded with this code and sentence, and not tried again under the same key."""

    def __init__(self, code: str, sentence: str):
        super().__init__(code, sentence)
        self.code = code
        self.sentence = sentence

    def __str__(self) -> str:
        return f"{self.code}: {self.sentence}"


class Transient(Exception):
    """Network, disk, memory or time ran out: retried, and never recorded as a fact about the data."""

    def __init__(self, message: str, soon: bool = True):
        super().__init__(message, soon)
        self.soon = soon
        """Whether trying again within this run may help; if not, the next run tries."""

    def __str__(self) -> str:
        return str(self.args[0])


class TooManyRejects(Exception):
    """A node rejected a larger share of its units than allowed; what was computed is kept."""


class CodeError(Exception):
    """A fault of the code in another process, in words that survive the way back: the message says where, the
    note is the traceback of the fault itself."""


ERROR_MEANINGS: dict[type[BaseException], ErrorMeaning] = {
    UserError: "user",
    InvalidInput: "user",
    InvalidSettings: "user",
    InvalidFile: "user",
    Rejected: "rejected",
    TooManyRejects: "rejected",
    Transient: "transient",
    StoreUnreachable: "transient",
    MemoryError: "transient",
    StoreError: "store",
    DamagedFile: "store",
}
"""store: ends the run with one line, exit 1; nothing that was published is lost."""


def error_meaning(error: BaseException) -> ErrorMeaning:
    """What this error means; "fault" for every class that is not listed."""
    for kind in type(error).__mro__:
        if kind in ERROR_MEANINGS:
            return ERROR_MEANINGS[kind]
    return "fault"


def prefix_error(error: Exception, where: str) -> Exception:
    """The same error with its origin (node, unit) in front of the text; it can be pickled."""
    if error_meaning(error) == "rejected":
        return error
    if isinstance(error, Transient):
        return Transient(f"{where}: {error}", error.soon)
    known = make_picklable(error)
    same = type(known)(f"{where}: {known}")
    same.__dict__.update(known.__dict__)
    return same


def write_user_output_file(path: Path, data: bytes) -> None:
    """Write a file that the user named; UserError, with the path, where it cannot be written."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise _unwritable(path, error) from None


@contextmanager
def replace_output_file(path: Path) -> Iterator[Path]:
    """A file in the folder of `path`, made now, that takes its name when the block ends well. UserError, with
    the path, where it cannot be made or given that name, or where the disk is full."""
    aside = path.with_name(f".{uuid.uuid4().hex[:8]}.partial{path.suffix.lower()}")
    try:
        try:
            with suppress(FileNotFoundError):
                if stat.S_ISDIR(path.stat().st_mode):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            aside.write_bytes(bytes(MIN_FREE_BYTES))
        except OSError as error:
            raise _unwritable(path, error) from None
        try:
            yield aside
            aside.replace(path)
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            aside.unlink()


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path}: {error.strerror}; give a file in a folder that is there and open")


def make_picklable(error: Exception) -> Exception:
    """The same error in a form that can be pickled: a fault becomes a CodeError with its traceback."""
    if error_meaning(error) != "fault" or isinstance(error, CodeError):
        return error
    fault = CodeError(f"{type(error).__name__}: {error}")
    fault.add_note(format_traceback(error))
    return fault


def format_traceback(error: BaseException) -> str:
    """Where the code failed: in the process that it failed in, where an error brought that along."""
    notes = getattr(error, "__notes__", None)
    return "\n".join(notes) if notes else "".join(traceback.format_exception(error)).rstrip()


def error_first_line(error: BaseException) -> str:
    """The first line of an error's text, else its class."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
