"""The store: verbs over pyarrow.fs, the same on a local folder and in a bucket.

Publication: data is finished and hashed in a local temp file first, because pyarrow publishes a partial
object when a write raises half way. Local files are then synced and renamed, an object store gets one upload.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import ArrowInvalid, fs

from storage.errors import InvalidInput
from storage.uris import check_uri, joined, public_uri

_CHUNK = 1 << 20


class StoreError(OSError):
    """The store itself failed: full, gone or not writable. Never recorded as an answer about the data."""


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    size: int
    mtime: float


class Store:
    """A root folder or bucket prefix. Paths are relative to it and come from `storage.locations`."""

    def __init__(self, uri: str):
        check_uri(uri, "store")
        self.uri = uri
        if "://" in uri:
            try:
                self.fs, base = fs.FileSystem.from_uri(uri)
            except ArrowInvalid as error:
                raise InvalidInput(f"store {public_uri(uri)}: {error}") from None
        else:
            self.fs, base = fs.LocalFileSystem(), os.path.abspath(uri)
            self.uri = base
        self.base = base.rstrip("/")
        self.local = isinstance(self.fs, fs.LocalFileSystem)

    def __reduce__(self):
        return (Store, (self.uri,))

    def __repr__(self) -> str:
        return f"Store({public_uri(self.uri)!r})"

    def at(self, path: str) -> str:
        return f"{self.base}/{path}"

    def uri_of(self, path: str) -> str:
        """Absolute path (local) or URI (elsewhere): what another process needs to find it again."""
        return self.at(path) if self.local else joined(self.uri, path)

    # --- reading ---
    def exists(self, path: str) -> bool:
        return self.fs.get_file_info(self.at(path)).type != fs.FileType.NotFound

    def list(self, path: str) -> list[Entry]:
        """Files directly in a folder, by name; a folder that is not there is empty."""
        infos = self.fs.get_file_info(fs.FileSelector(self.at(path), allow_not_found=True))
        files = [Entry(i.base_name, i.size or 0, (i.mtime_ns or 0) / 1e9) for i in infos if i.is_file]
        return sorted(files, key=lambda e: e.name)

    def folders(self, path: str) -> list[str]:
        infos = self.fs.get_file_info(fs.FileSelector(self.at(path), allow_not_found=True))
        return sorted(i.base_name for i in infos if i.type == fs.FileType.Directory)

    def walk(self, path: str) -> list[Entry]:
        """Every file below a folder, named relative to the store's root."""
        selector = fs.FileSelector(self.at(path), recursive=True, allow_not_found=True)
        cut = len(self.base) + 1
        return [Entry(i.path[cut:], i.size or 0, (i.mtime_ns or 0) / 1e9)
                for i in self.fs.get_file_info(selector) if i.is_file]  # fmt: skip

    def read(self, path: str) -> bytes:
        with self.fs.open_input_file(self.at(path)) as stream:
            return stream.read()

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        with self.fs.open_input_file(self.at(path)) as stream:
            return stream.read_at(size, offset)

    def read_json(self, path: str) -> Any:
        return json.loads(self.read(path))

    def fetch(self, path: str) -> Path:
        """A local path holding this file's bytes: the file itself, or a copy in the temp folder."""
        if self.local:
            return Path(self.at(path))
        name = hashlib.sha256(self.uri_of(path).encode()).hexdigest()
        target = Path(tempfile.gettempdir()) / "reenact-fetch" / name / Path(path).name
        info = self.fs.get_file_info(self.at(path))
        if info.type == fs.FileType.NotFound:
            raise FileNotFoundError(f"{public_uri(self.uri)}/{path} is not there")
        if not target.exists() or target.stat().st_size != info.size:
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
            with self.fs.open_input_stream(self.at(path)) as source, aside.open("wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK)
            aside.replace(target)
        return target

    # --- writing ---
    def put(self, local: Path, path: str) -> None:
        """Publish a finished local file (moved away when it can be)."""
        with self._named_errors(path):
            if self.local:
                self._place(local, Path(self.at(path)))
                return
            with local.open("rb") as source, self.fs.open_output_stream(self.at(path)) as sink:
                shutil.copyfileobj(source, sink, _CHUNK)
        found, expected = self.fs.get_file_info(self.at(path)).size, local.stat().st_size
        if found != expected:
            raise StoreError(f"{path}: {found} bytes arrived of {expected}; run again")

    def write(self, path: str, data: bytes) -> None:
        with self.scratch() as folder:
            aside = folder / "data"
            with self._named_errors(path):
                aside.write_bytes(data)
            self.put(aside, path)

    def write_json(self, path: str, value: Any) -> None:
        self.write(path, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())

    def delete(self, path: str) -> None:
        if self.exists(path):
            self.fs.delete_file(self.at(path))

    def delete_tree(self, path: str) -> None:
        if self.exists(path):
            self.fs.delete_dir(self.at(path))

    def check_writable(self) -> None:
        """Fail before any work when the store cannot take it."""
        probe = f"tmp/{uuid.uuid4().hex}"
        self.write(probe, b"")
        self.delete(probe)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A local folder for files in the making; in the store's own file system where that is local."""
        parent = None
        if self.local:
            parent = self.at("tmp")
            with self._named_errors("tmp"):
                os.makedirs(parent, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix="reenact-") as folder:
            yield Path(folder)

    def _place(self, local: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if local.stat().st_dev != target.parent.stat().st_dev:
            aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            shutil.copyfile(local, aside)
            local = aside
        with local.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(local, target)

    @contextmanager
    def _named_errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = {
                errno.ENOSPC: "the disk is full; free some space (`reenact gc`) and run again",
                errno.EACCES: "no permission to write there",
                errno.EROFS: "that file system is read-only",
            }.get(error.errno or 0, str(error))
            raise StoreError(
                error.errno or errno.EIO, f"cannot write {path} in store {public_uri(self.uri)}: {why}"
            ) from error


def sha256_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
