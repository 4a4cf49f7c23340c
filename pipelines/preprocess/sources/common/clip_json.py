"""The JSON files of CelebV-HQ and CelebV-Text: clips of YouTube videos with a time and a box each.

`clips` (or, in some copies of CelebV-Text, the top level itself) maps `{YouTube id}_{number}` to
`ytb_id`, `duration` in seconds and `bbox`. The file is walked clip by clip: what stands in memory is its text
and one clip, and a clip that is not as it should be is one reject, with the line it begins on.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from pipelines.errors import UserError
from pipelines.preprocess.sources import RecordingListing
from pipelines.preprocess.sources.common.files import (
    YOUTUBE_ID_PATTERN,
    InvalidLine,
    check_id,
    digest_each_file,
    find_metadata_file,
)
from pipelines.preprocess.sources.common.rows import (
    AnnotatedFaceTrack,
    ListedRecording,
    RejectRow,
    VideoLocation,
    make_reject_row,
)
from pipelines.preprocess.sources.common.source_tracks import (
    MAX_FACE_TRACK_END_SECONDS,
    MAX_SIDE,
    MILLISECOND_TICK_RATE,
    make_source_track,
    sort_tracks,
)
from pipelines.preprocess.sources.common.video_folder import VideoFolder, scan_video_folder
from storage.uris import ExpandedPath

MAX_NORMALIZED_COORDINATE = 1.5
"""A box with a larger number is not in shares of the frame."""
MAX_EXACT_INTEGER_DIGITS = 300
"""Longer whole numbers are read as floats, which may be infinite: Python refuses those of 4300 digits."""
_SPACE = re.compile(r"[ \t\r\n]*")


class ClipJsonConfig(Struct, frozen=True, kw_only=True):
    json: ExpandedPath = ""
    """The metadata file."""
    mirror: ExpandedPath = ""
    """Folder of whole videos named {YouTube id}.mp4, or of cut clips named {clip}.mp4, or as another kind of
    video. Recordings that are not there are rejected at download. Empty: they are fetched from YouTube."""
    grow: float = 0.02
    """Growth of a box in shares on each side, as a share of the frame; boxes in pixels stay as they are."""

    def __post_init__(self) -> None:
        if not 0 <= self.grow <= 1:
            raise ValueError(f"grow {self.grow}: expected a share from 0 to 1")


def find_metadata_and_mirror(source: str, config: ClipJsonConfig) -> tuple[Path, VideoFolder]:
    """The metadata file and the mirror. UserError, with the name of the setting, where one is not there."""
    path = find_metadata_file(config.json, f"data.NAME.{source}.json")
    return path, scan_video_folder(config.mirror, f"data.NAME.{source}.mirror")


def digest_metadata_and_mirror_listing(source: str, config: ClipJsonConfig) -> dict[str, str]:
    """sha256 of the file, and a digest of the mirror's listing."""
    path, mirror = find_metadata_and_mirror(source, config)
    return {path.name: digest_each_file([path])[path], "mirror": mirror.digest_listing()}


def list_clip_json_recordings(path: Path, mirror: VideoFolder, grow: float, pixels: bool) -> RecordingListing:
    """A row a video with the tracks of all its clips, or a cut clip that the mirror holds, sorted by id.

    grow: share of the frame by which a box grows on each side. pixels: boxes may be in pixels.
    """
    tracks: dict[str, list[AnnotatedFaceTrack]] = {}
    cut: dict[str, tuple[str, AnnotatedFaceTrack]] = {}
    rejects: list[RejectRow] = []
    seen: set[str] = set()
    for key, line, value in read_clip_json(path):
        try:
            check_id("clip", key)
            if key in seen:
                raise InvalidLine("duplicate_row", f"clip {key} is listed before")
            video, found = parse_clip(value, grow, pixels)
        except InvalidLine as error:
            code, sentence = error.args
            rejects.append(make_reject_row(key[:80], path, line, code, f"{key[:80]}: {sentence}"))
            continue
        seen.add(key)
        if key in mirror and video not in mirror:
            # the file is the set's own crop of this clip: the face has all of the frame
            length = found["end"] - found["start"]
            cut[key] = (video, make_source_track(0, length, MILLISECOND_TICK_RATE, (1, 1), (0, 0, 1, 1)))
        else:
            tracks.setdefault(video, []).append(found)
    rows = [
        _row(video, video, mirror.locate_file_or_youtube(video, video), sort_tracks(own))
        for video, own in tracks.items()
    ]
    rows += [_row(key, video, mirror.locate_file_or_youtube(key), [one]) for key, (video, one) in cut.items()]
    return RecordingListing(sorted(rows, key=lambda row: row["id"]), rejects)


def _row(id: str, identity: str, place: VideoLocation, tracks: list[AnnotatedFaceTrack]) -> ListedRecording:
    return {"id": id, "identity": identity, "split": "", **place, "seed": 0, "tracks": tracks}


def parse_clip(clip: object, grow: float, pixels: bool) -> tuple[str, AnnotatedFaceTrack]:
    """The value of one clip -> YouTube id, track."""
    if not isinstance(clip, dict):
        raise InvalidLine("malformed_row", "expected a mapping with ytb_id, duration and bbox")
    video = clip.get("ytb_id")
    if not isinstance(video, str) or not YOUTUBE_ID_PATTERN.fullmatch(video):
        raise InvalidLine(
            "unsafe_id", f"ytb_id {str(video)[:80]!r}: expected the 11 characters of a YouTube id"
        )
    time, box = clip.get("duration"), clip.get("bbox")
    if not isinstance(time, dict) or not isinstance(box, dict):
        raise InvalidLine("malformed_row", "expected the mappings duration and bbox")
    # both spellings hold seconds
    unit = "frame" if "start_frame" in time and "start_sec" not in time else "sec"
    start, end = (_number(time, f"{name}_{unit}") for name in ("start", "end"))
    ticks = round(start * MILLISECOND_TICK_RATE), round(end * MILLISECOND_TICK_RATE)
    if not (0 <= start < end <= MAX_FACE_TRACK_END_SECONDS and ticks[0] < ticks[1]):
        raise InvalidLine(
            "malformed_span", f"from {start} to {end} s: expected an end after the start, both >= 0"
        )
    edges = [_number(box, name) for name in ("left", "top", "right", "bottom")]
    if max(edges) > MAX_NORMALIZED_COORDINATE and not pixels:
        raise InvalidLine("malformed_box", f"{edges}: expected shares of the frame from 0 to 1")
    if max(edges) > MAX_SIDE:
        raise InvalidLine("malformed_box", f"{edges}: no frame has so many pixels")
    if max(edges) > MAX_NORMALIZED_COORDINATE:
        # of which frame the file does not say: preprocess/box_frame.py finds out
        grown, size = [max(edge, 0.0) for edge in edges], (0, 0)
    else:
        grown = [
            min(max(e + side, 0.0), 1.0) for e, side in zip(edges, (-grow, -grow, grow, grow), strict=True)
        ]
        size = (1, 1)
    if not (edges[0] < edges[2] and edges[1] < edges[3] and grown[0] < grown[2] and grown[1] < grown[3]):
        raise InvalidLine("malformed_box", f"left, top, right, bottom {edges}: the box is empty")
    return video, make_source_track(*ticks, MILLISECOND_TICK_RATE, size, grown)


def _number(values: Mapping[str, object], name: str) -> float:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidLine("malformed_row", f"{name} {str(value)[:40]!r} is not a number")
    return float(value)


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= MAX_EXACT_INTEGER_DIGITS else float(digits)


# --- the file -----------------------------------------------------------------------------------------------
def read_clip_json(path: Path) -> Iterator[tuple[str, int, Any]]:
    """Key, line and value of every clip. UserError with the line where the file is not JSON at all."""
    # bytes that are not UTF-8 spoil the clip they stand in, not the file
    reader = _Reader(path.read_text(encoding="utf-8-sig", errors="replace"))
    try:
        for key in reader.members():
            if key == "clips" and reader.peek() == "{":
                for inner in reader.members():
                    yield inner, reader.line(), reader.value()
            elif key == "meta_info":
                reader.value()
            else:
                yield key, reader.line(), reader.value()
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise UserError(f"{path}, line {reader.line()}: nested too deeply") from None


class _Reader:
    """A place in a JSON text, from which members of objects and values are taken."""

    def __init__(self, text: str):
        self._text = text
        self._at = 0
        self._decoder = json.JSONDecoder(parse_int=_integer)
        self._counted = (0, 1)

    def members(self) -> Iterator[str]:
        """The keys of an object; whoever asks takes the value before the next key."""
        self._take("{")
        if self.peek() == "}":
            return self._take("}")
        while True:
            if self.peek() != '"':
                raise json.JSONDecodeError("expected a key in double quotes", self._text, self._at)
            key = self.value()
            self._take(":")
            yield key
            if self.peek() != ",":
                return self._take("}")
            self._take(",")

    def value(self) -> Any:
        self.peek()
        value, self._at = self._decoder.raw_decode(self._text, self._at)
        return value

    def peek(self) -> str:
        """The next character that is not blank."""
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return self._text[self._at : self._at + 1]

    def line(self) -> int:
        at, line = self._counted
        self._counted = (self._at, line + self._text.count("\n", at, self._at))
        return self._counted[1]

    def _take(self, char: str) -> None:
        if self.peek() != char:
            raise json.JSONDecodeError(f"expected {char!r}", self._text, self._at)
        self._at += 1
