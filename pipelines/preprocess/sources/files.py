"""Local files as inputs: their digests, remembered between runs, and names that are safe as ids."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipelines.errors import UserError

LONGEST_NAME = 32
"""Characters of an id or of an identity. Tar gives 100 bytes to the name of a shard's member,
`{identity}#{id}#{start}#{end}.{field}.{ext}`: 32 + 1 + 32 + 1 + 7 + 1 + 7, ticks of four days, are 81; the
longest field, `.landmarks3d.npy`, takes 16 more."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
SAFE_ID = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST_NAME}}}")
YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")


class BadLine(ValueError):
    """A line of a source's metadata that cannot be used: code, sentence."""


def safe_name(text: str) -> str:
    """Letters, digits, '_' and '-' only, at most 32. A name that had to change also gets a hash, so that two
    never become one."""
    safe = _UNSAFE.sub("-", text).strip("-")
    return short_name(text) if safe == text else hashed_name(safe or "x", text)


def short_name(safe: str) -> str:
    """A name of safe characters as it is if it fits, else its begin and a hash."""
    return safe if len(safe) <= LONGEST_NAME else hashed_name(safe, safe)


def hashed_name(safe: str, whole: str) -> str:
    """As much of a safe name as fits, and 8 digits of the hash of `whole`, which tells it from others."""
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{safe[: LONGEST_NAME - len(digest) - 1]}-{digest}"


def reject(id: str, file: Path | str, line: int, code: str, sentence: str) -> dict:
    """A source row that is left out: line 0 = the file as a whole. Names that are not UTF-8 show as '?'."""
    texts = {"id": id, "file": str(file), "code": code, "sentence": sentence}
    return {"line": line} | {name: text.encode(errors="replace").decode() for name, text in texts.items()}


def is_utf8(path: Path | str) -> bool:
    """Other names cannot be written down; Python keeps their bytes as surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in str(path))


def checked_id(what: str, text: str) -> str:
    """The text if it is safe as an id and as a part of a file's name; BadLine if not."""
    if not SAFE_ID.fullmatch(text):
        shown = text if len(text) <= 80 else f"{text[:80]}..."
        expected = f"1 to {LONGEST_NAME} letters, digits, '_' and '-' only"
        raise BadLine("unsafe_id", f"{what} {shown!r}: expected {expected}")
    return text


def metadata_file(path: str, setting: str) -> Path:
    """A file named in the configuration; `setting` is its name there."""
    if not path or not Path(path).is_file():
        raise UserError(f"{setting} {path!r} is not a file")
    return Path(path)


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number from 1 and text of every line that is not blank. Bytes that are not UTF-8 become U+FFFD, so that
    they spoil their own line only."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8", errors="replace").strip()
            if text:
                yield number, text


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
