"""Facts derived from local files, kept from one command to the next."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

CACHE_VERSION = 2
"""Of the cache file; raise it when that changes: another form is ignored."""
_ABOUT = "\n"


class FileFactCache:
    """Facts about files and folders in one JSON file, which is read when the first fact is wanted. Any thread
    may ask. maker: names what makes the facts; those of another one are ignored."""

    def __init__(self, path: Path, maker: str = ""):
        self.path, self.maker = path, maker
        self._lock = threading.Lock()
        self._dirty = False

    @cached_property
    def _facts(self) -> dict[str, list[Any]]:
        return _read(self.path, self.maker)

    def get(self, file: Path, make: Callable[[], Any], about: str = "", stamp: str = "") -> Any:
        """A fact about a file, made anew when the file's size, time or inode changed. about: which one of
        several facts; stamp: what to go by instead, of a folder for example."""
        if stamp:
            known_by: Any = stamp
        else:
            stat = file.stat()
            known_by = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        name = f"{file.resolve()}{_ABOUT}{about}" if about else str(file.resolve())
        if (known := self._facts.get(name)) is None or known[0] != known_by:
            known = [known_by, make()]
            with self._lock:
                self._facts[name] = known
                self._dirty = True
        return known[1]

    def save(self) -> None:
        """Write aside and rename, without the facts about files that are gone. A cache that cannot be written
        is only slower, so that is not an error."""
        with self._lock:  # another thread may add facts meanwhile
            if not self._dirty:
                return
            with contextlib.suppress(OSError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
            held = {name: fact for name, fact in self._facts.items() if Path(name.split(_ABOUT)[0]).exists()}
            text = json.dumps({"form": CACHE_VERSION, "maker": self.maker, "facts": held})
            self._dirty = False
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}-{threading.get_ident()}")
        with contextlib.suppress(OSError):
            aside.write_text(text)
            aside.replace(self.path)
        with contextlib.suppress(OSError):  # still there where it could not be finished or renamed
            aside.unlink()


def folders_stamp(folders: Iterable[Path], suffix: str) -> str:
    """32 hex digits that change with the name, size, time or inode of any file of that suffix below the
    folders, whose contents are not read."""
    total = hashlib.blake2b(digest_size=16)
    for folder in folders:
        for at, below, names in os.walk(folder):
            below.sort()
            for name in sorted(name for name in names if name.endswith(suffix)):
                stat = os.stat(os.path.join(at, name))
                total.update(f"{at}/{name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}\n".encode())
    return total.hexdigest()


def _read(path: Path, maker: str) -> dict[str, list[Any]]:
    """The facts of a cache file; none of one that cannot be read, is cut short, or of another form or
    maker."""
    try:
        held = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(held, dict) or not isinstance(held.get("facts"), dict):
        return {}
    if (held.get("form"), held.get("maker")) != (CACHE_VERSION, maker):
        return {}
    return {name: fact for name, fact in held["facts"].items() if isinstance(fact, list) and len(fact) == 2}
