"""A toy project on disk: numbers instead of videos, so that the engine is tested in milliseconds."""

import importlib
import itertools
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from msgspec import Struct, field
from msgspec.structs import replace

from pipelines.engine.fingerprint import KeyEnvironment
from pipelines.engine.node import Graph, Node, Read
from pipelines.engine.node_plan import NodePlan
from pipelines.engine.packs import claim_and_build_pack
from pipelines.engine.plan import Planner, PlanOptions
from pipelines.engine.runner import RunCancelled, Runner, RunOutcome
from pipelines.engine.source_code import SourceSymbolIndex
from storage.files import Store

_names = (f"toy{i}" for i in itertools.count())

NODES = '''
"""Toy nodes."""
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from PKG.helpers import twice
from pipelines.errors import Rejected, Transient

OFFSET = 0


def inputs(config):
    return json.loads(Path(config.listing.file).read_text())


def listing(ctx):
    rows = [{"id": k, "bucket": hash_of(k) % ctx.config.listing.buckets, "value": int(v), "split": "train"}
            for k, v in sorted(json.loads(Path(ctx.config.listing.file).read_text()).items())]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), ctx.out / "listing.parquet")


SCHEMA = pa.schema({"id": pa.string(), "bucket": pa.int64(), "value": pa.int64(), "split": pa.string()})


def hash_of(key):
    return sum(key.encode())


def double(inputs, config, nets, runtime):
    (row,) = inputs["listing"]
    log("double", row["id"])
    if row["value"] < 0:
        raise Rejected("negative", f"{row['value']} is below zero")
    if row["value"] == 666:
        raise KeyError("a bug")
    if row["value"] == 777 and not Path(__file__).with_name("online").exists():
        raise Transient("no network")
    return [{"__key__": row["id"], "clip": {"value": twice(row["value"]) * config.times}}]


def add(inputs, config, nets, runtime):
    """Adds."""
    out = []
    for sample in inputs["double"]:
        log("add", sample["__key__"])
        value = sample["clip"]["value"] + config.amount + OFFSET
        out.append({"__key__": sample["__key__"], "clip": {"value": value}})
    return out


def side(inputs, config, nets, runtime):
    (row,) = inputs["listing"]
    log("side", row["id"])
    return [{"__key__": row["id"], "probe": {"value": row["value"] % 2}}]


def total(ctx):
    log("total", "")
    family = ctx.inputs["add"].open_family()
    start = int(ctx.previous.path("steps.txt").read_text()) if ctx.previous else 0
    (ctx.out / "steps.txt").write_text(str(ctx.config.total.steps))
    (ctx.out / "from.txt").write_text(str(start))
    (ctx.out / "sum.txt").write_text(str(sum(family.read(k)["clip"]["value"] for k in family.keys)))


def report(ctx):
    log("report", "")
    (ctx.out / "report.txt").write_text(ctx.inputs["total"].path("sum.txt").read_text())


def log(node, unit):
    with open(LOG, "a") as stream:
        stream.write(f"{node} {unit}\\n")


def unrelated():
    return 1
'''

HELPERS = '''
def twice(x):
    # a comment
    return thing(x) + thing(x)


def thing(x):
    """Deep."""
    return x


def nobody():
    return 0
'''


class Listing(Struct, frozen=True, kw_only=True):
    file: str
    buckets: int = 4


class Times(Struct, frozen=True, kw_only=True):
    times: int = 1


class Amount(Struct, frozen=True, kw_only=True):
    amount: int = 10


class Total(Struct, frozen=True, kw_only=True):
    steps: int = 5


class Config(Struct, frozen=True, kw_only=True):
    listing: Listing
    double: Times = field(default_factory=Times)
    add: Amount = field(default_factory=Amount)
    total: Total = field(default_factory=Total)
    runtime: dict = field(default_factory=dict)


class InProcess:
    """The executor of toy graphs: one pack after the other, here, without nets."""

    def build_packs(self, call, jobs, store):
        run = call.bind_nets(call.load_checkpoint_nets())
        for job in jobs:
            yield claim_and_build_pack(job, run, store)


class Project:
    """Files, a config and a store; `plan` and `run` start from what is on disk each time."""

    def __init__(self, root: Path):
        self.root, self.package = root, next(_names)
        self.store = Store(str(root / "store"))
        self.folder = root / self.package
        self.folder.mkdir(parents=True)
        self.log = root / "log.txt"
        (self.folder / "__init__.py").touch()
        self.write("helpers", HELPERS)
        self.write("nodes", NODES)
        (self.folder / "place.py").write_text(f"LOG = {str(self.log)!r}\n")
        self.values({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5})
        self.config = Config(listing=Listing(file=str(root / "values.json")))
        self.weights: dict[str, str] = {"net": "w1"}
        self.drops: set[str] = set()
        """Nodes that drop their shards in the end"""
        sys.path.insert(0, str(root))

    def write(self, name: str, text: str) -> None:
        text = dedent(text).replace("PKG", self.package)
        if name == "nodes":
            text = text.replace("OFFSET = 0", f"OFFSET = 0\nLOG = {str(self.log)!r}", 1)
        (self.folder / f"{name}.py").write_text(text)
        for module in [m for m in sys.modules if m.startswith(self.package)]:
            del sys.modules[module]
        importlib.invalidate_caches()

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / f"{name}.py"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        for module in [m for m in sys.modules if m.startswith(self.package)]:
            del sys.modules[module]
        importlib.invalidate_caches()
        sys.dont_write_bytecode = True  # two edits within a second would share a stale .pyc

    def values(self, values: dict[str, int]) -> None:
        import json

        (self.root / "values.json").write_text(json.dumps({k: str(v) for k, v in values.items()}))

    def set(self, part: str, **values: int) -> None:
        self.config = replace(self.config, **{part: replace(getattr(self.config, part), **values)})

    def graph(self) -> Graph:
        graph, at = Graph(), f"{self.package}.nodes"
        # fmt: off
        graph.add(Node(name="listing", kind="whole", run=f"{at}:listing", run_at_plan_time=True, table=True,
                       writes=("value", "split"),
                       config={c: c for c in ("listing.buckets", "listing.file")}, inputs=f"{at}:inputs"))
        graph.add(Node(name="double", kind="keyed", run=f"{at}:double", pack="unit", units="listing",
                       reads={"listing": Read("listing", ("value",))}, writes=("clip",),
                       config={"double": "double"}, section="double", weights=("net",),
                       drops="double" in self.drops))
        graph.add(Node(name="add", kind="keyed", run=f"{at}:add", units="listing",
                       reads={"double": Read("double", ("clip",))}, writes=("clip",),
                       config={"add.amount": "add.amount"}, section="add", drops="add" in self.drops))
        graph.add(Node(name="side", kind="keyed", run=f"{at}:side", units="listing",
                       reads={"listing": Read("listing", ("value",))}, writes=("probe",)))
        graph.add(Node(name="total", kind="whole", run=f"{at}:total", exclusive=True,
                       reads={"add": Read("add", ("clip",))}, writes=("sum",),
                       config={"total": "total"}, logs=("from.txt",), stops=True,
                       resumable_budget="total.steps"))
        graph.add(Node(name="report", kind="whole", run=f"{at}:report",
                       reads={"total": Read("total", ("sum",))}, writes=("page",)))
        # fmt: on
        return graph

    def planner(self, **options) -> Planner:
        code = SourceSymbolIndex(self.root, (self.package,))
        env = KeyEnvironment(code, weights=lambda name: self.weights[name])
        return Planner(self.graph(), self.config, self.store, env, PlanOptions(**options))

    def plan(self, **options) -> dict[str, NodePlan]:
        return self.planner(**options).plan()

    def stale(self) -> dict[str, int]:
        """Node -> stale units (keyed) or 1 (whole), for nodes with work."""
        return {
            name: plan.counts.get("stale", 0) if plan.node.kind == "keyed" else 1
            for name, plan in self.plan().items()
            if plan.state == "stale"
        }

    def run(self, *names: str, **options) -> RunOutcome:
        events: list[dict] = []
        runner = Runner(self.planner(**options), InProcess(), "run", emit=events.append)
        outcome = runner.run({*names} or None)
        outcome.events = events
        if outcome.failed:
            outcome.error = next(e for e in outcome.failed.values() if not isinstance(e, RunCancelled))
        return outcome

    def did(self) -> list[str]:
        """What the nodes' functions did since last asked."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return sorted(line.strip() for line in lines)

    def bytes(self) -> dict[str, bytes]:
        """Every published object: name -> bytes (records hold seconds, so they are left to `records`)."""
        return {
            e.name: self.store.read(e.name)
            for top in ("packs", "whole")
            for e in self.store.walk(top)
            if not e.name.endswith((".parquet", "record.json")) or top == "whole"
        }

    def close(self) -> None:
        sys.path.remove(str(self.root))
        for module in [m for m in sys.modules if m.startswith(self.package)]:
            del sys.modules[module]


@pytest.fixture
def new_project(tmp_path_factory):
    """Makes one fresh project a call, for property tests."""
    made: list[Project] = []

    def make() -> Project:
        made.append(Project(tmp_path_factory.mktemp("toy")))
        return made[-1]

    yield make
    for project in made:
        project.close()


@pytest.fixture
def project(new_project):
    return new_project()


@pytest.fixture
def ran(project):
    outcome = project.run()
    assert not outcome.failed, outcome.failed
    project.did()
    return project
