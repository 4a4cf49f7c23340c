"""Which clips make a pair, and which of their frames: drawn by hash, spread evenly, or read from a list."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.dataset.clip_pairs import clip_identity, hash_clip_with_seed
from pipelines.errors import UserError
from pipelines.eval.pair_clips import DRIVING_ROLE_PREFIX, SOURCE_ROLE_PREFIX

PAIR_LIST_COLUMNS = ("source", "driving")
FRAME_LIST_COLUMNS = ("source_frames", "driving_frames")
"""Columns that a list may have besides."""


class ListedPair(NamedTuple):
    source: str
    """Key of a clip."""
    driving: str
    source_frames: tuple[int, ...] = ()
    """Empty = as the protocol chooses."""
    driving_frames: tuple[int, ...] = ()


def source_indices(frames: int, sources: int) -> list[int]:
    """Source frames of a clip: the first; first and last; first, middle and last; and so on."""
    return [int(i) for i in np.linspace(0, frames - 1, sources).round()]


def driving_indices(frames: int, stride: int, most: int | None, sources: Sequence[int]) -> list[int]:
    """Driving frames of a clip; never one of `sources`, its own source frames, which would score a copy."""
    return [i for i in range(frames) if i not in sources][::stride][:most]


def spread_evenly(keys: Sequence[str], most: int) -> list[str]:
    """At most so many of the keys, in order, from the first to the last: neighbours are often one person."""
    if len(keys) <= most:
        return list(keys)
    return [keys[int(i)] for i in np.linspace(0, len(keys) - 1, most).round()]


def sample_cross_corpus_pairs(
    sources: Iterable[str], drivings: Iterable[str], seed: int, most: int | None
) -> list[tuple[str, str]]:
    """Clip keys of two corpora -> (source, driving) of different identities, each clip in at most two of
    them; at most `most`, which do not depend on the order of the keys."""
    clips = [
        *((SOURCE_ROLE_PREFIX, key) for key in sources),
        *((DRIVING_ROLE_PREFIX, key) for key in drivings),
    ]
    ring = sorted(clips, key=lambda clip: hash_clip_with_seed(seed, "".join(clip)))
    found: dict[tuple[str, str], None] = {}
    for one, other in zip(ring, [*ring[1:], *ring[:1]], strict=True):
        sides = dict((one, other))
        if len(sides) == 2 and clip_identity(sides[SOURCE_ROLE_PREFIX]) != clip_identity(
            sides[DRIVING_ROLE_PREFIX]
        ):
            found[sides[SOURCE_ROLE_PREFIX], sides[DRIVING_ROLE_PREFIX]] = None
    return list(found)[:most]


def read_pair_list(
    path: Path,
    sources: Sequence[str],
    drivings: Sequence[str],
    second: str = "driving",
    frame_columns: Sequence[str] = FRAME_LIST_COLUMNS,
) -> list[ListedPair]:
    """A CSV file of clip keys and, where it has the columns, numbers of frames -> its pairs. UserError: no
    such file or columns, no pair, one pair twice, clips that cannot be used, or what is no number.

    second: the column of the second clip, where the list has it, else `driving`: of who is heard, `sound`, as
    pairs.csv has it. frame_columns: those that are read."""
    rows = list(csv.DictReader(read_list_bytes(path).decode("utf-8-sig").splitlines()))
    if not rows or not set(PAIR_LIST_COLUMNS) <= set(rows[0]):
        found = ", ".join(rows[0]) if rows else "no rows"
        raise UserError(
            f"{path}: expected rows under the columns {' and '.join(PAIR_LIST_COLUMNS)}, found {found}"
        )
    pairs = [
        ListedPair(
            row["source"],
            row.get(second) or row["driving"],
            **{name: _frame_numbers(row, name, path) for name in frame_columns},
        )
        for row in rows
    ]
    unknown = {one.source for one in pairs} - set(sources)
    unknown |= {one.driving for one in pairs} - set(drivings)
    if unknown:
        raise UserError(
            f"{path} names {len(unknown)} clips that are not among the "
            f"{len({*sources, *drivings})} usable test clips, the first {min(unknown)!r}; correct the list"
        )
    counts = Counter((one.source, one.driving) for one in pairs)
    if repeated := [pair for pair, count in counts.items() if count > 1]:
        raise UserError(f"{path} lists {' with '.join(repeated[0])} twice; keep one of the rows")
    return pairs


def _frame_numbers(row: Mapping[str, str | None], column: str, path: Path) -> tuple[int, ...]:
    """Ascending numbers of frames, with spaces in between; none where there is no such column."""
    texts = (row.get(column) or "").split()
    if not all(text.isdecimal() for text in texts):
        raise UserError(
            f"{path}: {column} {row[column]!r}: expected numbers of frames from 0, with spaces in between"
        )
    numbers = tuple(map(int, texts))
    if list(numbers) != sorted(set(numbers)):
        raise UserError(f"{path}: {column} {row[column]!r}: expected each frame once, in ascending order")
    return numbers


def read_list_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"pair_list {path} cannot be read: {error.strerror}") from error
