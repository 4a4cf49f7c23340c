"""Any folder of videos. Who is shown comes from the folders' names, or from a CSV."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from pipelines.errors import UserError
from pipelines.preprocess.sources import RecordingListing
from pipelines.preprocess.sources.common import cells
from pipelines.preprocess.sources.common.files import (
    NON_VIDEO_EXTENSIONS,
    VIDEO_EXTENSIONS,
    UnreadablePath,
    digest_each_file,
    is_utf8_path,
    name_with_hash,
    safe_name,
    walk_folder,
)
from pipelines.preprocess.sources.common.rows import ListedRecording, make_reject_row
from storage.uris import ExpandedPath

if TYPE_CHECKING:
    import _csv


class FolderConfig(Struct, frozen=True, kw_only=True):
    path: ExpandedPath = ""
    """The folder; searched with all folders below it, and those that links lead to."""
    extensions: tuple[str, ...] = VIDEO_EXTENSIONS
    """Which files are videos, by the end of their names; capitals count as small letters."""
    identity: Literal["parent", "top", "file"] = "parent"
    """Who is shown: the folder a file lies in, the first folder under `path`, or every file someone else. A
    file that lies in `path` itself is always someone else."""
    identities: ExpandedPath | None = None
    """A CSV with columns file (relative to `path`) and identity, in place of the folders' names."""

    def __post_init__(self) -> None:
        bad = [e for e in self.extensions if not e.startswith(".") or e != e.lower()]
        if bad or not self.extensions:
            raise ValueError(
                f"extensions {list(self.extensions)}: expected small letters with a dot, like '.mp4'"
            )


def list_recordings(config: FolderConfig, source: str = "folder") -> RecordingListing:
    """A row a video, sorted by its relative path. source: whose settings these are, in messages."""
    root = _root(config, source)
    files, lost, others = _scan(root, config)
    if not files and others:
        text = _counts_text(others, source)
        raise UserError(f"data.NAME.{source}.path {config.path!r} holds no {_kind(source)}: {text}")
    rejects = [make_reject_row("", one.path, 0, one.code, one.sentence) for one in lost]
    rejects += [
        make_reject_row("", path, 0, "malformed_name", "the file's name is not UTF-8; rename it")
        for path in files
        if not is_utf8_path(path)
    ]
    files = [path for path in files if is_utf8_path(path)]
    hashes = digest_each_file(files)
    names = {path: path.relative_to(root).as_posix() for path in files}
    ids = _ids(names)
    listed = _read_identities(Path(config.identities), set(names.values())) if config.identities else None
    rows: list[ListedRecording] = []
    for path in files:
        identity = (
            listed[names[path]] if listed is not None else _identity(names[path], config.identity, ids[path])
        )
        rows.append(
            {
                "id": ids[path],
                "identity": identity,
                "split": "",
                "uri": str(path.absolute()),
                "sha256": hashes[path],
                "spec": "",
                "seed": 0,
                "tracks": [],
            }
        )
    return RecordingListing(rows, rejects)


def digest_external_files(config: FolderConfig, source: str = "folder") -> dict[str, str]:
    """Relative name -> sha256 of every video, and of the CSV."""
    root = _root(config, source)
    files, lost, _ = _scan(root, config)
    readable = digest_each_file(path for path in files if is_utf8_path(path))
    found = {path.relative_to(root).as_posix(): digest for path, digest in readable.items()}
    if len(readable) < len(files):
        found["names that are not UTF-8"] = str(len(files) - len(readable))
    for one in lost:
        found[f"lost {one.path.relative_to(root)}".encode(errors="replace").decode()] = one.code
    if config.identities:
        table = Path(config.identities)
        found[f"identities:{table.name}"] = digest_each_file([table])[table]
    return found


def describe_skipped_files(config: FolderConfig, source: str = "folder") -> str:
    """How many files may be videos but are none by their names; "" if there are none."""
    others = _scan(_root(config, source), config)[2]
    return _counts_text(others, source) if others else ""


def _kind(source: str) -> str:
    return "picture" if source == "pictures" else "video"


def _counts_text(others: Counter[str], source: str) -> str:
    ordered = sorted(others.items(), key=lambda one: (-one[1], one[0]))
    kinds = ", ".join(f"{count:,} {suffix or 'without an ending'}" for suffix, count in ordered[:5])
    kinds = kinds.encode(errors="replace").decode()  # endings that are not UTF-8 cannot be printed
    more = f" and {len(others) - 5} more kinds" if len(others) > 5 else ""
    return f"left out are {kinds}{more}; data.NAME.{source}.extensions lists what counts as a {_kind(source)}"


def _root(config: FolderConfig, source: str) -> Path:
    root = Path(config.path)
    if not config.path or not root.is_dir():
        raise UserError(f"data.NAME.{source}.path {config.path!r} is not a folder")
    return root


def _scan(root: Path, config: FolderConfig) -> tuple[list[Path], list[UnreadablePath], Counter[str]]:
    """Every video below root, sorted by relative path; what could not be read; and, by the end of their
    names, how many other files may be videos."""
    found = walk_folder(root)
    videos: list[Path] = []
    others: Counter[str] = Counter()
    for path, _ in found.files:
        suffix = path.suffix.lower()
        if suffix in config.extensions:
            videos.append(path)
        elif suffix not in NON_VIDEO_EXTENSIONS:
            others[suffix] += 1
    # a folder may be called anything, takes.raw or anna.old
    lost = [
        o
        for o in found.lost
        if o.code != "dangling_link" or o.path.suffix.lower() not in NON_VIDEO_EXTENSIONS
    ]
    videos.sort(key=lambda path: path.relative_to(root).as_posix())
    return videos, sorted(lost), others


def _ids(names: dict[Path, str]) -> dict[Path, str]:
    """Relative path without its extension, made safe: ann/1.mp4 -> ann-1. Two that meet both get a hash of
    the path."""
    safe = {}
    for path, name in names.items():
        stem = name[: -len(path.suffix)].replace("/", "-")
        safe[path] = safe_name(stem)
    counts = Counter(safe.values())
    return {p: i if counts[i] == 1 else name_with_hash(i, names[p]) for p, i in safe.items()}


def _identity(name: str, rule: str, id: str) -> str:
    folders = name.split("/")[:-1]
    if rule == "file" or not folders:
        return id
    return safe_name(folders[-1] if rule == "parent" else folders[0])


def _lines(reader: _csv.Reader, table: Path) -> Iterator[list[str]]:
    """The rows of a CSV; UserError where they do not end."""
    try:
        yield from reader
    except csv.Error as error:
        where = f"{table}, line {reader.line_num}"
        raise UserError(f"{where}: {error}; is a quote left open before it?") from None


def _read_identities(table: Path, files: set[str]) -> dict[str, str]:
    """The CSV -> {file: identity}. It must name every video once, and nothing else."""
    found: dict[str, str] = {}
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        reader = csv.reader(stream, skipinitialspace=True)
        columns = [column.strip() for column in next(reader, [])]
        cells.check_columns(table, columns, ("file", "identity"))
        for line in _lines(reader, table):
            if not line:
                continue
            row = dict(zip(columns, line, strict=False))
            where, name = f"{table}, line {reader.line_num}", row.get("file", "")
            name = name if name in files else name.strip()
            if name not in files:
                raise UserError(f"{where}: no video {name!r} in the folder")
            if name in found:
                raise UserError(f"{where}: {name!r} is listed twice")
            identity = cells.parse_name_cell(row.get("identity", ""))
            if not identity:
                raise UserError(f"{where}: {name!r} has no identity")
            found[name] = safe_name(identity)
    unlisted = sorted(files - set(found))
    if unlisted:
        raise UserError(f"{table}: {len(unlisted)} videos have no line, the first is {unlisted[0]!r}")
    return found
