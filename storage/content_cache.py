"""Local copies of what a remote store holds, for code that needs a file: found by content, never by size or
time, in a private folder with a bound.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

from storage.uris import expand_home

log = logging.getLogger(__name__)

MAX_CACHE_BYTES = 20 * 2**30
"""What the copies may take together; the least recently used go first."""


def cache_folder() -> Path:
    """Where everything goes that can be made again: REENACT_CACHE, else a folder in the working directory."""
    return Path(expand_home(os.environ.get("REENACT_CACHE") or ".reenact/cache")).absolute()


def remote_object_version(uri: str, metadata: Mapping[object, object] | None) -> str:
    """A name for one state of a remote object, from what its store changes with the content: the ETag that S3
    and others give. "" where the store gives none, and only reading tells whether the object changed."""
    facts = {_text(name).lower(): _text(value) for name, value in (metadata or {}).items()}
    tag = facts.get("etag", "")
    return f"etag-{sha256(f'{uri} {tag}'.encode()).hexdigest()}" if tag else ""


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def writable_cache_folder(name: str) -> Path:
    """A folder of this user's own, for copies and for files in the making: `name` in the cache, or beside
    that where it is another user's, or a temporary one where the cache takes nothing."""
    return _working(cache_folder(), name, os.getuid())


@cache
def _working(within: Path, name: str, user: int) -> Path:
    if can_create_files(within / name, user):
        return within / name
    if can_create_files(within / f"{name}-{user}"):
        return within / f"{name}-{user}"
    folder = _temporary(user) / name
    log.warning("the cache %s cannot be written; %s is used for now (REENACT_CACHE sets it)", within, folder)
    folder.mkdir(exist_ok=True)
    return folder


def can_create_files(folder: Path, owner: int | None = None) -> bool:
    """Whether files can be made in this folder, and it belongs to `owner`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if owner not in (None, folder.stat().st_uid):
            return False
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def is_writable(folder: Path) -> bool:
    """Whether this user may make files there, and the folder if it is missing; nothing is made."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _temporary(user: int) -> Path:
    """The same for all processes of this user, unless somebody else made something of that name."""
    folder = Path(tempfile.gettempdir()) / f"reenact-{user}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o077:
            return folder
    return Path(tempfile.mkdtemp(prefix="reenact-"))


class ContentCache:
    """Files by content: <folder>/<content>/<file name>. Processes may share the folder."""

    def __init__(self, folder: Path | None = None, most: int | None = None):
        self.folder = folder or writable_cache_folder("fetched")
        self.most = MAX_CACHE_BYTES if most is None else most

    def find(self, content: str, name: str) -> Path | None:
        path = self.folder / content / name
        with suppress(OSError):
            os.utime(path)  # its time is that of its last use
        return path if path.is_file() and os.access(path, os.R_OK) else None

    @contextmanager
    def temporary_path(self) -> Iterator[Path]:
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
                    facts = path.stat()
                    held.append((facts.st_mtime, facts.st_size, path))
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
