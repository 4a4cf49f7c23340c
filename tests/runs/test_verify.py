"""verify: every fault is listed with its file, and what the next run makes of it is true."""

import os

import pytest

from pipelines.engine.runner import Runner
from pipelines.runs.lineage import find_artifact, trace_artifact, trace_recording_downstream
from pipelines.runs.verify import describe_store_repairs, find_store_faults
from storage import checkpoints, ledger, locations
from tests.toy_project import InProcess


@pytest.fixture
def recorded(project):
    """The toy run, with its ledger."""
    record = ledger.Ledger(project.store, "20260101-000000-0001")
    record.emit({"type": "run_started", "name": "toy", "holder": "elsewhere:1"})
    outcome = Runner(project.planner(), InProcess(), record.run_id, emit=record.emit).run()
    record.emit({"type": "run_finished"})
    assert not outcome.failed
    project.did()
    return project


def faults(project):
    return [fault for fault in find_store_faults(project.store) if fault.then != "left"]


def first(project, top, ending):
    return next(e.name for e in project.store.walk(top) if e.name.endswith(ending))


def follow(project):
    """Do what verify says to do, and run."""
    for line in describe_store_repairs(faults(project)):
        if line.startswith("delete "):
            project.store.delete(line.removeprefix("delete "))
        elif line.startswith("take the lines"):
            path = line.rpartition(" ")[2]
            good = [text for text in project.store.read(path).splitlines() if text.startswith(b'{"')]
            project.store.write(path, b"".join(text + b"\n" for text in good))
    assert not project.run().failed
    assert faults(project) == []


def test_an_intact_store_has_no_faults(recorded):
    assert list(find_store_faults(recorded.store)) == []
    assert describe_store_repairs([]) == []


def test_a_shard_that_was_dropped_on_purpose_is_no_fault_and_its_record_is_still_read(recorded):
    recorded.drops = {"add"}
    recorded.run()
    assert list(find_store_faults(recorded.store)) == []
    assert any(
        line.startswith("add") for line in trace_artifact(recorded.store, *find_artifact(recorded.store, ADD))
    )
    recorded.store.write(first(recorded, "packs/add", ".parquet"), b"nothing")
    (fault,) = faults(recorded)
    assert (fault.node, fault.then) == ("add", "delete")
    follow(recorded)


ADD = "20260101-000000-0001:add"


def test_every_fault_is_listed_and_the_way_out_is_true(recorded):
    store, before = recorded.store, recorded.bytes()
    cut, flipped = first(recorded, "packs/double", ".tar"), first(recorded, "packs/add", ".tar")
    gone, garbled = first(recorded, "packs/side", ".tar"), first(recorded, "whole/report", "record.json")
    store.write(cut, store.read(cut)[:-5000])
    data = bytearray(store.read(flipped))
    data[520] ^= 4
    store.write(flipped, bytes(data))
    store.delete(gone)
    store.write(garbled, b"{")
    found = {fault.path: fault for fault in faults(recorded)}
    assert set(found) == {cut, flipped, gone, garbled}
    assert [found[path].then for path in (cut, flipped, gone, garbled)] == [
        "rebuilt", "delete", "rebuilt", "delete",
    ]  # fmt: skip
    lines = describe_store_repairs(found.values())
    assert sorted(lines[:-1]) == sorted(f"delete {path}" for path in (flipped, garbled))
    assert [name in lines[-1] for name in ("double (1", "add (1", "side (1", "report (1", "total")] == [
        True, True, True, True, False,
    ]  # fmt: skip
    follow(recorded)
    assert recorded.bytes() == before


@pytest.mark.parametrize(
    ("top", "ending"),
    [("manifests/add", ".parquet"), ("manifests/double", ".parquet"), ("whole/total", "record.json")],
)
def test_a_deleted_manifest_or_record_is_a_fault_with_its_name(recorded, top, ending):
    path = first(recorded, top, ending)
    recorded.store.delete(path)
    assert [fault.path for fault in faults(recorded)] == [path]
    follow(recorded)


@pytest.mark.parametrize(
    "top", ["keys/add", "manifests/add", "runs", "packs/add", "refs", "accepts", "reuses"]
)
def test_a_garbled_small_file_is_a_fault_with_its_name_and_ends_nothing(recorded, top):
    recorded.store.write_json(locations.pin_path("v1"), {"stage": "recordings", "artifacts": {}})
    recorded.store.write_json(locations.accepted_key_path("add", "k"), {"as": "k"})
    ledger.record_reuse(recorded.store, "toy", [])
    path = next(e.name for e in recorded.store.walk(top) if not e.name.endswith(".tar"))
    recorded.store.write(path, b"\x00garbled")
    assert [fault.path for fault in faults(recorded)] == [path]
    assert list(trace_artifact(recorded.store, *find_artifact(recorded.store, "20260101-000000-0001:report")))
    assert list(trace_recording_downstream(recorded.store, "a"))
    follow(recorded)


def test_what_a_killed_run_left_is_named_and_is_no_fault(recorded):
    recorded.store.write("packs/add/half.tar", b"x")
    recorded.store.write("whole/report/half/report.txt", b"x")
    recorded.store.write(f"{locations.leases_folder('add')}/x@y.json", b"garbled")
    left = [fault.path for fault in find_store_faults(recorded.store)]
    assert left == ["leases/add/x@y.json", "packs/add/half.tar", "whole/report/half/report.txt"]
    assert faults(recorded) == []


def test_what_gc_deleted_is_not_missed(recorded):
    for entry in recorded.store.walk("whole/report"):
        os.remove(recorded.store.full_path(entry.name))
    (fault,) = faults(recorded)
    assert fault.path.endswith("record.json")
    recorded.store.write_json(locations.DROPPED_RUNS_FILE, {"toy": 9e12})
    assert faults(recorded) == []


def test_best_weights_of_another_step_than_the_state_says_are_a_fault(recorded, tmp_path):
    torch = pytest.importorskip("torch")
    from storage.files import sha256_file

    folder, sums = "whole/train.toy.one/k-000000012", {}
    for name, about in (("state", {"step": 12, "best": [30.0, 12]}), ("best", {"step": 6})):
        checkpoints.save_checkpoint(tmp_path / name, {"w": torch.ones(1)}, about)
        sums[f"{name}.safetensors"] = sha256_file(tmp_path / name)
        recorded.store.put(tmp_path / name, f"{folder}/{name}.safetensors")
    recorded.store.write_json(f"{folder}/record.json", {"digest": "d", "sizes": {}, "sha256": sums})
    (fault,) = faults(recorded)
    assert fault.path == f"{folder}/best.safetensors"
    assert "of step 6, the state beside it says that step 12 was the best" in fault.what
