"""A folder of videos that are named by their ids, in place of downloading them."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from pipelines.errors import UserError
from pipelines.preprocess.sources.common.files import (
    VIDEO_EXTENSIONS,
    YOUTUBE_ID_PATTERN,
    is_utf8_path,
    shorten_name,
    walk_folder,
)
from pipelines.preprocess.sources.common.rows import AnnotatedFaceTrack, ListedRecording, VideoLocation
from pipelines.preprocess.sources.common.source_tracks import sort_tracks

PREFERRED_EXTENSIONS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v")
"""Of two videos with one name, these come before other kinds."""


class VideoFolder(Struct, frozen=True):
    folder: Path | None
    files: dict[str, tuple[Path, int, int]] = field(default_factory=dict)
    """Name without its extension -> path, size in bytes, time of the last change in nanoseconds."""

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def locate_file_or_youtube(self, name: str, youtube: str = "") -> VideoLocation:
        """uri, sha256 and spec of a recording: its file; without a mirror its address on YouTube, if it has
        one; else none, which is rejected at download."""
        if name not in self.files:
            fetched = self.folder is None and YOUTUBE_ID_PATTERN.fullmatch(youtube)
            return {"uri": f"youtube:{youtube}" if fetched else "", "sha256": "", "spec": ""}
        path, size, changed = self.files[name]
        # hashing a mirror takes hours; a replaced file shows by its size or time, which make the row another
        stamp = json.dumps({"bytes": size, "mtime_ns": changed}, sort_keys=True)
        return {"uri": str(path), "sha256": "", "spec": stamp}

    def digest_listing(self) -> str:
        """Of names, sizes and times: the files may be terabytes."""
        listing = hashlib.sha256()
        for name, (path, size, changed) in sorted(self.files.items()):
            listing.update(f"{name} {path.suffix} {size} {changed}\n".encode())
        return listing.hexdigest()


def scan_video_folder(folder: str, setting: str) -> VideoFolder:
    """Every video in the folder, in those below it and where links lead; of two with one name the first by
    path counts.

    `setting` is the configuration's name of the folder, for the error. "" = there is no mirror.
    """
    if not folder:
        return VideoFolder(None)
    root = Path(folder).absolute()
    if not root.is_dir():
        raise UserError(f"{setting} {folder!r} is not a folder")
    found = walk_folder(root)
    if closed := [lost for lost in found.lost if lost.code == "unreadable"]:
        raise UserError(f"{setting}: {closed[0].path}: {closed[0].sentence}")
    files: dict[str, tuple[Path, int, int]] = {}
    for path, stat in sorted(
        found.files, key=lambda one: (_extension(one[0]) not in PREFERRED_EXTENSIONS, str(one[0]))
    ):
        if _extension(path) in VIDEO_EXTENSIONS and is_utf8_path(path):
            files.setdefault(os.path.splitext(path.name)[0], (path, stat.st_size, stat.st_mtime_ns))
    return VideoFolder(root, files)


def _extension(path: Path) -> str:
    return os.path.splitext(path.name)[1].lower()


def recording_rows_from_tracks(
    tracks: Mapping[tuple[str, str], list[AnnotatedFaceTrack]], splits: Mapping[str, str], mirror: VideoFolder
) -> list[ListedRecording]:
    """Tracks of each (YouTube id, person), and the persons' splits -> rows of recordings. A video that shows
    several persons of the set is a recording for each."""
    persons = Counter(video for video, _ in tracks)
    rows: list[ListedRecording] = []
    for (video, person), own in sorted(tracks.items()):
        id = video if persons[video] == 1 else shorten_name(f"{video}-{person}")
        rows.append(
            {
                "id": id,
                "identity": person,
                "split": splits[person],
                **mirror.locate_file_or_youtube(video, video),
                "seed": 0,
                "tracks": sort_tracks(own),
            }
        )
    return rows
