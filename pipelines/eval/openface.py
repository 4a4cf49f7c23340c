"""Action units that OpenFace 2 found in the frames of a method, read from the CSV files that it writes.

OpenFace is not ours to ship: a user runs its FeatureExtraction on the videos of each method and of the truth,
whole clips at a time, for it calibrates by clip, and names the folders of its files in `eval.openface`. A
pair's file is called NAME.csv, NAME being what pairs.csv of the node `pairs.<protocol>` calls it
(pipelines/eval/external_frames.py); it has one row for each driving frame of the pair, or a single one where
the method shows a single picture.

Of its columns those that count are AU01_c to AU45_c, whether each of 18 units is present, and `success`,
whether there was a face at all; some versions put a space before each name.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipelines.errors import Rejected, UserError
from pipelines.eval.pairs import pair_file_name
from pipelines.preprocess.sources.common.files import digest_each_file, walk_folder

if TYPE_CHECKING:
    from pipelines.eval.config import OpenFaceFiles
    from pipelines.eval.pair_clips import FamilySamples, Sample

ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 28, 45)
"""Of which OpenFace 2 tells the presence."""
PRESENCE_COLUMNS = tuple(f"AU{unit:02d}_c" for unit in ACTION_UNITS)
SUCCESS_COLUMN, FRAME_COLUMN, FACE_COLUMN = "success", "frame", "face_id"
MAX_BYTES_PER_ROW = 65_536
"""Of a file of all that OpenFace can tell, some 10,000."""
FILE_SUFFIX = ".csv"


class OpenFaceConfig(Protocol):
    @property
    def files(self) -> OpenFaceFiles: ...


def digest_external_files(config: OpenFaceConfig) -> dict[str, str]:
    """Relative name of every CSV file of the method -> sha256, for the node's key."""
    root = Path(config.files.folder)
    if not root.is_dir():
        raise UserError(f"eval.openface.PROTOCOL.METHOD.folder {config.files.folder!r} is not a folder")
    files = sorted(path for path, _ in walk_folder(root).files if path.suffix.lower() == FILE_SUFFIX)
    return {path.relative_to(root).as_posix(): digest for path, digest in digest_each_file(files).items()}


def read_action_units(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: object = None,
    setting: str = "",
) -> Iterator[Sample]:
    """Of each generated frame of a pair, which of ACTION_UNITS are present: (T,18) float32 of 0 and 1, NaN
    where there is no face. Without the setting, its name. Rejected where the pair's file is missing or of
    another form."""
    generated = inputs["generated"]
    key = generated.keys[0]
    files: OpenFaceFiles | None = getattr(config, "files", None)
    if files is None:
        yield {"__key__": key, "needs": {"weights": setting}}
        return
    path = Path(files.folder) / f"{pair_file_name(key)}{FILE_SUFFIX}"
    yield {"__key__": key, "action_units": read_presences(path, generated.frame_count(key))}


def read_presences(path: Path, frames: int) -> np.ndarray:
    """A file of OpenFace 2 of so many frames -> (T,18)."""
    if not path.is_file():
        raise Rejected("missing", f"there is no file {path}")
    if (size := path.stat().st_size) > MAX_BYTES_PER_ROW * (frames + 1):
        raise Rejected("too_large", f"{path} has {size:,} bytes, for {frames} frames")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream, skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Rejected("unreadable", f"{path} is no CSV file: {error}") from None
    header, *rows = [row for row in rows if row] or [[]]
    at = {name.strip(): place for place, name in enumerate(header)}
    if missing := [name for name in (*PRESENCE_COLUMNS, SUCCESS_COLUMN) if name not in at]:
        raise Rejected("columns", f"{path} lacks the columns {', '.join(missing)}")
    _check_rows(path, rows, frames, len(header))
    _check_one_face_a_frame(path, rows, at)
    found = np.array([_presences(path, row, at) for row in rows], np.float32)
    return found.reshape(frames, len(ACTION_UNITS))


def _check_rows(path: Path, rows: Sequence[Sequence[str]], frames: int, columns: int) -> None:
    if len(rows) != frames:
        raise Rejected("frame_count", f"{path} has {len(rows)} rows, its pair has {frames} frames")
    uneven = next((n for n, row in enumerate(rows) if len(row) != columns), None)
    if uneven is not None:
        raise Rejected("columns", f"{path}: row {uneven + 1} has {len(rows[uneven])} of {columns} columns")


def _check_one_face_a_frame(path: Path, rows: Sequence[Sequence[str]], at: Mapping[str, int]) -> None:
    """Rows are of frames 1, 2, ..., as FeatureExtraction counts, and of one face."""
    if FRAME_COLUMN in at:
        counted = [_number(path, row[at[FRAME_COLUMN]]) for row in rows]
        if counted != list(range(1, len(rows) + 1)):
            raise Rejected("frame_order", f"{path}: column frame does not count from 1 to {len(rows)}")
    if FACE_COLUMN in at and len({row[at[FACE_COLUMN]].strip() for row in rows}) > 1:
        raise Rejected("several_faces", f"{path} tells of several faces; let FeatureExtraction write it")


def _presences(path: Path, row: Sequence[str], at: Mapping[str, int]) -> list[float]:
    if _number(path, row[at[SUCCESS_COLUMN]]) != 1:
        return [math.nan] * len(ACTION_UNITS)
    found = [_number(path, row[at[name]]) for name in PRESENCE_COLUMNS]
    if wrong := set(found) - {0.0, 1.0}:
        raise Rejected("values", f"{path}: presences are 0 or 1, found {min(wrong):g}")
    return found


def _number(path: Path, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise Rejected("values", f"{path}: {text[:20]!r} is no number") from None
    if not math.isfinite(value):
        raise Rejected("values", f"{path}: {text[:20]!r} is no number")
    return value
