"""TalkingHead-1KH: its lists of tubes, over a mirror of its one-minute pieces, of its cut clips, or of whole
videos, or over YouTube.

A line of `{set}_video_tubes.txt` reads name,H,W,S,E,L,T,R,B: name is `{YouTube id}_{minute, four digits}`, a
piece of a video; the tube is its frames S to E, E included, and a box in pixels of a W x H frame. The set's
script cuts the pieces at key frames, so where a piece begins depends on the stream that was cut. Tubes
therefore count for pieces only; of whole videos the stretch from the first of their minutes to the last is
searched for faces anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from pipelines.errors import UserError
from pipelines.preprocess.sources import RecordingListing
from pipelines.preprocess.sources.common import cells
from pipelines.preprocess.sources.common.files import (
    InvalidLine,
    digest_each_file,
    find_metadata_file,
    read_text_lines,
    shorten_name,
)
from pipelines.preprocess.sources.common.rows import (
    AnnotatedFaceTrack,
    ListedRecording,
    RejectRow,
    VideoLocation,
    make_reject_row,
)
from pipelines.preprocess.sources.common.source_tracks import make_source_track, sort_tracks
from pipelines.preprocess.sources.common.video_folder import VideoFolder, scan_video_folder
from storage.uris import ExpandedPath

TALKINGHEAD_PIECE_SECONDS = 60.0
MAX_PIECE_SHIFT_SECONDS = 5.0
"""Seconds by which a piece may begin before or after its minute; users saw 4."""
TICKS_ARE_FRAMES_FPS = 0
"""The clock of a track whose ticks are the recording's frames."""
CLIP_LIST_COLUMNS = ("name", "H", "W", "S", "E", "L", "T", "R", "B")
"""In this order, unless a first line of a list names its columns."""
MAX_CLIP_LIST_NUMBER = 10**9
"""Frames and pixels: no list has as many."""
_NAME = re.compile(r"([A-Za-z0-9_-]{11})_([0-9]{4})")


class Talkinghead1khConfig(Struct, frozen=True, kw_only=True):
    lists: ExpandedPath = ""
    """The folder data_list of the set, with {set}_video_tubes.txt."""
    sets: tuple[Literal["small", "train", "val"], ...] = ("train", "val")
    """Which lists to use; val is the test split."""
    mirror: ExpandedPath = ""
    """Folder of pieces ({YouTube id}_{minute}.mp4), of cut clips (..._S.._E.._L.._T.._R.._B...mp4), of whole
    videos ({YouTube id}.mp4), or of other kinds of video with these names. Recordings that are not there are
    rejected at download. Empty: whole videos are fetched from YouTube."""

    def __post_init__(self) -> None:
        if not self.sets:
            raise ValueError("sets: expected at least one of small, train, val")


def list_recordings(config: Talkinghead1khConfig) -> RecordingListing:
    """A row a piece, a cut clip or a whole video, sorted by id."""
    mirror = scan_video_folder(config.mirror, "data.NAME.talkinghead_1kh.mirror")
    rejects: list[RejectRow] = []
    pieces: dict[str, list[AnnotatedFaceTrack]] = {}
    splits: dict[str, str] = {}
    seen: set[tuple[str, int, int, tuple[float, ...]]] = set()
    for path, split in _lists(config):
        columns: Sequence[str] = CLIP_LIST_COLUMNS
        for number, text in read_text_lines(path):
            row = cells.split_csv_line(text)
            if number == 1:
                cells.check_comma_separator(path, text)
                if set(CLIP_LIST_COLUMNS) <= set(row):
                    columns = row
                    continue
            try:
                name, tube = parse_clip_list_row(row, columns)
                one = (name, tube["start"], tube["end"], tuple(tube["box"]))
                # the two lists differ in their videos; a video in both is tested on
                video = name[:11]
                splits[video] = "test" if splits.get(video) == "test" else split
                if one in seen:
                    raise InvalidLine("duplicate_row", f"{name} {one[1]}-{one[2]} is listed before")
            except InvalidLine as error:
                rejects.append(make_reject_row(row[0][:80], path, number, *error.args))
                continue
            seen.add(one)
            pieces.setdefault(name, []).append(tube)
    rows = _rows(pieces, splits, mirror)
    return RecordingListing(sorted(rows, key=lambda row: row["id"]), rejects)


def digest_external_files(config: Talkinghead1khConfig) -> dict[str, str]:
    """sha256 of the lists, and a digest of the mirror's listing."""
    paths = [path for path, _ in _lists(config)]
    found = {path.name: digest for path, digest in digest_each_file(paths).items()}
    return found | {
        "mirror": scan_video_folder(config.mirror, "data.NAME.talkinghead_1kh.mirror").digest_listing()
    }


def _lists(config: Talkinghead1khConfig) -> list[tuple[Path, str]]:
    """The files, with the split of each."""
    if not config.lists or not Path(config.lists).is_dir():
        raise UserError(f"data.NAME.talkinghead_1kh.lists {config.lists!r} is not a folder")
    paths = {name: Path(config.lists) / f"{name}_video_tubes.txt" for name in dict.fromkeys(config.sets)}
    return [
        (
            find_metadata_file(str(path), "data.NAME.talkinghead_1kh.lists:"),
            "test" if name == "val" else "train",
        )
        for name, path in paths.items()
    ]


def parse_clip_list_row(
    row: Sequence[str], columns: Sequence[str] = CLIP_LIST_COLUMNS
) -> tuple[str, AnnotatedFaceTrack]:
    """The cells of one line -> name of the piece, track on the piece's own frames."""
    if len(row) == len(columns) + 1 and _NAME.fullmatch(row[1]):  # pandas numbered the lines
        row = row[1:]
    line = dict(zip(columns, row, strict=False))
    name = line.get("name", "")
    if not _NAME.fullmatch(name):
        raise InvalidLine("unsafe_id", f"name {name[:80]!r}: expected <YouTube id>_<minute, four digits>")
    try:
        if len(row) != len(columns):
            raise ValueError(f"{len(row)} columns")
        numbers = [cells.parse_integer_cell(line[column]) for column in CLIP_LIST_COLUMNS[1:]]
        if not all(0 <= value < MAX_CLIP_LIST_NUMBER for value in numbers):
            raise ValueError(f"a number outside of 0 to {MAX_CLIP_LIST_NUMBER}")
    except ValueError as error:
        found = f"expected {','.join(columns)}, all but the name whole numbers: {error}"
        raise InvalidLine("malformed_row", found[:300]) from error
    height, width, start, end, left, top, right, bottom = numbers
    if start > end:
        raise InvalidLine("malformed_span", f"frames {start} to {end}: the last lies before the first")
    if not (left < right <= width and top < bottom <= height):
        box = f"{left}, {top}, {right}, {bottom}"
        raise InvalidLine("malformed_box", f"left, top, right, bottom {box}: no box in {width}x{height}")
    return name, make_source_track(
        start, end + 1, TICKS_ARE_FRAMES_FPS, (width, height), (left, top, right, bottom)
    )


def _rows(
    pieces: Mapping[str, list[AnnotatedFaceTrack]], splits: Mapping[str, str], mirror: VideoFolder
) -> list[ListedRecording]:
    rows: list[ListedRecording] = []
    minutes: dict[str, list[int]] = {}
    for name, tubes in pieces.items():
        video = name[:11]
        if name in mirror:
            rows.append(_row(name, video, splits, mirror.locate_file_or_youtube(name), sort_tracks(tubes)))
            continue
        cut = [(published_clip_name(name, tube), tube) for tube in tubes]
        if not any(clip in mirror for clip, _ in cut):
            minutes.setdefault(video, []).append(int(name[12:]))
            continue
        for clip, tube in cut:
            # the file is the set's own crop of this tube: the face has all of the frame
            full_box = make_source_track(
                0, tube["end"] - tube["start"], TICKS_ARE_FRAMES_FPS, (1, 1), (0, 0, 1, 1)
            )
            rows.append(
                _row(shorten_name(clip), video, splits, mirror.locate_file_or_youtube(clip), [full_box])
            )
    return rows + [_full_video(video, at, splits, mirror) for video, at in minutes.items()]


def _row(
    id: str, video: str, splits: Mapping[str, str], place: VideoLocation, tracks: list[AnnotatedFaceTrack]
) -> ListedRecording:
    return {"id": id, "identity": video, "split": splits[video], **place, "seed": 0, "tracks": tracks}


def published_clip_name(piece: str, tube: AnnotatedFaceTrack) -> str:
    """The name that the set's script gives to a cut clip."""
    left, top, right, bottom = (int(edge) for edge in tube["box"])
    return f"{piece}_S{tube['start']}_E{tube['end'] - 1}_L{left}_T{top}_R{right}_B{bottom}"


def _full_video(
    video: str, minutes: Sequence[int], splits: Mapping[str, str], mirror: VideoFolder
) -> ListedRecording:
    """A whole video without tracks, and the span in which its pieces lie."""
    first, last = (
        min(minutes) * TALKINGHEAD_PIECE_SECONDS - MAX_PIECE_SHIFT_SECONDS,
        (max(minutes) + 1) * TALKINGHEAD_PIECE_SECONDS + MAX_PIECE_SHIFT_SECONDS,
    )
    row = _row(video, video, splits, mirror.locate_file_or_youtube(video, video), [])
    return {**row, "span": [max(0.0, first), last]}
