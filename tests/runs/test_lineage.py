"""Why a node of the toy project would run, and what a recording went into."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import UserError
from pipelines.runs.lineage import describe_node_reasons, trace_recording_downstream
from storage import ledger, locations
from storage.families import ManifestRow, encode_manifest
from storage.files import Store


def lines(project, node, unit=None):
    planner = project.planner()
    return list(describe_node_reasons(planner, planner.plan(), node, unit))


def test_why_shows_the_changed_line_of_source(ran):
    ran.edit("helpers", "return thing(x) + thing(x)", "return 2 * thing(x)")
    found = lines(ran, "double")
    assert found[0] == "double: stale"
    assert "-    return thing(x) + thing(x)" in found
    assert "+    return 2 * thing(x)" in found


def test_why_follows_the_chain_up_to_what_changed(ran):
    ran.set("double", times=3)
    found = lines(ran, "add")
    assert found[0] == "add: pending"
    assert "double: stale" in found
    assert any("double.times 1 -> 3" in line for line in found)


def test_why_tells_where_a_unit_stands(ran):
    assert any(line.startswith("  unit a: cached, content ") for line in lines(ran, "add", "a"))
    assert "  unit z: not among its units" in lines(ran, "add", "z")
    ran.values({"a": 5, "b": 2, "c": 3, "d": 4, "e": 5})
    assert "  unit a: to be computed" in lines(ran, "double", "a")


# --- from a recording to all that it went into --------------------------------------------------------------
@pytest.fixture
def pairs(tmp_path):
    """The store of a run with clips of recordings a to d, a table of two pairs, frames that a model trained
    on `d` makes of them, and a page."""
    store = Store(str(tmp_path / "store"))
    record = ledger.Ledger(store, "20260101-000000-0001")

    def keyed(node, units, **reads):
        rows = [
            ManifestRow(unit, f"{unit}-key", "pack", "ok", "", "", "digest", 10, 1, 6, 0.1) for unit in units
        ]
        store.write(locations.manifest_path(node, f"{node}-key"), encode_manifest(rows))
        started(node, reads)

    def started(node, reads):
        inputs = {up: {"stage": up, "key": f"{up}-key"} for up in reads.values()}
        record.emit({"type": "node_started", "node": node, "stage": node, "key": f"{node}-key",
                     "inputs": inputs, "weights": {}})  # fmt: skip

    keyed("clips", "abcd")
    rows = [{"id": "p1", "recordings": ["a", "b"]}, {"id": "p2", "recordings": ["c"]}]
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), table)
    store.write(f"{locations.artifact_path('pairs', 'pairs-key')}/pairs.parquet", table.getvalue())
    started("pairs", {"clips": "clips"})
    keyed("copy", ["p1", "p2"], pairs="pairs", clips="clips")
    started("train", {"clips": "clips"})
    keyed("generate", ["p1", "p2"], pairs="pairs", clips="clips", checkpoint="train")
    keyed("features", ["p1", "p2"], generated="copy")
    started("report", {"features": "features"})
    return store


def test_a_recording_is_followed_through_the_pairs_that_name_it(pairs):
    found = [line.split() for line in trace_recording_downstream(pairs, "b")]
    units = {line[0]: line[2] for line in found if line[0] in ("copy", "features")}
    assert units == {"copy": "p1", "features": "p1"}
    assert [line[0] for line in found if "p2" in line] == []
    assert found[-1] == ["report", "report-key", "through", "features"]


def test_what_a_checkpoint_made_went_through_all_that_it_was_trained_on(pairs):
    found = {line.split()[0]: line for line in trace_recording_downstream(pairs, "d")}
    assert found["generate"].endswith("through train")
    assert "copy" not in found


def test_a_recording_that_nothing_holds_is_named(pairs):
    with pytest.raises(UserError, match="no artifact holds a recording 'z'"):
        list(trace_recording_downstream(pairs, "z"))
