"""The metadata file of video-preprocessing (`vox-metadata.csv`; also its taichi list), over a local mirror of
the videos or YouTube.

Columns: video_id,start,end,bbox,fps,width,height,partition and person_id. The taichi list has no person_id: a
video is then an identity of its own; a file written by crop_vox.py has its video_id read `video#person`. A
line is one track: frames start..end (end exclusive) at fps, its box left-top-right-bottom in pixels of a
width x height frame. All lines of one person in one video make one recording, with id `{video_id}`, or
`{video_id}-{person_id}` where a video shows several persons.

A person who stands in both partitions goes to test: the published file has two (id10282, id10306).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from pipelines.preprocess.sources import RecordingListing
from pipelines.preprocess.sources.common import cells
from pipelines.preprocess.sources.common.files import (
    InvalidLine,
    check_id,
    digest_each_file,
    find_metadata_file,
    read_text_lines,
)
from pipelines.preprocess.sources.common.rows import AnnotatedFaceTrack, RejectRow, make_reject_row
from pipelines.preprocess.sources.common.source_tracks import (
    MAX_FACE_TRACK_END_SECONDS,
    MAX_SIDE,
    make_source_track,
)
from pipelines.preprocess.sources.common.video_folder import recording_rows_from_tracks, scan_video_folder
from storage.uris import ExpandedPath

CSV_COLUMNS = ("video_id", "start", "end", "bbox", "fps", "width", "height", "partition")
VOXCELEB_PARTITIONS = ("train", "test")
_BOX = re.compile("-".join([r"([0-9]{1,9}(?:\.[0-9]*)?)"] * 4))


class VoxcelebCsvConfig(Struct, frozen=True, kw_only=True):
    csv: ExpandedPath = ""
    """The metadata file."""
    mirror: ExpandedPath = ""
    """Folder of the videos, named {video_id}.mp4 or as another kind of video. Recordings whose video is not
    there are rejected at download. Empty: they are fetched from YouTube."""


def list_recordings(config: VoxcelebCsvConfig) -> RecordingListing:
    """A row a person in a video, with its tracks in the order of their starts."""
    path = find_metadata_file(config.csv, "data.NAME.voxceleb_csv.csv")
    tracks: dict[tuple[str, str], list[AnnotatedFaceTrack]] = {}
    partition: dict[str, str] = {}
    rejects: list[RejectRow] = []
    seen: set[tuple[str, str, int, int]] = set()
    lines = read_text_lines(path)
    columns = cells.split_csv_line(next(lines, (0, ""))[1])
    cells.check_columns(path, columns, CSV_COLUMNS)
    for number, text in lines:
        row = cells.split_csv_line(text)
        line = dict(zip(columns, row, strict=False))
        try:
            if len(row) != len(columns):
                raise InvalidLine("malformed_row", f"{len(row)} columns, expected {len(columns)}")
            video, person, found = _parse(line)
            # before the duplicate is dropped: the published file repeats lines with another partition
            if partition.get(person) != "test":
                partition[person] = line["partition"]
            one = (video, person, found["start"], found["end"])
            if one in seen:
                raise InvalidLine("duplicate_row", f"{video} {person} {one[2]}-{one[3]} is listed before")
        except InvalidLine as error:
            rejects.append(make_reject_row(line.get("video_id", "")[:80], path, number, *error.args))
            continue
        seen.add(one)
        tracks.setdefault((video, person), []).append(found)
    return RecordingListing(
        recording_rows_from_tracks(
            tracks, partition, scan_video_folder(config.mirror, "data.NAME.voxceleb_csv.mirror")
        ),
        rejects,
    )


def digest_external_files(config: VoxcelebCsvConfig) -> dict[str, str]:
    """sha256 of the file, and a digest of the mirror's listing: names, sizes and times."""
    path = find_metadata_file(config.csv, "data.NAME.voxceleb_csv.csv")
    mirror = scan_video_folder(config.mirror, "data.NAME.voxceleb_csv.mirror")
    return {path.name: digest_each_file([path])[path], "mirror": mirror.digest_listing()}


def _parse(line: Mapping[str, str]) -> tuple[str, str, AnnotatedFaceTrack]:
    """One line -> video id, person id, track."""
    video, _, person = line["video_id"].partition("#")
    video = cells.parse_name_cell(video)
    person = cells.parse_name_cell(line.get("person_id") or person or video)
    check_id("video_id", video)
    check_id("person_id", person)
    if person in cells.EMPTY_CELLS:  # a name that many would share
        raise InvalidLine("malformed_row", f"person_id {person!r}: an empty cell that became a word")
    if line["partition"] not in VOXCELEB_PARTITIONS:
        raise InvalidLine("malformed_row", f"partition {line['partition']!r}: expected train or test")
    try:
        start, end, width, height = (
            cells.parse_integer_cell(line[c]) for c in ("start", "end", "width", "height")
        )
        fps = cells.parse_number_cell(line["fps"])
    except ValueError as error:
        message = f"start, end, width and height must be whole numbers, fps a number: {error}"
        raise InvalidLine("malformed_row", message) from error
    if not (
        1 <= fps <= 240
        and 0 <= start < end <= MAX_FACE_TRACK_END_SECONDS * fps
        and 0 < width <= MAX_SIDE
        and 0 < height <= MAX_SIDE
    ):
        raise InvalidLine(
            "malformed_row", f"impossible span or frame: {start}-{end} at {fps} fps in {width}x{height}"
        )
    box = _BOX.fullmatch(line["bbox"])
    x0, y0, x1, y1 = map(float, box.groups()) if box else (0, 0, 0, 0)
    # 4 % of the published boxes end outside their frame; their own loader cuts them there
    x1, y1 = min(x1, width), min(y1, height)
    if not (x0 < x1 and y0 < y1):
        raise InvalidLine(
            "malformed_box", f"bbox {line['bbox'][:80]!r}: expected left-top-right-bottom in {width}x{height}"
        )
    return video, person, make_source_track(start, end, fps, (width, height), (x0, y0, x1, y1))
