"""gc: what a run, a pin, a lease or an unfinished run needs stays; the rest goes."""

import os
import time
from pathlib import Path

from pipelines.engine.runner import Runner
from pipelines.runs import garbage, retention
from storage import leases, ledger, locations
from tests.toy_project import InProcess

DAYS_AGO = time.time() - 4 * 24 * 3600


def run(project, name="toy", only=None, executor=None, **facts):
    """One run of the command line, without its tracking."""
    planner = project.planner()
    plans = planner.plan(only)
    if all(plan.has_artifact for plan in plans.values()):
        ledger.record_reuse(project.store, name, [(n, plan.key) for n, plan in plans.items()])
        return None
    time.sleep(0.002)  # run ids of one millisecond would sort at random
    record = ledger.Ledger(project.store, f"{time.time_ns():020d}")
    record.emit({"type": "run_started", "name": name, "holder": "gone:1", **facts})
    outcome = Runner(planner, executor or InProcess(), record.run_id, emit=record.emit).run(only)
    if facts.get("over", True):
        record.emit({"type": "run_finished"})
    return outcome


def age(project):
    """All files are four days old, so that only what is in use stands."""
    for path in Path(project.store.base).rglob("*"):
        if path.is_file():
            os.utime(path, (DAYS_AGO, DAYS_AGO))


def collect(project, keep_runs=5, **options):
    age(project)
    found = garbage.find_garbage(project.store, keep_runs, **options)
    garbage.delete_garbage(project.store, found)
    return found


def states(project, **options):
    return {name: plan.state for name, plan in project.plan(**options).items()}


CACHED = dict.fromkeys(("listing", "double", "add", "side", "total", "report"), "cached")


def test_what_nobody_needs_goes(project):
    run(project)
    for amount in range(11, 17):
        project.set("add", amount=amount)
        run(project)
    assert len(project.store.walk("packs/add")) > 6
    collect(project)
    assert len({e.name for e in project.store.walk("manifests/add")}) == 5
    assert states(project) == CACHED
    project.set("add", amount=10)
    assert states(project)["add"] == "stale"


def test_records_of_dropped_shards_are_kept_as_long_as_what_was_made_of_them(project):
    project.drops = {"add"}
    run(project)
    for amount in range(11, 17):
        project.set("add", amount=amount)
        run(project)
    collect(project)
    assert states(project) == CACHED
    kept = [e.name for e in project.store.walk("packs/add")]
    assert {name.partition(".")[2] for name in kept} == {"parquet", "dropped"}
    assert len({name.partition(".")[0] for name in kept}) * 2 == len(kept)
    assert len({e.name for e in project.store.walk("manifests/add")}) == 5


def test_a_run_of_one_node_does_not_push_a_full_run_out(project):
    run(project)
    for value in range(6):
        project.values({"a": 1, "z": value})
        run(project, only={"listing"})
    project.values({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5})
    collect(project)
    assert states(project) == CACHED


def test_what_a_run_finds_in_place_each_day_is_in_use(project):
    run(project)
    for amount in range(11, 17):
        project.set("add", amount=amount)
        run(project)
    project.set("add", amount=10)
    assert run(project) is None  # nothing to do
    collect(project, keep_runs=1)
    assert states(project) == CACHED


def test_runs_of_another_name_push_nothing_out(project):
    run(project, name="mine")
    for amount in range(11, 17):
        project.set("add", amount=amount)
        run(project, name="other")
    project.set("add", amount=10)
    collect(project)
    assert states(project) == CACHED
    found = collect(project, drop=("mine",))
    assert "add" in found.found
    assert states(project)["add"] == "stale"


def test_what_was_computed_from_a_pinned_list_stays_beside_it(project):
    run(project)
    key = project.plan()["listing"].artifact.key
    project.store.write_json(locations.pin_path("v1"), {"stage": "listing", "artifacts": {"main": key}})
    for value in range(6):
        project.values({"a": 1, "b": 2, "c": 100 + value})
        run(project)
    collect(project)
    pinned = states(project, pins={"listing": key})
    assert pinned == {**CACHED, "listing": "pinned"}


class Dies(InProcess):
    """Breaks off after some packs, as a killed driver does."""

    def __init__(self, after):
        self.left = after

    def build_packs(self, *args):
        for result in super().build_packs(*args):
            yield result
            self.left -= 1
            if self.left == 0:
                raise SystemExit


def test_packs_of_a_run_killed_days_ago_stay_until_a_later_one_finishes(project):
    run(project, only={"listing"})
    run(project, executor=Dies(2), only={"listing", "double"}, over=False)
    made = {e.name for e in project.store.walk("packs/double")}
    assert len(made) == 4
    assert not project.store.walk("manifests/double")
    for value in range(6):
        project.values({"z": value})
        run(project, only={"listing"})
    garbage.delete_garbage(project.store, garbage.find_garbage(project.store, 5, grace_hours=0))
    assert {e.name for e in project.store.walk("packs/double")} == made
    for _ in range(2):
        run(project, only={"listing", "double"})
    garbage.delete_garbage(project.store, garbage.find_garbage(project.store, 1, grace_hours=0))
    assert not made & {e.name for e in project.store.walk("packs/double")}


def test_what_a_long_training_reads_stays_while_its_lease_lives(project):
    run(project)
    plans = project.plan()
    claims = leases.acquire_lease(project.store, "total", plans["total"].key, run="long")
    with claims:
        for amount in range(11, 17):
            project.set("add", amount=amount)
            run(project)
        age(project)
        (claim,) = project.store.walk("leases")
        os.utime(project.store.full_path(claim.name))  # its last heartbeat
        garbage.delete_garbage(project.store, garbage.find_garbage(project.store, 5))
        project.set("add", amount=10)
        assert states(project) == {**CACHED, "report": "stale"}
        assert project.store.exists(claim.name)


def test_a_run_that_goes_on_keeps_what_it_reads_and_its_files_in_the_making(project):
    import socket

    run(project, holder=f"{socket.gethostname()}:{os.getpid()}", over=False)
    for amount in range(11, 17):
        project.set("add", amount=amount)
        run(project)
    project.set("add", amount=10)
    project.store.write("tmp/reenact-x/out/model", b"1")
    for path in Path(project.store.base).rglob("*"):
        if path.is_file() and "tmp" not in path.parts:
            os.utime(path, (DAYS_AGO, DAYS_AGO))
    garbage.delete_garbage(project.store, garbage.find_garbage(project.store, 5, grace_hours=0))
    assert states(project) == CACHED
    assert project.store.exists("tmp/reenact-x/out/model")


def test_an_artifact_found_in_place_keeps_all_it_was_made_from(project):
    """Equal content upstream cuts off: the artifact below was made from another one than the run now has."""
    run(project)
    before = {e.name for e in project.store.walk("packs/double")}
    project.edit(
        "nodes", '"clip": {"value": twice(row["value"])', '"clip": {"value": 0 + twice(row["value"])'
    )
    for _ in range(2):
        run(project)
    collect(project, keep_runs=1)
    assert {e.name for e in project.store.walk("packs/double")} >= before


def test_a_manifest_that_cannot_be_read_spares_its_node(project):
    run(project)
    (manifest,) = project.store.walk("manifests/add")
    project.store.write(manifest.name, b"nothing")
    packs = [entry.name for entry in project.store.walk("packs/add")]
    found = collect(project)
    assert manifest.name in found.spared[0]
    assert [entry.name for entry in project.store.walk("packs/add")] == packs


def test_a_garbled_ledger_is_named_and_the_rest_of_it_counts(project):
    run(project)
    segment = next(e.name for e in project.store.walk("runs") if e.name.endswith("events-000000.jsonl"))
    project.store.write(segment, b"{garbled\n" + project.store.read(segment) + b"[]\n")
    age(project)
    found = garbage.find_garbage(project.store, 5)
    assert [text.split(",")[0] for text in found.unreadable] == [segment, segment]
    assert found.found == {}


def test_dropping_a_name_counts_for_its_past_runs_alone(project):
    run(project)
    retention.drop_runs_from_retention(project.store, ["toy"])
    project.set("add", amount=11)
    run(project)
    collect(project)
    assert states(project) == CACHED
    project.set("add", amount=10)
    assert states(project)["add"] == "stale"
