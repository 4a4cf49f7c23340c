"""Rows of the tables of units other than recordings: blocks of seeds (seed_blocks.py), pairs of clips
(clip_pairs.py). Such a table lies in the artifact of the node that lists them, as `<stage>.parquet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from storage.families import Artifact

Row = Mapping[str, Any]


def table_file(artifact: Artifact) -> str:
    """The table's file."""
    return f"{artifact.node}.parquet"


def read_rows(artifact: Artifact) -> dict[str, Row]:
    """Id -> the row."""
    import pyarrow.parquet as pq

    rows = pq.read_table(artifact.path(table_file(artifact))).to_pylist()
    return {row["id"]: row for row in rows}


class TableRows:
    """The rows of a table as a family of clips is read: each is a sample of its own, and its columns are the
    fields. Pickles with all rows."""

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self.rows = rows

    @property
    def keys(self) -> list[str]:
        return list(self.rows)

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def recording_of(self, key: str) -> str:
        """The unit that a sample belongs to: the row itself."""
        return key

    def frame_count(self, key: str) -> int:
        return 0

    def read(self, key: str, fields: Sequence[str] | None = None) -> dict[str, Any]:
        row = self.rows[key]
        return dict(row) if fields is None else {name: row[name] for name in fields}

    def frames(self, key: str, indices: Sequence[int]) -> np.ndarray:
        raise ValueError(f"row {key} of a table has no frames; read those of the clips that it names")
