"""Frames that other code made, as a method: files named by pair, read and stored as ours are.

`pairs.<protocol>` publishes pairs.csv, a row a pair: its clips and frames, and the name that its frames must
have in the folder of the method: NAME.mp4 (or another video), or a folder NAME of pictures, in order of their
names. There is one picture for each driving frame of the pair, and it is square; of another size than the
scored one it is resized as the frames of models are. A pairs.csv beside them, as `reenact pairs` leaves it,
says of which frames they are: then none of another protocol are taken for these.

T = driving frames of a pair, S = the scored size.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast
from typing import Protocol as Interface

import numpy as np

from pipelines.errors import Rejected, UserError
from pipelines.eval.pairs import PAIR_LIST_FILE, ClipPair, PairRow, pair_file_name
from pipelines.preprocess.sources.common.files import VIDEO_EXTENSIONS, digest_each_file, walk_folder
from pipelines.preprocess.sources.pictures import PICTURE_EXTENSIONS

if TYPE_CHECKING:
    from pipelines.eval.config import ExternalMethodConfig
    from pipelines.eval.pair_clips import FamilySamples, Sample

EXTERNAL_FRAMES_PROVENANCE = {"frames": "made by other code"}


class ExternalFramesConfig(Interface):
    @property
    def method(self) -> ExternalMethodConfig: ...
    @property
    def size(self) -> int: ...


def digest_external_files(config: ExternalFramesConfig) -> dict[str, str]:
    """Relative name of every picture and video of the method -> sha256, for the node's key."""
    root = Path(config.method.folder)
    if not root.is_dir():
        raise UserError(f"eval.methods.NAME.folder {config.method.folder!r} is not a folder")
    files = sorted(
        path
        for path, _ in walk_folder(root).files
        if path.suffix.lower() in (*VIDEO_EXTENSIONS, *PICTURE_EXTENSIONS)
    )
    if (root / PAIR_LIST_FILE).is_file():
        files.append(root / PAIR_LIST_FILE)
    return {path.relative_to(root).as_posix(): digest for path, digest in digest_each_file(files).items()}


def find_extra_entries(root: Path, pairs: Iterable[str]) -> list[str]:
    """Names of folders and videos that are of none of these pairs, by their ids."""
    known = {pair_file_name(pair) for pair in pairs}
    return sorted(
        path.name
        for path in root.iterdir()
        if not path.name.startswith(".")
        and (path.is_dir() or path.suffix.lower() in VIDEO_EXTENSIONS)
        and path.name not in known
        and path.stem not in known
    )


def read_external_frames(
    inputs: Mapping[str, FamilySamples],
    config: ExternalFramesConfig,
    nets: Mapping[str, object],
    runtime: object = None,
) -> Iterator[Sample]:
    """The frames of one pair; Rejected where the folder has none, too few or too many, or not square ones."""
    from pipelines.eval.generate import encode_frames_as_png
    from pipelines.figures import picture_grids

    pair = ClipPair.from_row(cast("PairRow", inputs["pairs"][0]))
    path, expected = _find(Path(config.method.folder), pair.id), len(pair.driving_frames)
    _check_pair_list(path.parent / PAIR_LIST_FILE, pair)
    frames = _of_folder(path, expected) if path.is_dir() else _of_video(path, expected)
    yield {
        "__key__": pair.id,
        "frames": encode_frames_as_png(
            picture_grids.to_uint8(picture_grids.resize_frames(frames, config.size))
        ),
        "method": {"provenance": EXTERNAL_FRAMES_PROVENANCE, "image_size": frames.shape[1]},
    }


def _find(root: Path, pair: str) -> Path:
    """The folder or video of a pair."""
    name = pair_file_name(pair)
    found = [path for path in (root / name, *(root / f"{name}{suffix}" for suffix in VIDEO_EXTENSIONS))
             if path.exists()]  # fmt: skip
    if not found:
        raise Rejected("missing", f"{root} holds neither a folder {name} nor a video {name}.mp4")
    if len(found) > 1:
        raise Rejected("ambiguous", f"{root} holds {found[0].name} and {found[1].name} for one pair")
    return found[0]


def _check_pair_list(path: Path, pair: ClipPair) -> None:
    """Rejected where a list says that a pair's files are of other frames. A list with other columns, or
    without the pair, says nothing of it."""
    if not path.is_file():
        return
    wanted = {"source_frames": pair.source_frames, "driving_frames": pair.driving_frames}
    for row in csv.DictReader(path.read_text("utf-8", errors="replace").splitlines()):
        if row.get("file") != pair_file_name(pair.id):
            continue
        for column, frames in wanted.items():
            if row.get(column) and row[column].split() != [str(frame) for frame in frames]:
                raise Rejected(
                    "other_protocol",
                    f"{path} lists {column} {_shorten(row[column])} of {row['file']}, its pair has "
                    f"{_shorten(' '.join(map(str, frames)))}",
                )


def _shorten(numbers: str) -> str:
    return numbers if len(numbers) <= 24 else f"{numbers[:24]}..."


def _of_folder(folder: Path, expected: int) -> np.ndarray:
    """-> (T,H,H,3) uint8 RGB"""
    from pipelines.media.still_image import read_picture

    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_EXTENSIONS)
    _check_count(folder, len(files), expected)
    try:
        images = [read_picture(path).pixels for path in files]
    except UserError as error:
        raise Rejected("undecodable", str(error)) from None
    if sizes := sorted({image.shape[:2] for image in images} - {images[0].shape[:2]}):
        raise Rejected("uneven_images", f"{folder} holds pictures of {images[0].shape[:2]} and of {sizes[0]}")
    _check_square(folder, *images[0].shape[:2])
    return np.stack(images)


def _of_video(path: Path, expected: int) -> np.ndarray:
    """-> (T,H,H,3) uint8 RGB"""
    from pipelines import media

    probed = media.probe_file(path, least=1)
    _check_count(path, probed["frames"], expected)
    _check_square(path, probed["height"], probed["width"])
    frames, _ = media.read_frames(path, probed, (probed["width"], probed["height"]))
    _check_count(path, len(frames), expected)
    return frames


def _check_count(path: Path, found: int, expected: int) -> None:
    if found != expected:
        raise Rejected("frame_count", f"{path} holds {found} frames, its pair has {expected} driving frames")


def _check_square(path: Path, height: int, width: int) -> None:
    if height != width:
        raise Rejected("not_square", f"{path} holds frames of {width} x {height} px, expected square ones")
