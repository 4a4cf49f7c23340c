"""Mirrors: folders and object stores of videos named by their ids, read and never written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from storage.errors import StoreError, StoreUnreachable
from storage.files import Store
from storage.uris import public_uri

MIRROR_EXTENSIONS = ("mp4", "mkv", "webm", "mov", "m4v", "avi")
"""In this order: of a video that is there twice the first is taken."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
_CHUNK = 1 << 20


def candidate_file_names(ids: Iterable[str]) -> list[str]:
    """What a mirror may call a video, the first choice first."""
    return [f"{one}.{extension}" for one in ids if _ID.fullmatch(one) for extension in MIRROR_EXTENSIONS]


class VideoMirror:
    """uri: a folder, file://, s3:// or gs://; the videos lie directly in it."""

    def __init__(self, uri: str):
        self._store = Store(uri)

    def find_video_file_name(self, ids: Iterable[str]) -> str | None:
        """File name of the first id that is there; one request for all spellings. Raises StoreError where the
        mirror itself is gone: that is no answer about a video."""
        names = candidate_file_names(ids)
        for name, info in zip(names, self._store.file_infos(names), strict=True):
            if info.is_file:
                return name
        if self._store.local and not self._store.exists(""):
            raise StoreError(f"mirror {public_uri(self._store.uri)} is not there")
        return None

    def fetch(self, name: str, target: Path) -> Path:
        """A local path with this file's bytes: the file itself, or a complete copy at `target`."""
        if self._store.local:
            return Path(self._store.full_path(name))
        (info,) = self._store.file_infos([name])
        with self._store.stream(name) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, _CHUNK)
        if (found := target.stat().st_size) != (size := info.size):
            raise StoreUnreachable(f"{public_uri(self._store.uri)}/{name}: {found:,} bytes came of {size:,}")
        return target
