"""CelebV (ReenactGAN): five persons, each a folder of numbered face images in order of time, without sound.

`{person}/Image/{number}.jpg`, and beside Image a list of landmarks, if there is one: a line an image, numbers
and then the image's name. Images whose numbers follow one another make a recording;
`recording_images_to_video` writes it as a video that holds the files' own bytes. The images are crops
already, so the face has all of the frame.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from pipelines.errors import Transient, UserError
from pipelines.preprocess.sources import RecordingListing
from pipelines.preprocess.sources.common.files import (
    digest_each_file,
    is_utf8_path,
    read_text_lines,
    safe_name,
    shorten_name,
)
from pipelines.preprocess.sources.common.rows import (
    BaseRecording,
    ListedRecording,
    RejectRow,
    make_reject_row,
)
from pipelines.preprocess.sources.common.source_tracks import make_source_track
from storage.uris import ExpandedPath

IMAGES_FOLDER = "Image"
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png")
_NUMBERED = re.compile(r"[A-Za-z0-9_-]*?([0-9]{1,9})\.[A-Za-z]+")


class CelebvConfig(Struct, frozen=True, kw_only=True):
    path: ExpandedPath = ""
    """The folder that holds one folder a person."""
    landmarks: str = "all_98pt.txt"
    """Name of the list in a person's folder. Where it is there, only the images it names are used."""
    fps: float = 25.0
    """Images a second: the set does not say."""
    frames: int = 1000
    """Images of a recording at most."""
    min_frames: int = 25
    """Shorter runs of images are rejected."""
    held_out: bool = False
    """All persons are the test split, as in papers that use the set for cross-reenactment only; otherwise
    some, by data.NAME.test_fraction."""

    def __post_init__(self) -> None:
        if not 1 <= self.fps <= 240:
            raise ValueError(f"fps {self.fps}: expected 1 to 240")
        if not 1 <= self.min_frames <= self.frames:
            raise ValueError(f"min_frames {self.min_frames}: expected 1 to frames {self.frames}")
        if not self.landmarks or Path(self.landmarks).name != self.landmarks:
            raise ValueError(f"landmarks {self.landmarks!r}: expected the name of a file, without folders")


class NumberedImage(Struct, frozen=True):
    number: int
    name: str
    stat: os.stat_result


def list_recordings(config: CelebvConfig) -> RecordingListing:
    """A row for every run of images with consecutive numbers, by person and first number."""
    rows: list[ListedRecording] = []
    rejects: list[RejectRow] = []
    for folder in _persons(config):
        images = _images(folder / IMAGES_FOLDER, rejects)
        selected = _read_list(folder / config.landmarks, {image.name for image in images}, rejects)
        if selected is not None:
            images = [image for image in images if image.name in selected]
        person = safe_name(folder.name)
        for run in consecutive_runs(images, config.frames):
            id = shorten_name(f"{person}-{run[0].number:06d}-{run[-1].number:06d}")
            if len(run) < config.min_frames:
                sentence = (
                    f"{len(run)} images in a row, fewer than data.NAME.celebv.min_frames {config.min_frames}"
                )
                rejects.append(make_reject_row(id, folder / IMAGES_FOLDER, 0, "short_run", sentence))
            else:
                rows.append(_row(id, person, folder / IMAGES_FOLDER, run, config))
    return RecordingListing(rows, rejects)


def digest_external_files(config: CelebvConfig) -> dict[str, str]:
    """Person -> a digest of names, sizes and times of the images; list of landmarks -> sha256."""
    found = {}
    for folder in _persons(config):
        found[folder.name] = _stamp((image.name, image.stat) for image in _images(folder / IMAGES_FOLDER, []))
        table = folder / config.landmarks
        if table.is_file():
            found[f"{folder.name}/{table.name}"] = digest_each_file([table])[table]
    return found


def _row(
    id: str, person: str, folder: Path, run: Sequence[NumberedImage], config: CelebvConfig
) -> ListedRecording:
    stamp = _stamp((image.name, image.stat) for image in run)
    spec = {"fps": config.fps, "images": [image.name for image in run], "stamp": stamp}
    return {
        "id": id,
        "identity": person,
        "split": "test" if config.held_out else "",
        "uri": str(folder.absolute()),
        "sha256": "",
        "seed": 0,
        "spec": json.dumps(spec, sort_keys=True, separators=(",", ":")),
        "tracks": [make_source_track(0, len(run), config.fps, (1, 1), (0, 0, 1, 1))],
    }


# --- files --------------------------------------------------------------------------------------------------
def _persons(config: CelebvConfig) -> list[Path]:
    root = Path(config.path)
    if not config.path or not root.is_dir():
        raise UserError(f"data.NAME.celebv.path {config.path!r} is not a folder")
    found = sorted(path for path in root.iterdir() if (path / IMAGES_FOLDER).is_dir())
    if unreadable := [path.name for path in found if not is_utf8_path(path)]:
        raise UserError(
            f"data.NAME.celebv.path: folder {unreadable[0]!a} has a name that is not UTF-8; rename it"
        )
    if not found:
        raise UserError(f"data.NAME.celebv.path {config.path!r} has no folder <person>/{IMAGES_FOLDER}")
    return found


def _images(folder: Path, rejects: list[RejectRow]) -> list[NumberedImage]:
    """Sorted by number. Names without a number, and second files of one number, are rejected."""
    found: list[NumberedImage] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.lower().endswith(IMAGE_EXTENSIONS) or not entry.is_file():
                continue
            number = _NUMBERED.fullmatch(entry.name)
            if number is None:
                sentence = "expected letters, digits, '_' and '-' with a number last, such as 000123.jpg"
                rejects.append(make_reject_row("", entry.path, 0, "malformed_name", sentence))
                continue
            found.append(NumberedImage(int(number[1]), entry.name, entry.stat()))
    kept: list[NumberedImage] = []
    for image in sorted(found, key=lambda image: (image.number, image.name)):
        if kept and kept[-1].number == image.number:
            sentence = f"{image.name} has the number of {kept[-1].name}"
            rejects.append(make_reject_row("", folder / image.name, 0, "duplicate_row", sentence))
        else:
            kept.append(image)
    return kept


def _read_list(table: Path, names: set[str], rejects: list[RejectRow]) -> set[str] | None:
    """Images with a sound line in the list; None without a list."""
    if not table.is_file():
        return None
    found: set[str] = set()
    count = 0
    for number, text in read_text_lines(table):
        *cells, last = text.split()
        name = last.replace("\\", "/").split("/")[-1]
        count = count or len(cells)
        if not cells or len(cells) % 2 or len(cells) != count or not all(map(_finite, cells)):
            sentence = f"expected {count or 'an even count of'} numbers and an image's name"
            rejects.append(make_reject_row("", table, number, "malformed_row", sentence))
        elif name not in names:
            sentence = f"there is no image {name[:80]!r}"
            rejects.append(make_reject_row("", table, number, "no_image", sentence))
        elif name in found:
            rejects.append(make_reject_row("", table, number, "duplicate_row", f"{name} is listed before"))
        else:
            found.add(name)
    return found


def _finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def consecutive_runs(images: Sequence[NumberedImage], longest: int) -> Iterator[list[NumberedImage]]:
    """Images by number -> stretches without a gap, of `longest` images at most."""
    run: list[NumberedImage] = []
    for image in images:
        if run and (image.number != run[-1].number + 1 or len(run) == longest):
            yield run
            run = []
        run.append(image)
    if run:
        yield run


# --- video --------------------------------------------------------------------------------------------------
def recording_images_to_video(row: BaseRecording) -> bytes:
    """A row of recordings -> its images as a QuickTime video, frame by frame the bytes of the files."""
    from pipelines.media.image_sequence import mux_images_to_video

    spec = json.loads(row["spec"])
    folder, names = Path(row["uri"]), spec["images"]
    if _stamp((name, (folder / name).stat()) for name in names) != spec["stamp"]:
        # not a property of the recording: files were replaced while the run was under way
        raise Transient(
            f"images of {row['id']} in {folder} changed since they were listed; run again", soon=False
        )
    return mux_images_to_video([folder / name for name in names], spec["fps"])


def _stamp(files: Iterable[tuple[str, os.stat_result]]) -> str:
    """Digest of names, sizes and times."""
    text = "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in files)
    return hashlib.sha256(text.encode()).hexdigest()
