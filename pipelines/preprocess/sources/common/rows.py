"""What a source lists: rows of recordings with their tracks, and rows of what it left out."""

from __future__ import annotations

from pathlib import Path
from typing import NotRequired, TypedDict


class AnnotatedFaceTrack(TypedDict):
    """Where a source says a face is; tracks.py says what stands in for what it does not know."""

    start: int
    end: int
    """Ticks, end exclusive."""
    fps: float
    """Ticks a second."""
    width: int
    height: int
    """Of the frame that the box is in."""
    box: list[float]
    """left, top, right, bottom"""
    grow: float
    """Growth of the box on each side to make a crop, in sides of it."""


class VideoLocation(TypedDict):
    """Where a recording's bytes come from."""

    uri: str
    """The absolute path of a file (or, for CelebV, of a folder of images), an http(s) address, "youtube:" and
    11 characters, or "" for what is made from seed and spec, or is not in the mirror."""
    sha256: str
    """Of the bytes, where the source states it."""
    spec: str
    """JSON: what the recording is made from, or the file's size and time when it was listed; or ""."""


class BaseRecording(VideoLocation):
    """What the row of a source and that of the table have in common."""

    id: str
    identity: str
    split: str
    """train or test; of a source's row, "" where the source does not say."""
    seed: int
    tracks: list[AnnotatedFaceTrack]


class ListedRecording(BaseRecording):
    """A row as a source lists it."""

    span: NotRequired[list[float]]
    """[first, last] seconds that are needed, where the tracks do not say it."""


class RejectRow(TypedDict):
    """A row of a source that is left out, or a note on one that is used."""

    id: str
    file: str
    line: int
    """From 1; 0 = the file as a whole."""
    code: str
    sentence: str


def make_reject_row(id: str, file: Path | str, line: int, code: str, sentence: str) -> RejectRow:
    """A source row that is left out. Names that are not UTF-8 show as '?'."""
    return {
        "id": _printable(id),
        "file": _printable(str(file)),
        "line": line,
        "code": code,
        "sentence": _printable(sentence),
    }


def _printable(text: str) -> str:
    return text.encode(errors="replace").decode()
