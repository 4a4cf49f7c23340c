"""Local files as inputs: their digests, remembered between runs, and names that are safe as ids."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


def safe_name(text: str) -> str:
    """Letters, digits, '_' and '-' only. A name that had to change also gets a hash, so that two never become
    one."""
    safe = _UNSAFE.sub("-", text).strip("-")
    return safe if safe == text else f"{safe or 'x'}-{short_hash(text)}"


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def reject(id: str, file: Path | str, line: int, code: str, sentence: str) -> dict:
    """A source row that is left out: line 0 = the file as a whole."""
    return {"id": id, "file": str(file), "line": line, "code": code, "sentence": sentence}


def cache_folder() -> Path:
    return Path(os.environ.get("REENACT_CACHE") or Path(".reenact") / "cache")


def digests(paths: Iterable[Path]) -> dict[Path, str]:
    """sha256 of every file. A file whose size, time and inode stand in the cache is not read again."""
    store = cache_folder() / "digests.json"
    try:
        known = json.loads(store.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        known = {}
    found: dict[Path, str] = {}
    fresh = False
    for path in paths:
        stat = path.stat()
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        entry = known.get(str(path.absolute()))
        if entry is None or entry[:3] != state:
            with path.open("rb") as stream:
                entry = [*state, hashlib.file_digest(stream, "sha256").hexdigest()]
            known[str(path.absolute())] = entry
            fresh = True
        found[path] = entry[3]
    if fresh:
        _remember(store, known)
    return found


def _remember(store: Path, known: dict) -> None:
    """Written aside and renamed: two planners may do this at once, and either result is right."""
    store.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=store.parent, delete=False) as file:
        json.dump(known, file)
    os.replace(file.name, store)
