"""The work folder of one download: what a killed or failed attempt has fetched, until the video is published.

Named by a hash of the request, so that a retry in any process of this machine finds it. Nothing in it
is ever read as a video before it is complete, checked and marked so.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipelines.errors import Rejected
from pipelines.preprocess.fetch.host_limits import exclusive_lock

if TYPE_CHECKING:
    from pipelines.media.probe_schema import Probe

STALE_DOWNLOAD_DAYS = 7


@dataclass(frozen=True, slots=True)
class FetchedVideo:
    path: Path
    """The complete video. Valid until the `with` of `fetch_recording` ends."""
    transport: str
    """mirror, http or ytdlp."""
    offset: float = 0.0
    """Seconds of the original recording at which this file starts."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Where it came from, as the transport knows it: format, extractor."""
    probe: Probe = field(default_factory=lambda: cast("Probe", {}))
    """What the check of the bytes found."""


@contextmanager
def lock_download_folder(root: Path, request: object, patience: float) -> Iterator[Path]:
    """The folder of this request, locked against other processes.

    It is deleted when the block ends well or with Rejected; after any other end it stays for the next
    attempt.
    """
    _sweep(root)
    name = hashlib.sha256(repr(request).encode()).hexdigest()[:40]
    folder = root / name
    root.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(root / f"{name}.lock", patience):
        folder.mkdir(exist_ok=True)
        os.utime(folder)
        try:
            yield folder
        except Rejected:
            shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def clear_folder(folder: Path) -> None:
    """Delete what was fetched so far."""
    shutil.rmtree(folder)
    folder.mkdir()


def mark_download_complete(folder: Path, fetched: FetchedVideo) -> None:
    """Mark a checked file complete: a retry, of publishing it for example, need not fetch it again."""
    if fetched.path.parent != folder:
        return
    record = asdict(fetched) | {"path": fetched.path.name}
    aside = folder / "complete.aside"
    aside.write_text(json.dumps(record))
    aside.replace(folder / "complete.json")


def load_complete_download(folder: Path) -> FetchedVideo | None:
    """The complete file of an earlier attempt; None where its record is not there, or of another form."""
    try:
        record = json.loads((folder / "complete.json").read_text())
        return FetchedVideo(**(record | {"path": folder / record["path"]}))
    except (FileNotFoundError, ValueError, TypeError, LookupError):
        return None


@cache
def _sweep(root: Path) -> None:
    """Once a process: delete what no attempt has used for a week."""
    old = time.time() - STALE_DOWNLOAD_DAYS * 86_400
    if not root.is_dir():
        return
    for entry in os.scandir(root):
        if entry.is_dir(follow_symlinks=False) and entry.stat().st_mtime < old:
            shutil.rmtree(entry.path, ignore_errors=True)
