"""The work folder of one download: what a killed or failed try has got so far, until the video is published.

Named by a hash of what is asked for, so that a retry in any process of this machine finds it. Nothing in it
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
from typing import Any

from pipelines.errors import Rejected
from pipelines.preprocess.fetch.hosts import only_one

STALE_DAYS = 7


@dataclass(frozen=True, slots=True)
class Fetched:
    path: Path
    """The complete video. Valid until the `with` of `obtain` ends."""
    transport: str
    """mirror, http or ytdlp."""
    offset: float = 0.0
    """Seconds of the original recording at which this file starts."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Where it came from, as the transport knows it: format, extractor."""
    probe: dict[str, Any] = field(default_factory=dict)
    """What the check of the bytes found."""


@contextmanager
def work_folder(root: Path, asked: object, patience: float) -> Iterator[Path]:
    """An own folder for this request, held against other processes.

    It goes when the block ends well or with an answer (Rejected); after any other end it stays for the next
    try.
    """
    _sweep(root)
    name = hashlib.sha256(repr(asked).encode()).hexdigest()[:40]
    folder = root / name
    root.mkdir(parents=True, exist_ok=True)
    with only_one(root / f"{name}.lock", patience):
        folder.mkdir(exist_ok=True)
        os.utime(folder)
        try:
            yield folder
        except Rejected:
            shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def empty(folder: Path) -> None:
    """Forget what was got so far."""
    shutil.rmtree(folder)
    folder.mkdir()


def keep(folder: Path, fetched: Fetched) -> None:
    """Mark a checked file complete: a retry, of publishing it for example, need not fetch it again."""
    if fetched.path.parent != folder:
        return
    record = asdict(fetched) | {"path": fetched.path.name}
    aside = folder / "complete.aside"
    aside.write_text(json.dumps(record))
    aside.replace(folder / "complete.json")


def kept(folder: Path) -> Fetched | None:
    """The complete file of an earlier try; None where its record is not there, or of another form."""
    try:
        record = json.loads((folder / "complete.json").read_text())
        return Fetched(**(record | {"path": folder / record["path"]}))
    except (FileNotFoundError, ValueError, TypeError, LookupError):
        return None


@cache
def _sweep(root: Path) -> None:
    """Once a process: drop what no try has come back to for a week."""
    old = time.time() - STALE_DAYS * 86_400
    if not root.is_dir():
        return
    for entry in os.scandir(root):
        if entry.is_dir(follow_symlinks=False) and entry.stat().st_mtime < old:
            shutil.rmtree(entry.path, ignore_errors=True)
