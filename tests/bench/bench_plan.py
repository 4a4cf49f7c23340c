"""What it costs to be told that nothing is to be done: next to the libraries' import, and for 100,000 units.

python -m pytest -m bench -s tests/bench/bench_plan.py
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import Struct, field

from pipelines.engine.fingerprint import KeyEnvironment
from pipelines.engine.keys import hash_json
from pipelines.engine.node import Graph, Node, Read
from pipelines.engine.packs import PackResult
from pipelines.engine.plan import Planner
from pipelines.engine.runner import Runner
from pipelines.engine.source_code import SourceSymbolIndex
from storage import locations
from storage.families import ManifestRow, UnitRecord, encode_pack_record
from storage.files import Store

MICRO = str(Path(__file__).resolve().parents[1] / "e2e/micro.yaml")
FLOOR = "import click, pydantic, yaml, numpy, pyarrow.fs, pyarrow.parquet"
ROUNDS = 7
UNITS, BUCKETS = 100_000, 4096


def seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@pytest.mark.bench
def test_plan_and_run_with_nothing_to_do(reenact):
    reenact("run", MICRO)
    calls = {
        "imports alone": lambda: subprocess.run([sys.executable, "-c", FLOOR], check=True),
        "reenact plan": lambda: reenact("plan", MICRO),
        "reenact run": lambda: reenact("run", MICRO),
    }
    taken = {name: [] for name in calls}
    for _ in range(ROUNDS):  # in turn, so that other load on the machine meets all alike
        for name, call in calls.items():
            taken[name].append(seconds(call))
    floor = statistics.median(taken["imports alone"])
    print(f"\n{'finished micro run, s':<24} {'median':>8} {'min':>8} {'x floor':>8}")
    for name, times in taken.items():
        median = statistics.median(times)
        print(f"{name:<24} {median:8.3f} {min(times):8.3f} {median / floor:8.2f}")


# --- 100,000 units ------------------------------------------------------------------------------------------
TOY = f'''
"""A table of many units, and stages that are never called."""
import pyarrow as pa
import pyarrow.parquet as pq


def listing(ctx):
    ids = [f"unit{{i:06d}}" for i in range({UNITS})]
    columns = {{"id": ids, "bucket": [i % {BUCKETS} for i in range({UNITS})], "value": list(range({UNITS}))}}
    pq.write_table(pa.table(columns), ctx.out / "listing.parquet")


def stage(inputs, config, nets, runtime):
    raise AssertionError
'''


class Settings(Struct, frozen=True):
    runtime: dict = field(default_factory=dict)


class Pretend:
    """An executor that publishes empty shards in no time: planning looks at records and names only."""

    def build_packs(self, call, jobs, store):
        node = call.node
        for job in jobs:
            digests = {u.unit: hash_json(node.name, u.unit) for u in job.units}
            units = tuple(
                UnitRecord(unit=u.unit, key=u.key, status="ok", digest=digests[u.unit]) for u in job.units
            )
            os.makedirs(store.full_path(locations.packs_folder(node.name)), exist_ok=True)
            Path(store.full_path(locations.pack_path(node.name, job.key))).touch()
            Path(store.full_path(locations.pack_record_path(node.name, job.key))).write_bytes(
                encode_pack_record(units)
            )
            yield PackResult(job.key, tuple(ManifestRow.of(u, job.key) for u in units), 0)


def toy_graph() -> Graph:
    graph = Graph()
    # fmt: off
    graph.add(Node(name="listing", kind="whole", run="bigtoy:listing", run_at_plan_time=True, table=True,
                   writes=("id", "value")))
    graph.add(Node(name="clips", kind="keyed", run="bigtoy:stage", units="listing",
                   reads={"listing": Read("listing", ("value",))}, writes=("clip",)))
    graph.add(Node(name="speech", kind="keyed", run="bigtoy:stage", units="listing",
                   reads={"clips": Read("clips", ("clip",))}, writes=("speech",)))
    # fmt: on
    return graph


@pytest.mark.bench
def test_plan_of_100_000_units(tmp_path, monkeypatch):
    (tmp_path / "bigtoy.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path))
    store = Store(str(tmp_path / "store"))

    def planner() -> Planner:
        return Planner(
            toy_graph(), Settings(), store, KeyEnvironment(SourceSymbolIndex(tmp_path, ("bigtoy",)))
        )

    first = seconds(lambda: planner().plan())
    outcome = Runner(planner(), Pretend(), "bench").run()
    assert not outcome.failed, outcome.failed
    plans = {}
    again = statistics.median(seconds(lambda: plans.update(planner().plan())) for _ in range(3))
    assert {plan.state for plan in plans.values()} == {"cached"}
    print(f"\n{'plan, 2 keyed nodes':<24} {'units':>8} {'packs':>8} {'s':>8} {'us a unit':>10}")
    for name, taken in (("nothing run yet", first), ("all cached", again)):
        packs = len(plans["clips"].packs)
        print(f"{name:<24} {UNITS:>8,} {packs:>8,} {taken:8.2f} {1e6 * taken / UNITS / 2:10.1f}")
