"""Facts derived from local files, kept from one command to the next."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORM = 2
"""Of the cache file; raise it when that changes: another form is ignored."""


class FileCache:
    """Facts by (path, size, mtime, inode) in one small JSON file. Any thread may ask. maker: names what makes
    the facts; those of another one are ignored."""

    def __init__(self, path: Path, maker: str = ""):
        self.path, self.maker = path, maker
        self._lock = threading.Lock()
        self._dirty = False
        self._facts = _read(path, maker)

    def get(self, file: Path, make: Callable[[], Any]) -> Any:
        stat = file.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        name = str(file.resolve())
        if (known := self._facts.get(name)) is None or known[0] != stamp:
            known = [stamp, make()]
            with self._lock:
                self._facts[name] = known
                self._dirty = True
        return known[1]

    def save(self) -> None:
        """Write aside and rename; a cache that cannot be written is only slower, so that is not an error."""
        with self._lock:  # another thread may add facts meanwhile
            if not self._dirty:
                return
            text = json.dumps({"form": FORM, "maker": self.maker, "facts": self._facts})
            self._dirty = False
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}-{threading.get_ident()}")
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(text)
            aside.replace(self.path)
        with contextlib.suppress(OSError):  # still there where it could not be finished or renamed
            aside.unlink()


def _read(path: Path, maker: str) -> dict[str, list[Any]]:
    """The facts of a cache file; none of one that cannot be read, is cut short, or of another form or
    maker."""
    try:
        held = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(held, dict) or not isinstance(held.get("facts"), dict):
        return {}
    if (held.get("form"), held.get("maker")) != (FORM, maker):
        return {}
    return {name: fact for name, fact in held["facts"].items() if isinstance(fact, list) and len(fact) == 2}
