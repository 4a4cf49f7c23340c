"""Rows of a table of units, read as clips are."""

import pickle
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.dataset.clips import StoredClip, open_clip_families
from pipelines.dataset.unit_rows import TableRows, read_rows

ROWS = [
    {"id": "p1", "source_clip": "a", "driving_clip": "b"},
    {"id": "p2", "source_clip": "b", "driving_clip": "a"},
]


@pytest.fixture
def artifact(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "clip_pairs.parquet")
    return SimpleNamespace(node="clip_pairs", path=lambda name: tmp_path / name)


def test_a_row_is_read_by_its_columns(artifact):
    clips, keys = open_clip_families({"pairs": artifact}, {"pairs": ("source_clip",)}, ("pairs",))
    row = StoredClip(clips, keys[1])
    assert (keys, row.length, row.read_field("source_clip")) == (["p1", "p2"], 0, "b")


def test_rows_travel_to_another_process(artifact):
    again = pickle.loads(pickle.dumps(TableRows(read_rows(artifact))))
    assert again.read("p2") == ROWS[1]
    assert "p3" not in again


def test_a_row_has_no_frames(artifact):
    with pytest.raises(
        ValueError, match="row p1 of a table has no frames; read those of the clips that it na"
    ):
        TableRows(read_rows(artifact)).frames("p1", [0])
