"""VoxCeleb1 and VoxCeleb2 as published: folders or archives of their track files, one text file an utterance.

A file `.../<person>/<youtube id>/<utterance>.txt` has five lines of header, a blank one, the columns FRAME X
Y W H, and a line a frame: its number at 25 frames a second of the video, the face's left, top, width, height.
VoxCeleb1 gives whole pixels of the video scaled to 360 lines, VoxCeleb2 shares of the frame's sides; the
numbers tell which. All utterances of a person in one video are the tracks of one recording.

An utterance is cut into tracks as the standard crop cuts it (crop_vox.py of video-preprocessing): where the
box no longer overlaps the track's first box, or the track is long enough; a track's box is the union of its
boxes, which the stage `clips` grows on each side. The standard looks for the face anew, near the published
box, and cuts by what S3FD finds; here the published boxes themselves are used.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
from msgspec import Struct

from pipelines.errors import UserError
from pipelines.preprocess.sources import RecordingListing
from pipelines.preprocess.sources.common.files import (
    SAFE_ID_PATTERN,
    YOUTUBE_ID_PATTERN,
    InvalidLine,
    check_id,
    digest_each_file,
    find_metadata_file,
    read_text_lines,
    walk_folder,
)
from pipelines.preprocess.sources.common.rows import AnnotatedFaceTrack, RejectRow, make_reject_row
from pipelines.preprocess.sources.common.source_tracks import box_union, find_tube_spans, make_source_track
from pipelines.preprocess.sources.common.video_folder import recording_rows_from_tracks, scan_video_folder
from storage.uris import ExpandedPath

FPS = 25
ANNOTATION_FRAME_HEIGHT = 360
"""Height of the frame that VoxCeleb1's pixels refer to; its width follows from the video's shape."""
PIXEL_UNITS, SHARE_UNITS = (0, ANNOTATION_FRAME_HEIGHT), (1, 1)
FIRST_TEST_IDENTITY, LAST_TEST_IDENTITY = "id10270", "id10309"
"""The persons of VoxCeleb1's test set."""
MAX_TRACK_FILE_BYTES = 16 << 20
"""The longest published file has some 100 kB."""
VOXCELEB_TRACK_COLUMNS = ["FRAME", "X", "Y", "W", "H"]
_PERSON = re.compile(r"id[0-9]{5}")
_UTTERANCE = re.compile(r"[0-9]{5}\.txt")


class VoxcelebConfig(Struct, frozen=True, kw_only=True):
    txt: tuple[ExpandedPath, ...] = ()
    """Folders of track files, or the published zip archives of them, which are not unpacked. Planning looks
    at each file of a folder, so for all of VoxCeleb2 the archive is much quicker."""
    mirror: ExpandedPath = ""
    """Folder of the videos, named {youtube id}.mp4 or as another kind of video. Recordings whose video is not
    there are rejected at download. Empty: they are fetched from YouTube."""
    test_persons: ExpandedPath | None = None
    """A text file of VoxCeleb2's test persons, one a line, where the folders are not called dev and test; all
    others are then the training set."""
    iou: float = 0.25
    """Least overlap with a track's first box; less starts a new track."""
    max_frames: int = 1024
    """Longer tracks are cut into pieces, each with a box of its own."""
    grow: float = 0.1
    """Growth of a track's box on each side, in sides of the box, for the crop."""

    def __post_init__(self) -> None:
        if not 0 < self.iou < 1:
            raise ValueError(f"iou {self.iou}: expected a number between 0 and 1")
        if self.max_frames < 1:
            raise ValueError(f"max_frames {self.max_frames}: expected at least 1")
        if not 0 <= self.grow <= 3:
            raise ValueError(f"grow {self.grow}: expected 0 to 3")


def list_recordings(config: VoxcelebConfig) -> RecordingListing:
    """A row a person in a video, with the tracks of all utterances in the order of their starts."""
    rejects: list[RejectRow] = []
    tracks: dict[tuple[str, str], list[AnnotatedFaceTrack]] = {}
    splits: dict[str, str] = {}
    listed = _test_persons(config, rejects)
    seen: set[tuple[str, str, str]] = set()
    for where, inner, text in _utterances(config):
        try:
            person, video, utterance = _parse_path(inner)
            if (person, video, utterance) in seen:
                raise InvalidLine("duplicate_row", f"{person} {video} {utterance} is listed before")
            if text is None:
                raise InvalidLine(
                    "unreadable", f"damaged in its archive, or larger than {MAX_TRACK_FILE_BYTES:,} bytes"
                )
            frames, boxes, size = parse_track_file(text, video)
            seen.add((person, video, utterance))
        except InvalidLine as error:
            # a fault of one line says which as its third part
            code, sentence, *line = error.args
            rejects.append(make_reject_row(_short_path(inner), where, line[0] if line else 0, code, sentence))
            continue
        own = tracks.setdefault((video, person), [])
        own += [
            make_source_track(*ends, FPS, size, box, config.grow)
            for ends, box in split_utterance_tracks(frames, boxes, config)
        ]
        split = _split(person, size == PIXEL_UNITS, inner, listed)
        # a person who stands in both sets is tested on
        if splits.get(person) != "test":
            splits[person] = split or splits.get(person, "")
    return RecordingListing(
        recording_rows_from_tracks(
            tracks, splits, scan_video_folder(config.mirror, "data.NAME.voxceleb.mirror")
        ),
        rejects,
    )


def digest_external_files(config: VoxcelebConfig) -> dict[str, str]:
    """sha256 of every archive and list; of a folder, and of the mirror, one of names, sizes and times."""
    found = {"mirror": scan_video_folder(config.mirror, "data.NAME.voxceleb.mirror").digest_listing()}
    for number, place in enumerate(_places(config)):
        name = f"txt {number}: {_outer(place)}"
        if place.is_dir():
            listing = hashlib.sha256()
            for path, stat in _track_files(place):
                inner = path.relative_to(place).as_posix()
                listing.update(
                    f"{inner} {stat.st_size} {stat.st_mtime_ns}\n".encode(errors="surrogateescape")
                )
            found[name] = listing.hexdigest()
        else:
            found[name] = digest_each_file([place])[place]
    if config.test_persons:
        path = find_metadata_file(config.test_persons, "data.NAME.voxceleb.test_persons")
        found["test_persons"] = digest_each_file([path])[path]
    return found


# --- files --------------------------------------------------------------------------------------------------
def _places(config: VoxcelebConfig) -> list[Path]:
    places = [Path(text) for text in config.txt]
    if not places:
        raise UserError(
            "data.NAME.voxceleb.txt names no folder or archive of track files, such as vox2_dev_txt.zip"
        )
    for place in places:
        if not (place.is_dir() or (place.is_file() and zipfile.is_zipfile(place))):
            raise UserError(f"data.NAME.voxceleb.txt {str(place)!r} is neither a folder nor a zip archive")
    return places


def _outer(place: Path) -> str:
    """The archive's name, or the folder's, which may say which set this is; of test/txt the last two."""
    if not place.is_dir():
        return place.stem
    return "/".join(place.absolute().parts[-2 if place.absolute().name == "txt" else -1 :])


def _track_files(folder: Path) -> list[tuple[Path, os.stat_result]]:
    found = [(path, stat) for path, stat in walk_folder(folder).files if path.suffix == ".txt"]
    return sorted(found, key=lambda one: str(one[0]))


def _utterances(config: VoxcelebConfig) -> Iterator[tuple[str, str, str | None]]:
    """Place (a folder's file, or an archive and the file in it), name with the folders it lies in, text; no
    text where it cannot be read."""
    for place in _places(config):
        if place.is_dir():
            for path, stat in _track_files(place):
                text = (
                    path.read_bytes().decode(errors="replace")
                    if stat.st_size <= MAX_TRACK_FILE_BYTES
                    else None
                )
                yield str(path), f"{_outer(place)}/{path.relative_to(place).as_posix()}", text
            continue
        with zipfile.ZipFile(place) as archive:
            for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
                name = entry.filename
                if not name.endswith(".txt") or "__MACOSX" in name:
                    continue
                yield f"{place}!{name}", f"{_outer(place)}/{name}", _member(archive, entry)


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> str | None:
    if entry.file_size > MAX_TRACK_FILE_BYTES:
        return None
    try:
        return archive.read(entry).decode(errors="replace")
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return None


def _parse_path(inner: str) -> tuple[str, str, str]:
    """Path -> person, video, utterance."""
    person, video, name = ["", "", "", *inner.split("/")][-3:]
    if not (_PERSON.fullmatch(person) and YOUTUBE_ID_PATTERN.fullmatch(video) and _UTTERANCE.fullmatch(name)):
        sentence = f"{_short_path(inner)!r}: expected .../idNNNNN/<YouTube id>/NNNNN.txt"
        raise InvalidLine("malformed_name", sentence)
    return person, video, name.removesuffix(".txt")


def _short_path(inner: str) -> str:
    return "/".join(inner.split("/")[-3:])[:120]


def _test_persons(config: VoxcelebConfig, rejects: list[RejectRow]) -> set[str] | None:
    if not config.test_persons:
        return None
    path = find_metadata_file(config.test_persons, "data.NAME.voxceleb.test_persons")
    found = set()
    for number, text in read_text_lines(path):
        person = text.split()[0]
        if _PERSON.fullmatch(person):
            found.add(person)
        else:
            quoted = person if SAFE_ID_PATTERN.fullmatch(person) else repr(person[:80])
            rejects.append(make_reject_row("", path, number, "malformed_row", f"{quoted}: expected idNNNNN"))
    return found


def _split(person: str, first_set: bool, inner: str, listed: set[str] | None) -> str:
    """VoxCeleb1's split goes by person; VoxCeleb2's by the list, else by the nearest folder's name."""
    if first_set:
        return "test" if FIRST_TEST_IDENTITY <= person <= LAST_TEST_IDENTITY else "train"
    if listed is not None:
        return "test" if person in listed else "train"
    for folder in reversed(PurePosixPath(inner).parts[:-3]):
        words = set(re.split(r"[^a-z]+", folder.lower()))
        if words & {"dev", "train", "test"}:
            return "test" if "test" in words else "train"
    return ""


# --- one utterance ------------------------------------------------------------------------------------------
def parse_track_file(text: str, video: str) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """A track file -> frames (T,) int, boxes (T,4) left, top, right, bottom, and what they are in: PIXELS at
    360 lines or SHARES of the frame."""
    lines = text.split("\n")
    head = next((n for n, line in enumerate(lines[:20]) if line.split() == VOXCELEB_TRACK_COLUMNS), None)
    if head is None:
        raise InvalidLine(
            "malformed_header", f"no line {' '.join(VOXCELEB_TRACK_COLUMNS)} among the first 20"
        )
    header = {
        name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines[:head])
    }
    if header.get("Reference") != video:
        found = check_id("Reference", header.get("Reference") or "-")
        raise InvalidLine(
            "wrong_reference", f"Reference is {found}, the file lies in the folder of {video}", 1
        )
    rows = [(number, line.split()) for number, line in enumerate(lines[head + 1 :], head + 2) if line.strip()]
    if not rows:
        raise InvalidLine("no_frames", "the file lists no frame")
    for number, cells in rows:
        if len(cells) != 5:
            raise InvalidLine(
                "malformed_row", f"{len(cells)} values, expected {' '.join(VOXCELEB_TRACK_COLUMNS)}", number
            )
    values = _numbers(rows)
    # shares have a point in them; so do whole pixels that were written as floats, but no share is so large
    pixels = all("." not in cell for _, cells in rows for cell in cells[1:])
    pixels = pixels or bool((values[:, 1:] == np.floor(values[:, 1:])).all() and values[:, 3:].max() > 1)
    _check(rows, values, pixels)
    frames, boxes = values[:, 0].astype(np.int64), values[:, 1:].copy()
    boxes[:, 2:] += boxes[:, :2]
    return frames, boxes, PIXEL_UNITS if pixels else SHARE_UNITS


def _numbers(rows: Sequence[tuple[int, Sequence[str]]]) -> np.ndarray:
    try:
        return np.array([[float(cell) for cell in cells] for _, cells in rows])
    except ValueError:
        for number, cells in rows:
            for cell in cells:
                if not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?", cell):
                    raise InvalidLine("malformed_row", f"{cell[:40]!r} is not a number", number) from None
        raise


def _check(rows: Sequence[tuple[int, Sequence[str]]], values: np.ndarray, pixels: bool) -> None:
    """InvalidLine for the first line whose frame or box cannot be."""
    frames, corner, sides = values[:, 0], values[:, 1:3], values[:, 3:]
    # a box may leave the frame, but not lie beyond it; the width at 360 lines is not known, at most 32:9
    limit = np.array([1280.0, ANNOTATION_FRAME_HEIGHT]) if pixels else np.ones(2)
    valid = np.isfinite(values).all(1) & (frames >= 0) & (frames == np.floor(frames)) & (frames < 1e8)
    grows = np.concatenate([[True], frames[1:] > frames[:-1]])
    inside = (corner < limit).all(1) & (corner + sides > 0).all(1) & (sides > 0).all(1)
    sized = (np.abs(corner) <= limit).all(1) & (sides <= limit).all(1)
    size = "pixels at 360 lines" if pixels else "shares of the frame"
    for good, code, sentence in (
        (valid, "malformed_row", "FRAME must be a whole number and the others finite"),
        (grows, "malformed_row", "FRAME does not grow"),
        (inside & sized, "malformed_box", f"the box is empty or no box in {size}"),
    ):
        if not good.all():
            number, cells = rows[int(np.argmin(good))]
            raise InvalidLine(code, f"{' '.join(cells)[:80]}: {sentence}", number)


def split_utterance_tracks(
    frames: np.ndarray, boxes: np.ndarray, config: VoxcelebConfig
) -> Iterator[tuple[tuple[int, int], list[float]]]:
    """Frames (T,) and boxes (T,4) of an utterance -> first frame, last + 1 and union of each track."""
    gaps = np.flatnonzero(np.diff(frames) != 1) + 1
    for first, last in pairwise([0, *gaps.tolist(), len(frames)]):
        # plain areas, not the script's inclusive pixels: they differ by under 1 % at these sizes
        for begin, end in find_tube_spans(boxes[first:last], config.iou, config.max_frames):
            own = slice(first + begin, first + end)
            yield (int(frames[own][0]), int(frames[own][-1]) + 1), box_union(boxes[own]).tolist()
