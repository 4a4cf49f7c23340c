"""Local copies of what a remote store holds, for code that needs a file: found by content, never by size or
time, in a private folder with a bound.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

MOST_BYTES = 20 * 2**30
"""What the copies may take together; the least recently used go first."""


def cache_folder() -> Path:
    """Where everything goes that can be made again: REENACT_CACHE, else a folder in the working directory."""
    return Path(os.environ.get("REENACT_CACHE") or ".reenact/cache").absolute()


def version(uri: str, metadata: Mapping[Any, Any] | None) -> str:
    """A name for one state of a remote object, from what its store changes with the content: the ETag that S3
    and others give. "" where the store gives none, and only reading tells whether the object changed."""
    facts = {_text(name).lower(): _text(value) for name, value in (metadata or {}).items()}
    tag = facts.get("etag", "")
    return f"etag-{sha256(f'{uri} {tag}'.encode()).hexdigest()}" if tag else ""


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


class Copies:
    """Files by content: <folder>/<content>/<file name>. Processes may share the folder."""

    def __init__(self, folder: Path | None = None, most: int | None = None):
        self.folder = folder or cache_folder() / "fetched"
        self.most = MOST_BYTES if most is None else most

    def find(self, content: str, name: str) -> Path | None:
        path = self.folder / content / name
        try:
            os.utime(path)  # its time is that of its last use
        except FileNotFoundError:
            return None
        return path

    @contextmanager
    def aside(self) -> Iterator[Path]:
        """A path for a copy in the making."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)  # a store's content is for those who may read the store
        path = self.folder / f"aside-{uuid.uuid4().hex}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def add(self, aside: Path, content: str, name: str) -> Path:
        """Take a finished copy in, and make room for it."""
        path = self.folder / content / name
        path.parent.mkdir(exist_ok=True)
        aside.replace(path)
        self._make_room(path)
        return path

    def _make_room(self, newest: Path) -> None:
        held: list[tuple[float, int, Path]] = []
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):  # another process makes room as well
                if path.is_file():
                    stat = path.stat()
                    held.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in held)
        for _, size, path in sorted(held):
            if total <= self.most:
                return
            if path == newest:
                continue
            path.unlink(missing_ok=True)
            total -= size
            if path.parent != self.folder:
                with suppress(OSError):  # not empty: another file with this content
                    path.parent.rmdir()
