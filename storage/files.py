"""The store: verbs over pyarrow.fs, the same on a local folder and in a bucket.

Publication: data is finished and hashed in a local temp file first, because pyarrow publishes a partial
object when a write raises half way. Local files are then synced and renamed, an object store gets one upload.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct
from pyarrow import ArrowInvalid, fs

from storage.content_cache import ContentCache, remote_object_version
from storage.errors import DamagedFile, InvalidInput, StoreError, StoreUnreachable
from storage.uris import absolute_uri, format_store_option, join_uri, public_uri, reject_credentials

_CHUNK = 1 << 20
_UNUSABLE = {
    errno.ENOSPC: "the disk is full; free some space (`reenact gc{option}`) and run again",
    errno.EDQUOT: "the disk quota is used up; free some space (`reenact gc{option}`) and run again",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EROFS: "that file system is read-only",
    errno.ENOENT: "its folder is not there and cannot be made",
    errno.ENOTDIR: "something in its path is a file, not a folder",
    errno.EISDIR: "a folder is in its place",
}
_REFUSED = re.compile(r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|\b40[13]\b")
"""How an object store says that no other try will help."""


class FileEntry(Struct, frozen=True):
    name: str
    size: int
    mtime: float


class Store:
    """A root folder or bucket prefix. Paths are relative to it and come from `storage.locations`."""

    def __init__(self, uri: str):
        reject_credentials(uri, "store")
        self.uri = absolute_uri(uri)
        if "://" in self.uri:
            try:
                self.fs, base = fs.FileSystem.from_uri(self.uri)
            except ArrowInvalid as error:
                raise InvalidInput(f"store {public_uri(uri)}: {error}") from None
        else:
            self.fs, base = fs.LocalFileSystem(), self.uri
        self.base = base.rstrip("/")
        self.local = isinstance(self.fs, fs.LocalFileSystem)

    def __reduce__(self):
        return (Store, (self.uri,))

    def __repr__(self) -> str:
        return f"Store({public_uri(self.uri)!r})"

    def damage_error(self, found: str) -> DamagedFile:
        """The error about a file that is not what its record says: what was found, and what to do."""
        verify = f"reenact verify{format_store_option(self.uri)}"
        return DamagedFile(f"{found}; delete the file and run again (`{verify}` finds all faults)")

    def full_path(self, path: str) -> str:
        return f"{self.base}/{path}"

    def uri_of(self, path: str) -> str:
        """Absolute path (local) or URI (elsewhere): what another process needs to find it again."""
        return self.full_path(path) if self.local else join_uri(self.uri, path)

    # --- reading ---
    @contextmanager
    def open(self, path: str) -> Iterator[Any]:
        """A stream of a published file that can seek. FileNotFoundError where it is not there."""
        with self._errors_of("read", path), self.fs.open_input_file(self.full_path(path)) as stream:
            yield stream

    @contextmanager
    def stream(self, path: str) -> Iterator[Any]:
        """As `open`, to be read once from its start: an object store is asked once."""
        with self._errors_of("read", path), self.fs.open_input_stream(self.full_path(path)) as stream:
            yield stream

    def file_infos(self, paths: Sequence[str]) -> Sequence[fs.FileInfo]:
        """What is there of these, in one request."""
        with self._errors_of("look for", ", ".join(paths[:2])):
            return self.fs.get_file_info([self.full_path(path) for path in paths])

    def exists(self, path: str) -> bool:
        with self._errors_of("look for", path):
            return self.fs.get_file_info(self.full_path(path)).type != fs.FileType.NotFound

    def _infos(self, path: str, recursive: bool = False) -> list[fs.FileInfo]:
        with self._errors_of("list", path):
            below = fs.FileSelector(self.full_path(path), recursive=recursive, allow_not_found=True)
            with suppress(FileNotFoundError):  # Arrow raises where the folder comes to be while it looks
                return self.fs.get_file_info(below)
            return self.fs.get_file_info(below)

    def list(self, path: str) -> list[FileEntry]:
        """Files directly in a folder, by name; a folder that is not there is empty."""
        infos = self._infos(path)
        files = [FileEntry(i.base_name, i.size or 0, (i.mtime_ns or 0) / 1e9) for i in infos if i.is_file]
        return sorted(files, key=lambda e: e.name)

    def list_folders(self, path: str) -> list[str]:
        return sorted(i.base_name for i in self._infos(path) if i.type == fs.FileType.Directory)

    def walk(self, path: str) -> list[FileEntry]:
        """Every file below a folder, named relative to the store's root."""
        cut = len(self.base) + 1
        return [FileEntry(i.path[cut:], i.size or 0, (i.mtime_ns or 0) / 1e9)
                for i in self._infos(path, recursive=True) if i.is_file]  # fmt: skip

    def read(self, path: str) -> bytes:
        with self.open(path) as stream:
            return stream.read()

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        with self.open(path) as stream:
            return stream.read_at(size, offset)

    def read_json(self, path: str, *names: str) -> Any:
        """A small file's value; with `names`, an object that has these entries. Damaged, which names the
        file, for anything else."""
        try:
            value = json.loads(self.read(path))
        except ValueError as error:
            raise DamagedFile(f"{path} is not whole JSON ({error})") from error
        if names and not isinstance(value, dict):
            raise DamagedFile(f"{path} holds a {type(value).__name__}, expected an object")
        if missing := [name for name in names if name not in value]:
            raise DamagedFile(f"{path} has no {', '.join(missing)}")
        return value

    def fetch(self, path: str, sha256: str = "") -> Path:
        """A local path holding this file's bytes: the file itself, or a copy that is known to hold them.

        sha256: of the content, where a record says it; such a copy is used again without a request. So is one
        of the same ETag. Where the store gives none, the file is read each time. A copy stays for as long as
        newer ones leave room (storage.content_cache): open it at once.
        """
        if self.local:
            return Path(self.full_path(path))
        copies, name = ContentCache(), path.rsplit("/", 1)[-1]
        if sha256 and (copy := copies.find(sha256, name)):
            return copy
        with self.open(path) as source:
            content = sha256 or remote_object_version(self.uri_of(path), source.metadata())
            if content and (copy := copies.find(content, name)):
                return copy
            with copies.temporary_path() as aside:
                with aside.open("xb") as sink:
                    shutil.copyfileobj(source, sink, _CHUNK)
                found = sha256_file(aside)
                if sha256 and found != sha256:
                    raise DamagedFile(f"{path}: its sha256 is {found[:16]}..., on record is {sha256[:16]}...")
                return copies.add(aside, content or found, name)

    # --- writing ---
    def put(self, local: Path, path: str) -> None:
        """Publish a finished local file (moved away when it can be)."""
        with self._errors_of("write", path):
            if self.local:
                self._place(local, Path(self.full_path(path)))
                return
            with local.open("rb") as source, self.fs.open_output_stream(self.full_path(path)) as sink:
                shutil.copyfileobj(source, sink, _CHUNK)
            found, expected = self.fs.get_file_info(self.full_path(path)).size, local.stat().st_size
        if found != expected:
            raise StoreUnreachable(f"{path}: {found} bytes arrived of {expected} in {self}; run again")

    def write(self, path: str, data: bytes) -> None:
        with self.scratch_folder() as folder:
            aside = folder / "data"
            with self._errors_of("write", path):
                aside.write_bytes(data)
            self.put(aside, path)

    def write_json(self, path: str, value: object) -> None:
        self.write(path, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())

    def delete(self, path: str) -> None:
        """Gone already, or taken away meanwhile by another process, is as good."""
        with suppress(FileNotFoundError), self._errors_of("delete", path):
            self.fs.delete_file(self.full_path(path))

    def delete_tree(self, path: str) -> None:
        """As `delete`, of a folder and all below it."""
        with self._errors_of("delete", path):
            while self.fs.get_file_info(self.full_path(path)).type == fs.FileType.Directory:
                with suppress(FileNotFoundError):  # another process deletes it too: look again
                    self.fs.delete_dir(self.full_path(path))

    def check_writable(self) -> None:
        """Fail before any work when the store cannot take it."""
        probe = f"tmp/{uuid.uuid4().hex}"
        self.write(probe, b"")
        self.delete(probe)

    @contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        """A local folder for files in the making; in the store's own file system where that is local."""
        parent = None
        if self.local:
            parent = self.full_path("tmp")
            with self._errors_of("write", "tmp"):
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
    def _errors_of(self, doing: str, path: str) -> Iterator[None]:
        """What the file system says, as one of our own classes: no other try will help (StoreError), or one
        may (StoreUnreachable). That a file is not there stays FileNotFoundError, except when writing."""
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError) and doing != "write":
                raise
            at = f"cannot {doing} {path or 'its root'} in store {public_uri(self.uri)}"
            if (why := _UNUSABLE.get(error.errno or 0)) or _REFUSED.search(str(error)):
                reason = why.format(option=format_store_option(self.uri)) if why else error
                raise StoreError(f"{at}: {reason}") from error
            raise StoreUnreachable(f"{at}: {error}") from error


def sha256_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
