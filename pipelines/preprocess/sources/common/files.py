"""Local files as inputs: their digests, remembered between runs, and names that are safe as ids."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipelines.engine.file_cache import FileFactCache
from pipelines.errors import UserError
from storage.content_cache import cache_folder

MAX_ID_LENGTH = 32
"""Characters of an id or of an identity. Tar gives 100 bytes to the name of a shard's member,
`{identity}#{id}#{start}#{end}.{field}.{ext}`: 32 + 1 + 32 + 1 + 7 + 1 + 7, ticks of four days, are 81; the
longest field, `.landmarks3d.npy`, takes 16 more."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
SAFE_ID_PATTERN = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_ID_LENGTH}}}")
YOUTUBE_ID_PATTERN = re.compile(r"[A-Za-z0-9_-]{11}")


VIDEO_EXTENSIONS = (
    ".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".3g2", ".3gp", ".asf", ".divx", ".dv", ".f4v", ".flv",
    ".ivf", ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v", ".mk3d", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".nut",
    ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".wmv", ".y4m",
)  # fmt: skip
"""Names of videos: those of the containers that media.process.FORMATS reads."""
_NO_VIDEOS = """
    .ai .arw .avif .bmp .cr2 .cr3 .dng .eps .gif .heic .heif .ico .jfif .jp2 .jpeg .jpg .jxl .nef .png .psd
    .raw .svg .tga .thm .tif .tiff .webp .xcf
    .bib .csv .doc .docx .htm .html .ini .ipynb .json .jsonl .log .md .nfo .odt .pdf .ppt .pptx .py .rst
    .rtf .sh .tex .toml .tsv .txt .url .xls .xlsx .xml .yaml .yml
    .aac .aif .aiff .ass .flac .lrc .m3u .m3u8 .m4a .mka .mp3 .oga .ogg .opus .sbv .srt .ssa .sub .sup .vtt
    .wav .wma
    .7z .bak .bz2 .ckpt .db .gz .h5 .idx .lock .mat .md5 .npy .npz .old .onnx .parquet .part .pkl .pt .pth
    .rar .safetensors .sha1 .sha256 .tar .tgz .tmp .torrent .xz .ytdl .zip .zst
"""  # pictures; texts and tables; sound and subtitles; arrays, archives, sums, what was not finished
NON_VIDEO_EXTENSIONS = frozenset(_NO_VIDEOS.split())
"""Names of files that nobody takes for videos."""


class InvalidLine(ValueError):
    """A line of a source's metadata that cannot be used: code, sentence."""


def safe_name(text: str) -> str:
    """Letters, digits, '_' and '-' only, at most 32. A name that had to change also gets a hash, so that two
    never become one."""
    safe = _UNSAFE.sub("-", text).strip("-")
    return shorten_name(text) if safe == text else name_with_hash(safe or "x", text)


def shorten_name(safe: str) -> str:
    """A name of safe characters as it is if it fits, else its begin and a hash."""
    return safe if len(safe) <= MAX_ID_LENGTH else name_with_hash(safe, safe)


def name_with_hash(safe: str, full: str) -> str:
    """As much of a safe name as fits, and 8 digits of the hash of `full`, which tells it from others."""
    digest = hashlib.sha256(full.encode()).hexdigest()[:8]
    return f"{safe[: MAX_ID_LENGTH - len(digest) - 1]}-{digest}"


def is_utf8_path(path: Path | str) -> bool:
    """Other names cannot be written down; Python keeps their bytes as surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in str(path))


def check_id(what: str, text: str) -> str:
    """The text if it is safe as an id and as a part of a file's name; InvalidLine if not."""
    if not SAFE_ID_PATTERN.fullmatch(text):
        quoted = text if len(text) <= 80 else f"{text[:80]}..."
        expected = f"1 to {MAX_ID_LENGTH} letters, digits, '_' and '-' only"
        raise InvalidLine("unsafe_id", f"{what} {quoted!r}: expected {expected}")
    return text


def find_metadata_file(path: str, setting: str) -> Path:
    """A file named in the configuration; `setting` is its name there."""
    if not path or not Path(path).is_file():
        raise UserError(f"{setting} {path!r} is not a file")
    return Path(path)


class UnreadablePath(NamedTuple):
    """What a folder holds and could not be read."""

    path: Path
    code: str
    sentence: str


class FolderFiles(NamedTuple):
    files: list[tuple[Path, os.stat_result]]
    lost: list[UnreadablePath]


def walk_folder(root: Path) -> FolderFiles:
    """Every file below root with its state, by the name of the link where a link leads to it. Hidden names
    are passed by.

    Each folder is read once, under its own name if it lies below root: links that lead in a circle end.
    """
    files: list[tuple[Path, os.stat_result]] = []
    lost: list[UnreadablePath] = []
    read: set[str] = set()
    queue = [(str(root), os.path.realpath(root))]
    links: list[tuple[str, str]] = []
    while queue or links:
        linked = not queue
        if linked:
            links.sort()
        folder, real = links.pop(0) if linked else queue.pop()
        if real in read:
            if linked:
                sentence = f"the link leads to {real!r}, whose files are listed already"
                lost.append(UnreadablePath(Path(folder), "duplicate_content", sentence))
            continue
        read.add(real)
        for path, state in _entries(folder, lost):
            if not stat.S_ISDIR(state.st_mode):
                files.append((path, state))
            elif path.is_symlink():
                links.append((str(path), os.path.realpath(path)))
            else:
                queue.append((str(path), os.path.join(real, path.name)))
    return FolderFiles(files, lost)


def _entries(folder: str, lost: list[UnreadablePath]) -> Iterator[tuple[Path, os.stat_result]]:
    """Files and folders in a folder, with the state of what they link to."""
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        lost.append(
            UnreadablePath(Path(folder), "unreadable", f"the folder cannot be read: {error.strerror}")
        )
        return
    for entry in entries:
        try:
            state = entry.stat()
        except OSError as error:
            if entry.is_symlink():
                sentence = f"the link leads to {os.path.realpath(entry.path)!r}: {error.strerror}"
                lost.append(UnreadablePath(Path(entry.path), "dangling_link", sentence))
            continue  # else it went away meanwhile
        if stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode):
            yield Path(entry.path), state


def read_text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number from 1 and text of every line that is not blank. Bytes that are not UTF-8 become U+FFFD, so that
    they spoil their own line only."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8", errors="replace").strip()
            if text:
                yield number, text


def digest_each_file(paths: Iterable[Path]) -> dict[Path, str]:
    """sha256 of every file. A file whose size, time and inode stand in the cache is not read again."""
    known = FileFactCache(cache_folder() / "digests.json", "sha256")
    found = {path: known.get(path, partial(_sha256, path)) for path in paths}
    known.save()
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
