"""The table of recordings: what a row holds, and the only reading and writing of its files.

Artifact of the node `recordings`: `recordings.parquet`, a `Recording` a row, by id; `rejects.parquet`, the
rows of the source that cannot be used; `notes.parquet`, in the same columns, what is used but should be
known.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from pipelines.preprocess.sources.common.rows import BaseRecording, RejectRow

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.engine.node import Inputs
    from storage.families import Artifact

RECORDINGS_FILE, REJECTS_FILE, NOTES_FILE = "recordings.parquet", "rejects.parquet", "notes.parquet"
ROWS_PER_BATCH = 20_000


class Recording(BaseRecording):
    """A row of the table. Its split is train or test."""

    source: str
    """The name of one of SOURCES."""
    bucket: int
    span: list[float]
    """[first, last] seconds of the original that the tracks need, or []."""


class Person(NamedTuple):
    """Who is in a recording, or another unit, and in which split."""

    identity: str
    """Empty: nobody, as in a block of seeds."""
    split: str


# --- reading ------------------------------------------------------------------------------------------------
def recording_row_from_inputs(inputs: Inputs) -> Recording:
    """The row that a keyed stage with the units of `recordings` is given: of its fields, those that the node
    reads."""
    return cast("Recording", inputs["recordings"][0])


def read_recordings(artifact: Artifact) -> list[Recording]:
    """Every row, by id."""
    return cast("list[Recording]", _read(artifact, RECORDINGS_FILE))


def read_rejects(artifact: Artifact) -> list[RejectRow]:
    """The rows of the source that are left out."""
    return cast("list[RejectRow]", _read(artifact, REJECTS_FILE))


def read_recording_people(artifact: Artifact, table: str = RECORDINGS_FILE) -> dict[str, Person]:
    """Recording id -> its person; or that of the units of another table, by the name of its file. Reads three
    columns: the tracks of a large corpus are most of its table."""
    rows = _read(artifact, table, ["id", "identity", "split"])
    return {str(row["id"]): Person(str(row["identity"]), str(row["split"])) for row in rows}


def _read(artifact: Artifact, name: str, columns: Sequence[str] | None = None) -> list[dict[str, object]]:
    import pyarrow.parquet as pq

    return pq.read_table(artifact.path(name), columns=columns).to_pylist()


# --- writing ------------------------------------------------------------------------------------------------
def write_recording_tables(
    folder: Path, rows: Sequence[Recording], rejects: Sequence[RejectRow], notes: Sequence[RejectRow]
) -> None:
    """The artifact's files."""
    import pyarrow.parquet as pq

    recordings, rejected = _schemas()
    for name, some, schema in (
        (RECORDINGS_FILE, rows, recordings), (REJECTS_FILE, rejects, rejected), (NOTES_FILE, notes, rejected),
    ):  # fmt: skip
        pq.write_table(arrow_table(some, schema), folder / name, compression="zstd")


def arrow_table(rows: Sequence[Mapping[str, object]], schema: pa.Schema) -> pa.Table:
    """Rows -> Arrow by way of JSON: pyarrow's own converters import pandas, half a second of every plan."""
    import pyarrow as pa

    starts = range(0, max(1, len(rows)), ROWS_PER_BATCH)
    return pa.concat_tables([_part(rows[at : at + ROWS_PER_BATCH], schema) for at in starts]).combine_chunks()


def _part(rows: Sequence[Mapping[str, object]], schema: pa.Schema) -> pa.Table:
    from pyarrow import json as arrow_json

    names = schema.names
    lines = [json.dumps({name: row[name] for name in names}) for row in rows] or ["{}"]
    text = "\n".join(lines).encode()
    table = arrow_json.read_json(
        io.BytesIO(text),
        arrow_json.ReadOptions(use_threads=False, block_size=len(text) + 1),
        arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
    )
    return table.slice(0, len(rows))


def _schemas() -> tuple[pa.Schema, pa.Schema]:
    import pyarrow as pa

    track = pa.struct(
        [
            ("start", pa.int32()),
            ("end", pa.int32()),
            ("fps", pa.float32()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("box", pa.list_(pa.float32())),
            ("grow", pa.float64()),
        ]
    )
    texts = ("id", "identity", "split", "source", "uri", "sha256", "spec")
    columns = [(name, pa.string()) for name in texts]
    columns += [("bucket", pa.int32()), ("seed", pa.int64())]
    columns += [("tracks", pa.list_(track)), ("span", pa.list_(pa.float64()))]
    recordings = pa.schema(columns)
    return recordings, pa.schema(
        [(name, pa.int64() if name == "line" else pa.string()) for name in _REJECT_COLUMNS]
    )


_REJECT_COLUMNS = ("id", "file", "line", "code", "sentence")
