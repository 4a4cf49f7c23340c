"""Running the toy graph: what executes, what is reused, what a failure leaves behind."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.engine.runner import Runner, RunOutcome
from pipelines.errors import CodeError, TooManyRejects, Transient
from pipelines.runs.run import describe_failures
from storage import locations
from tests.toy_project import InProcess

BUILD_ONE = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from pipelines.engine.fingerprint import resolve_entry_point
from pipelines.engine.packs import PackJob, UnitJob, build_pack
from storage.files import Store

unit = UnitJob("c", "u1", {"listing": {"id": "c", "value": 3}}, {})
job = PackJob("double", "double", "k1", (unit,), run="r")
stage = resolve_entry_point(sys.argv[3])
result = build_pack(job, lambda inputs: stage(inputs, None, {}, None), Store(sys.argv[4]))
print(result.rows[0].code)
"""

RUN_AND_DIE = """
import os, pickle, sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from tests.toy_project import InProcess
from pipelines.engine.runner import Runner, RunOutcome

from tests import toy_project as toys

project = toys.Project.__new__(toys.Project)
project.__dict__.update(pickle.loads(bytes.fromhex(sys.argv[3])))
project.config = toys.Config(listing=toys.Listing(file=str(project.root / "values.json")))


class Dies(InProcess):
    left = int(sys.argv[4])

    def build_packs(self, *args):
        for result in super().build_packs(*args):
            Dies.left -= 1
            if Dies.left == 0:
                os._exit(9)
            yield result


Runner(project.planner(), Dies(), "r", width=1).run()
"""


def test_a_second_run_executes_nothing(ran):
    assert ran.run().executed == []
    assert ran.did() == []


def test_the_numbers_come_out_right(ran):
    plans = ran.plan()
    assert plans["report"].artifact.path("report.txt").read_text() == str(2 * 15 + 5 * 10)


def test_adding_a_unit_computes_one_and_rewrites_one_pack_a_family(ran):
    packs = {e.name for e in ran.store.walk("packs") if e.name.endswith(".tar")}
    ran.values({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6})
    ran.run()
    assert ran.did() == ["add f", "double f", "report", "side f", "total"]
    new = {e.name for e in ran.store.walk("packs") if e.name.endswith(".tar")} - packs
    assert sorted(n.split("/")[1] for n in new) == ["add", "double", "side"]


def test_reuse_by_copying_equals_recomputing(ran, tmp_path):
    ran.values({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6})
    ran.run()
    copied = ran.bytes()
    ran.store.delete_tree("packs")
    ran.store.delete_tree("manifests")
    ran.store.delete_tree("whole")
    ran.run()
    again = ran.bytes()
    assert again == {name: copied[name] for name in again}


def test_equal_bytes_upstream_cut_off_what_follows(ran):
    ran.edit("nodes", '"clip": {"value": twice(row["value"])', '"clip": {"value": 0 + twice(row["value"])')
    assert ran.run().executed == ["double"]


def test_a_rejected_unit_is_a_row_with_its_reason_and_not_tried_again(project):
    project.values({"a": 1, "b": -2, "c": 3, "d": 4, "e": 5, "f": 5})
    outcome = project.run()
    assert not outcome.failed
    rows = {r.unit: r for r in outcome.plans["double"].artifact.manifest()}
    bad = rows["b"]
    assert (bad.status, bad.code, bad.reason) == ("rejected", "negative", "-2 is below zero")
    assert "b" not in {r.unit for r in outcome.plans["add"].artifact.manifest()}
    project.did()
    project.run()
    assert project.did() == []
    project.run(retry_rejected=True)
    assert project.did() == ["double b"]


def test_too_many_rejects_fail_the_node_and_keep_what_was_computed(project):
    project.values({"a": -1, "b": -2, "c": 3})
    outcome = project.run()
    assert outcome.exit_code == 3
    assert isinstance(outcome.error, TooManyRejects)
    assert "double: 2 of 3 units rejected, more than the 20% allowed" in str(outcome.error)
    project.did()
    project.run()
    assert "double c" not in project.did()


def test_broken_code_is_a_crash_that_names_the_unit(project):
    project.values({"a": 1, "b": 666})
    outcome = project.run()
    assert outcome.exit_code == 1
    assert isinstance(outcome.error, CodeError)
    assert "double: unit b: KeyError: 'a bug'" in str(outcome.error)


def test_a_unit_out_of_reach_fails_the_node_when_the_others_are_done(project, monkeypatch):
    monkeypatch.setattr("pipelines.engine.packs.RETRY_DELAYS", ())
    project.values({"a": 1, "b": 777, "c": 3})
    outcome = project.run()
    assert outcome.exit_code == 1
    assert "1 of 3 packs failed, the rest is kept" in str(outcome.error)
    assert "unit b: no network" in str(outcome.error)
    (project.root / project.package / "online").touch()
    project.did()
    assert not project.run().failed
    assert [line for line in project.did() if line.startswith("double")] == ["double b"]


def test_an_undeclared_config_read_is_an_error(project):
    project.edit("nodes", "+ config.amount +", "+ config.total +")
    outcome = project.run()
    assert "UndeclaredConfigError" in str(outcome.error)
    assert "'total" in str(outcome.error)


def test_keep_going_runs_what_does_not_depend_on_the_failure(project):
    project.values({"a": 666})
    outcome = Runner(project.planner(), InProcess(), "r", keep_going=True).run()
    assert set(outcome.plans) == {"listing", "side"}
    assert set(outcome.skipped) == {"add", "total", "report"}


def test_an_artifact_is_its_exact_steps_and_continues_the_longest_shorter_one(ran):
    ran.set("total", steps=8)
    assert "config total.steps 5 -> 8 (continues)" in ran.plan()["total"].reasons
    assert ran.run().plans["total"].artifact.path("from.txt").read_text() == "5"
    ran.set("total", steps=7)
    assert "config total.steps 5 -> 7 (continues)" in ran.plan()["total"].reasons  # not the one of 8 steps
    assert ran.run().plans["total"].artifact.path("steps.txt").read_text() == "7"
    ran.set("total", steps=2)
    assert "config total.steps 5 -> 2 (trained anew)" in ran.plan()["total"].reasons
    assert ran.run().plans["total"].artifact.path("from.txt").read_text() == "0"
    ran.set("total", steps=8)
    assert ran.plan()["total"].state == "cached"


def test_logs_are_recorded_but_are_no_part_of_the_content(ran):
    def record(artifact):
        return ran.store.read_json(f"{artifact.folder}/record.json")

    ran.set("total", steps=8)
    continued = record(ran.run().plans["total"].artifact)
    begun = record(ran.run(force=frozenset({"total"})).plans["total"].artifact)
    assert continued["sha256"]["from.txt"] != begun["sha256"]["from.txt"]
    assert continued["digest"] == begun["digest"]


@pytest.mark.parametrize("apart", [False, True])
def test_a_node_that_worked_apart_leaves_the_rest_of_its_work_folder(project, apart):
    more = """
    from pathlib import Path
    Path(ctx.scratch).mkdir(parents=True)
    (Path(ctx.scratch) / "of a longer run").touch()
    if APART:
        ctx.set_scratch_subfolder("5")
        Path(ctx.scratch).mkdir()
        (Path(ctx.scratch) / "own").touch()
"""
    start = "    start = int"
    project.edit("nodes", start, more.replace("APART", str(apart)) + start)
    assert not project.run().failed
    left = [Path(entry.name).name for entry in project.store.walk("work")]
    assert left == (["of a longer run"] if apart else [])


INTERRUPTED = """
    import os, signal, time
    os.kill(os.getpid(), signal.SIGINT)
    while not ctx.cancelled():
        time.sleep(0.01)
    if AGAIN:
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(2)  # the step in flight, and its checkpoint
    log("stopped", "")
"""


@pytest.fixture
def interruptible():
    """A test run in the background of a shell ignores Ctrl-C, and would wait for ever."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("again", [False, True])
def test_an_interrupted_run_waits_for_a_safe_point_unless_interrupted_again(project, again):
    start = "    start = int"
    project.edit("nodes", start, INTERRUPTED.replace("AGAIN", str(again)) + start)
    outcome = project.run()
    assert outcome.exit_code == 130
    assert ("stopped" in project.did()) == (not again)


def test_force_recomputes_one_node(ran):
    assert ran.run(force=frozenset({"add"})).executed == ["add"]


def test_a_lost_object_is_noticed_and_only_it_is_rebuilt(ran):
    family = ran.plan()["add"].artifact
    row = next(r for r in family.manifest() if r.unit == "a")
    ran.store.delete(locations.pack_path("add", row.pack))
    (reason,) = ran.plan()["add"].reasons
    assert reason.endswith("of 5 units of a missing or damaged object")
    outcome = ran.run()
    assert outcome.executed == ["add"]


def test_a_unit_that_kills_its_worker_twice_is_rejected(project):
    """Each attempt in its own process, as Ray would restart it."""
    first = 'if row["value"] < 0:'
    project.edit("nodes", first, f'if row["value"] == 3:\n        import os; os._exit(9)\n    {first}')
    argv = [sys.executable, "-c", BUILD_ONE, os.getcwd(), str(project.root),
            f"{project.package}.nodes:double", project.store.uri]  # fmt: skip
    results = [subprocess.run(argv, capture_output=True, text=True, check=False) for _ in range(3)]
    assert [r.returncode for r in results] == [9, 9, 0]
    assert results[2].stdout.strip() == "crashed"


def test_a_pin_keeps_new_units_out(ran):
    key = ran.plan()["listing"].artifact.key
    ran.values({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6})
    assert {p.state for p in ran.plan(pins={"listing": key}).values()} == {"pinned", "cached"}
    assert ran.plan()["double"].state == "stale"


def test_the_manifest_lists_every_unit_with_its_pack_and_size(ran):
    artifact = ran.plan()["add"].artifact
    table = pq.read_table(ran.store.full_path(locations.manifest_path("add", artifact.key)))
    assert table.column("unit").to_pylist() == ["a", "b", "c", "d", "e"]
    assert table.column("clips").to_pylist() == [1] * 5
    assert min(table.column("bytes").to_pylist()) > 0


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_a_killed_run_resumed_equals_an_uninterrupted_one(project, steps):
    """The process dies after some packs; what it published stands, and the rest comes out the same."""
    state = {k: v for k, v in project.__dict__.items() if k != "config"}
    argv = [sys.executable, "-c", RUN_AND_DIE, os.getcwd(), str(project.root)]
    argv += [pickle.dumps(state).hex(), str(steps)]
    assert subprocess.run(argv, check=False).returncode == 9
    before = project.did()
    outcome = project.run()
    assert not outcome.failed
    assert len([*before, *project.did()]) == 5 * 3 + 2  # nothing finished was computed twice
    resumed = project.bytes()
    for top in ("packs", "manifests", "whole", "keys"):
        project.store.delete_tree(top)
    project.run()
    assert project.bytes() == resumed


def test_what_was_stopped_and_what_never_began_are_told_apart_from_what_failed(project):
    project.values({"a": 666, "b": 1})
    outcome = project.run()
    assert set(outcome.failed) == {"double"}
    assert "report" in outcome.skipped
    assert set(outcome.skipped.values()) == {"double failed"}
    assert {*outcome.plans, *outcome.failed, *outcome.cancelled, *outcome.skipped} == {
        "listing", "double", "side", "add", "total", "report",
    }  # fmt: skip
    lines = list(describe_failures(outcome))
    assert lines[0] == "\ndouble failed: double: unit a: KeyError: 'a bug'"
    assert lines[1].endswith("KeyError: 'a bug'\n")
    assert lines[-1] == f"not run because double failed: {', '.join(outcome.skipped)}"


def test_a_node_under_way_when_another_fails_is_cancelled_and_not_failed():
    outcome = RunOutcome(failed={"double": Transient("double: no network")})
    outcome.cancelled["side"] = outcome.stop_reason
    assert list(describe_failures(outcome)) == [
        "\ndouble failed: double: no network", "cancelled because double failed: side",
    ]  # fmt: skip
    assert outcome.exit_code == 1
