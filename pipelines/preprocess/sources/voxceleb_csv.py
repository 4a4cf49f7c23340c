"""The VoxCeleb metadata file of video-preprocessing (`vox-metadata.csv`), over a local mirror of the videos.

Columns: video_id,start,end,bbox,fps,width,height,partition and person_id; a file written by crop_vox.py has
no person_id, its video_id reads `video#person`. A line is one track: frames start..end (end exclusive) at
fps, its box left-top-right-bottom in pixels of a width x height frame. All lines of one person in one video
make one recording, with id `{video_id}`, or `{video_id}-{person_id}` where a video shows several persons.

A person who stands in both partitions goes to test: the published file has two (id10282, id10306).
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.preprocess.sources import Listing
from pipelines.preprocess.sources.files import digests, reject

COLUMNS = ("video_id", "start", "end", "bbox", "fps", "width", "height", "partition")
PARTITIONS = ("train", "test")
_ID = re.compile(r"[A-Za-z0-9_-]+")
_BOX = re.compile(r"(\d+)-(\d+)-(\d+)-(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxcelebCsvConfig:
    csv: str = ""
    """The metadata file."""
    mirror: str = ""
    """Folder of the videos, named {video_id}.mp4. Recordings whose video is not there are rejected at
    download."""


class BadLine(ValueError):
    """A line of the metadata that cannot be used: code, sentence."""


def recordings(config: VoxcelebCsvConfig) -> Listing:
    """A row a person in a video, with its tracks in the order of their starts."""
    path = _csv(config)
    tracks: dict[tuple[str, str], list[dict[str, Any]]] = {}
    partition: dict[str, str] = {}
    rejects: list[dict] = []
    seen: set[tuple[str, str, int, int]] = set()
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        missing = [c for c in COLUMNS if c not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(
                f"{path}: no column {', '.join(missing)}; found {', '.join(reader.fieldnames or [])}"
            )
        for line in reader:
            try:
                video, person, track = _parse(line)
                span = (video, person, track["start"], track["end"])
                # before the duplicate is dropped: the published file repeats lines with another partition
                if partition.get(person) != "test":
                    partition[person] = line["partition"]
                if span in seen:
                    raise BadLine("duplicate_row", f"{video} {person} {span[2]}-{span[3]} is listed before")
            except BadLine as error:
                code, sentence = error.args
                rejects.append(reject(line["video_id"] or "", path, reader.line_num, code, sentence))
                continue
            seen.add(span)
            tracks.setdefault((video, person), []).append(track)
    return Listing(_rows(tracks, partition, config), rejects)


def external(config: VoxcelebCsvConfig) -> dict[str, str]:
    """sha256 of the file, and a digest of the mirror's listing: names, sizes and times, for it may hold
    terabytes."""
    path = _csv(config)
    listing = hashlib.sha256()
    for name, stat in sorted(_mirror(config).items()):
        listing.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return {path.name: digests([path])[path], "mirror": listing.hexdigest()}


def _csv(config: VoxcelebCsvConfig) -> Path:
    path = Path(config.csv)
    if not config.csv or not path.is_file():
        raise ValueError(f"data.voxceleb_csv.csv {config.csv!r} is not a file")
    return path


def _mirror(config: VoxcelebCsvConfig) -> dict[str, os.stat_result]:
    if not config.mirror or not Path(config.mirror).is_dir():
        raise ValueError(f"data.voxceleb_csv.mirror {config.mirror!r} is not a folder")
    with os.scandir(config.mirror) as entries:
        return {
            entry.name: entry.stat() for entry in entries if entry.name.endswith(".mp4") and entry.is_file()
        }


def _parse(line: dict[str, str]) -> tuple[str, str, dict[str, Any]]:
    """One line -> video id, person id, track."""
    if None in line or any(line[c] is None for c in COLUMNS):
        raise BadLine("malformed_row", "the line has too few or too many columns")
    video, _, person = line["video_id"].partition("#")
    person = line.get("person_id") or person or video
    for what, text in (("video_id", video), ("person_id", person)):
        if not _ID.fullmatch(text):
            raise BadLine("unsafe_id", f"{what} {text!r}: expected letters, digits, '_' and '-' only")
    if line["partition"] not in PARTITIONS:
        raise BadLine("malformed_row", f"partition {line['partition']!r}: expected train or test")
    try:
        start, end, width, height = (int(line[c]) for c in ("start", "end", "width", "height"))
        fps = float(line["fps"])
    except ValueError as error:
        raise BadLine(
            "malformed_row", f"start, end, fps, width and height must be numbers: {error}"
        ) from error
    if not (0 <= start < end and 1 <= fps <= 240 and width > 0 and height > 0):
        raise BadLine(
            "malformed_row", f"impossible span or frame: {start}-{end} at {fps} fps in {width}x{height}"
        )
    box = _BOX.fullmatch(line["bbox"])
    x0, y0, x1, y1 = map(int, box.groups()) if box else (0, 0, 0, 0)
    # 4 % of the published boxes end outside their frame; their own loader cuts them there
    x1, y1 = min(x1, width), min(y1, height)
    if not (x0 < x1 and y0 < y1):
        raise BadLine(
            "malformed_box", f"bbox {line['bbox']!r}: expected left-top-right-bottom in {width}x{height}"
        )
    track = {"start": start, "end": end, "fps": fps, "width": width, "height": height}
    return video, person, {**track, "box": [float(x0), float(y0), float(x1), float(y1)]}


def _rows(
    tracks: dict[tuple[str, str], list[dict[str, Any]]], partition: dict[str, str], config: VoxcelebCsvConfig
) -> list[dict[str, Any]]:
    mirror = _mirror(config)
    persons: dict[str, int] = {}
    for video, _ in tracks:
        persons[video] = persons.get(video, 0) + 1
    rows = []
    for (video, person), own in sorted(tracks.items()):
        row: dict[str, Any] = {
            "id": video if persons[video] == 1 else f"{video}-{person}",
            "identity": person,
        }
        stat = mirror.get(f"{video}.mp4")
        uri = str((Path(config.mirror) / f"{video}.mp4").absolute()) if stat else ""
        # hashing a mirror takes hours; a replaced file shows by its size or time, which make the row another
        # one
        stamp = (
            json.dumps({"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}, sort_keys=True) if stat else ""
        )
        own = sorted(own, key=lambda track: (track["start"], track["end"]))
        row |= {"split": partition[person], "uri": uri, "sha256": "", "seed": 0, "spec": stamp, "tracks": own}
        rows.append(row)
    return rows
