"""What would run and why: one pass over the graph, from upstream content to keys to what the store holds.

States: `cached`; `stale` with reasons; `pending` = an upstream runs first and may cut off; `pinned`.
A node is planned alone, from the plans of the nodes it reads, so the runner asks again once those have run.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.engine.code import Reached
from pipelines.engine.fingerprint import (
    SCHEME,
    Environment,
    Fingerprint,
    changed_code,
    entries,
    fingerprint,
    reasons,
    resolve,
)
from pipelines.engine.keys import View, digest, lookup
from pipelines.engine.node import Graph, Node
from pipelines.engine.packs import PackJob, UnitJob, seal
from pipelines.engine.published import Packs, Readable, read_whole
from pipelines.errors import UserError
from storage import locations
from storage.errors import Damaged
from storage.families import Artifact, ManifestRow, read_parquet
from storage.files import Store


@dataclass(frozen=True, slots=True)
class Outlook:
    """A unit as the next node sees it: its content digest and pack, or open (known only after a run)."""

    digest: str | None
    pack: str = ""
    row: Mapping[str, Any] | None = None


@dataclass
class NodePlan:
    node: Node
    state: str
    reasons: list[str] = field(default_factory=list)
    print: Fingerprint | None = None
    key: str = ""
    """The artifact's key, when every input is known."""
    node_key: str = ""
    artifact: Artifact | None = None
    outlook: dict[str, Outlook] = field(default_factory=dict)
    buckets: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    jobs: list[PackJob] = field(default_factory=list)
    packs: list[str] = field(default_factory=list)
    """keyed: every pack of the artifact, in order"""
    inputs: dict[str, str] = field(default_factory=dict)
    steps: int | None = None
    previous: Artifact | None = None
    """extendable: the artifact with the most steps below those asked for"""

    @property
    def settled(self) -> bool:
        return self.artifact is not None


@dataclass(frozen=True)
class Options:
    force: frozenset[str] = frozenset()
    retry_rejected: bool = False
    pins: Mapping[str, str] = field(default_factory=dict)
    """Node -> artifact key it is frozen at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """What a finished run of a node was made of (`keys/<node>/<node key>.json`)."""

    fingerprint: Fingerprint
    inputs: Mapping[str, str]
    run_id: str
    code: Mapping[str, Sequence[str]]
    """Symbol -> its own hash, and that of all it reaches."""
    source: Mapping[str, str]
    """Symbol -> its text."""
    scheme: int = SCHEME

    @staticmethod
    def read(store: Store, path: str) -> Memory:
        try:
            return Memory.of(store.read_json(path, "fingerprint", "run_id"))
        except (TypeError, LookupError, AttributeError) as error:
            raise Damaged(f"{path} has another form ({error})") from error

    @staticmethod
    def of(record: Mapping[str, Any]) -> Memory:
        if record.get("scheme") != SCHEME:  # its fingerprint has other components
            return Memory(
                fingerprint=Fingerprint(record["fingerprint"]["node"]), inputs={}, run_id=record["run_id"],
                code={}, source={}, scheme=0,
            )  # fmt: skip
        return Memory(**{**record, "fingerprint": Fingerprint(**record["fingerprint"])})


class Planner:
    def __init__(
        self, graph: Graph, config: Any, store: Store, env: Environment, options: Options | None = None
    ):
        self.graph, self.config, self.store, self.env = graph, config, store, env
        self.options = options or Options()
        self.readable = Readable()

    def plan(self, names: set[str] | None = None) -> dict[str, NodePlan]:
        """Plan the whole graph, or some nodes with all that they need."""
        plans: dict[str, NodePlan] = {}
        for node in self.graph:
            if names is None or node.name in names:
                plans[node.name] = self.node(node, plans)
        return plans

    def node(self, node: Node, plans: Mapping[str, NodePlan]) -> NodePlan:
        if node.name in self.options.pins:
            return self._pinned(node, self.options.pins[node.name])
        print_ = fingerprint(node, self.config, self.env)
        plan = NodePlan(node, "stale", print=print_, node_key=self._accepted(node.name, print_.key))
        for name in node.reads:
            plan.buckets = plan.buckets or plans[name].buckets
        if node.kind == "whole":
            _Whole(self, plan, plans).fill()
        else:
            _Keyed(self, plan, plans).fill()
        if plan.state == "cached" and node.name in self.options.force:
            plan.state, plan.reasons, plan.artifact = "stale", ["forced"], None
        return plan

    # --- shared by whole and keyed ---
    def memory(self, node: str) -> Memory | None:
        """What the node's latest finished run was made of."""
        known = sorted(self.store.list(locations.node_keys(node)), key=lambda e: (e.mtime, e.name))
        for entry in reversed(known):
            path = f"{locations.node_keys(node)}/{entry.name}"
            if (memory := self.readable(lambda path=path: Memory.read(self.store, path), None)) is not None:
                return memory
        return None

    def why(self, plan: NodePlan, inputs: Mapping[str, str]) -> list[str]:
        """Reasons a node's key is new, from the difference to its latest run."""
        memory = self.memory(plan.node.name)
        if memory is None:
            return ["never run"]
        if memory.scheme != SCHEME:
            return ["keys are made in another way since it ran"]
        found: list[str] = []
        if plan.print:
            accepted = plan.node_key != plan.print.key  # this code was accepted as equal
            changed = accepted or memory.fingerprint.code == plan.print.code
            found = reasons(
                memory.fingerprint, plan.print, () if changed else self.changed_code(plan, memory)
            )
        known = sorted(memory.inputs.keys() & inputs.keys())
        found += [f"input {n} changed" for n in known if memory.inputs[n] != inputs[n]]
        found += [f"input {n} is new" for n in sorted(inputs.keys() - memory.inputs.keys())]
        return found

    def changed_code(self, plan: NodePlan, memory: Memory) -> list[str]:
        return changed_code(memory.code, self.closure(plan.node))

    def closure(self, node: Node) -> dict[str, Reached]:
        """Every symbol that is in the node's key."""
        return self.env.code.closure(entries(node, self.config, self.env.code))

    def _accepted(self, node: str, key: str) -> str:
        path = locations.accept(node, key)
        return self.readable(lambda: self.store.read_json(path, "as"), {"as": key})["as"]

    def _pinned(self, node: Node, key: str) -> NodePlan:
        artifact = self.readable(lambda: read_whole(self.store, node.name, key), None)
        if artifact is None:
            raise UserError(
                f"the pinned {node.name} {key} is not in the store; pin again: `reenact pin NAME RUN.yaml`"
            )
        plan = NodePlan(node, "pinned", [f"pinned at {key[:8]}"], key=key, artifact=artifact)
        _table(plan, artifact.path(f"{node.name}.parquet").read_bytes(), artifact)
        return plan


def _table(plan: NodePlan, data: bytes, artifact: Artifact | None) -> None:
    """Units of a whole node that publishes a table of them (`<node>.parquet` with columns id and bucket)."""
    rows = read_parquet(data).to_pylist()
    plan.outlook = {row["id"]: Outlook(digest(row), row=row) for row in rows}
    plan.buckets = {row["id"]: row["bucket"] for row in rows}


class _Whole:
    """Plans a node with one key for all of its input."""

    def __init__(self, planner: Planner, plan: NodePlan, plans: Mapping[str, NodePlan]):
        self.planner, self.plan, self.plans = planner, plan, plans

    def fill(self) -> None:
        plan, node = self.plan, self.plan.node
        waiting = [n for n in node.reads if not self.plans[n].settled]
        known = {n: a.digest for n in node.reads if (a := self.plans[n].artifact)}
        if waiting:
            own = self.planner.why(plan, known)
            plan.state = "stale" if own else "pending"
            plan.reasons = [*own, f"after {', '.join(waiting)}" + ("" if own else " (may cut off)")]
            return
        plan.inputs = known
        plan.key = digest("whole", node.name, plan.node_key, known)
        plan.artifact = self._find()
        if plan.artifact is not None:
            plan.state = "cached"
            return
        plan.reasons = plan.reasons or self.planner.why(plan, known) or ["missing or damaged object"]
        if node.eager:
            self._look_ahead()

    def _find(self) -> Artifact | None:
        """Of an extendable node, only the artifact of exactly these steps: what else the store holds must not
        decide a result. The longest shorter one is gone on from.
        """
        plan, node = self.plan, self.plan.node
        if node.extend is None:
            return self._read()
        plan.steps = int(lookup(self.planner.config, node.extend))
        if (artifact := self._read(plan.steps)) is not None:
            return artifact
        folders = self.planner.store.folders(locations.wholes(node.name))
        reached = sorted(int(f.rpartition("-")[2]) for f in folders if f.startswith(f"{plan.key}-"))
        for steps in [s for s in reversed(reached) if s < plan.steps]:
            if (artifact := self._read(steps)) is not None:
                plan.previous = artifact
                plan.reasons = [f"config {node.extend} {steps} -> {plan.steps} (continues)"]
                break
        return None

    def _read(self, steps: int | None = None) -> Artifact | None:
        """The artifact with this key, if it is whole; its table of units is read at once."""

        def read() -> Artifact | None:
            artifact = read_whole(self.planner.store, name, self.plan.key, steps)
            if artifact is not None and f"{name}.parquet" in artifact.files:
                _table(self.plan, artifact.path(f"{name}.parquet").read_bytes(), artifact)
            return artifact

        name = self.plan.node.name
        return self.planner.readable(read, None)

    def _look_ahead(self) -> None:
        """Run a cheap node now, publish nothing: only so that the plan behind it is exact."""
        plan = self.plan
        with tempfile.TemporaryDirectory() as folder:
            view = View(self.planner.config, plan.node.config)
            context = LookAhead(plan.node.name, view, Path(folder), self.plans)
            resolve(plan.node.run)(context)
            table = Path(folder) / f"{plan.node.name}.parquet"
            if table.exists():
                _table(plan, table.read_bytes(), None)


class LookAhead:
    """The context of an eager node while planning: its figures go nowhere."""

    key = scratch = ""
    previous = None

    def __init__(self, node: str, config: View, out: Path, plans: Mapping[str, NodePlan]):
        self.node, self.config, self.out = node, config, out
        self.inputs = {n: p.artifact for n, p in plans.items() if p.artifact}

    def work_apart(self, name: str) -> None: ...

    def progress(self, done: int, total: int, note: str = "") -> None: ...

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None: ...

    def params(self, values: Mapping[str, Any]) -> None: ...


class _Keyed:
    """Plans a node unit by unit and pack by pack."""

    def __init__(self, planner: Planner, plan: NodePlan, plans: Mapping[str, NodePlan]):
        self.planner, self.plan, self.plans = planner, plan, plans
        self.store, self.node = planner.store, plan.node
        self.packs = Packs(planner.store, plan.node.name, planner.readable)

    def fill(self) -> None:
        plan = self.plan
        keys, open_units = self._unit_keys()
        total = len(keys) + len(open_units)
        if not total and not all(self.plans[n].settled or self.plans[n].outlook for n in self.node.reads):
            waiting = [n for n in self.node.reads if not self.plans[n].settled]
            plan.state, plan.reasons = "pending", [*self.planner.why(plan, {}), f"after {', '.join(waiting)}"]
            return
        name = self.node.name
        pack_keys = {digest("pack", name, sorted(keys[u] for u in g)): g for g in self._groups(keys)}
        plan.packs = sorted(pack_keys)
        known = self.packs.rows(digest("artifact", name, plan.packs), plan.packs, bool(open_units))
        cached = {u: known[k] for u, k in keys.items() if self._usable(known.get(k))}
        stale = [u for u in keys if u not in cached]
        plan.outlook = {u: Outlook(r.digest, r.pack) for u, r in cached.items() if r.status == "ok"}
        plan.outlook |= {u: Outlook(None) for u in [*stale, *open_units]}
        plan.counts = {
            "units": total, "cached": len(cached), "stale": len(stale), "pending": len(open_units),
            "rejected": sum(r.status == "rejected" for r in cached.values()),
        }  # fmt: skip
        if not open_units and all(self.plans[n].settled for n in self.node.reads):
            self._settle(keys, pack_keys, known)
        self._explain(keys, stale, open_units)

    def _unit_keys(self) -> tuple[dict[str, str], list[str]]:
        """Unit -> key where every input is known; and the units still open."""
        outlooks = {name: self.plans[name].outlook for name in self.node.reads}
        shared = set.intersection(*(set(o) for o in outlooks.values())) if outlooks else set()
        keys: dict[str, str] = {}
        open_units: list[str] = []
        for unit in sorted(shared):
            parts = {n: self._input_digest(n, outlooks[n][unit]) for n in self.node.reads}
            if None in parts.values():
                open_units.append(unit)
            else:
                keys[unit] = digest("unit", self.plan.node_key, unit, parts)
        return keys, open_units

    def _input_digest(self, upstream: str, seen: Outlook) -> str | None:
        """Of a table row only the fields read count; of samples, their content."""
        if seen.row is not None:
            return digest({f: seen.row[f] for f in self.node.reads[upstream]})
        return seen.digest

    def _groups(self, keys: Mapping[str, str]) -> list[list[str]]:
        if self.node.pack == "unit":
            return [[unit] for unit in keys]
        groups: dict[int, list[str]] = {}
        for unit in keys:
            groups.setdefault(self.plan.buckets[unit], []).append(unit)
        return list(groups.values())

    def _usable(self, row: ManifestRow | None) -> bool:
        if row is None or not self.packs.stands(row.pack, row):
            return False
        return row.status == "ok" or not self.planner.options.retry_rejected

    def _settle(
        self, keys: Mapping[str, str], packs: Mapping[str, list[str]], known: Mapping[str, ManifestRow]
    ) -> None:
        """Every input is known: the artifact is there, or these packs have to be built."""
        plan = self.plan
        plan.key = digest("artifact", self.node.name, plan.packs)
        plan.inputs = {n: a.digest for n in self.node.reads if (a := self.plans[n].artifact)}
        forced = self.node.name in self.planner.options.force
        for pack in plan.packs:
            units = packs[pack]
            usable = self.packs.stands(pack) and all(self._usable(known.get(keys[u])) for u in units)
            if forced or not usable:
                jobs = tuple(self._job(u, keys[u], None if forced else known.get(keys[u])) for u in units)
                plan.jobs.append(PackJob(self.node.name, pack, jobs, new=not self.packs.recorded(pack)))
        plan.jobs.sort(key=lambda j: (-j.computed, j.key))  # largest first: a short tail
        if not plan.jobs and self.packs.sealed:
            content = seal(known[k] for k in keys.values())
            plan.artifact = Artifact(self.store, self.node.name, plan.key, content)
            plan.state = "cached"

    def _job(self, unit: str, key: str, row: ManifestRow | None) -> UnitJob:
        rows: dict[str, Mapping[str, Any]] = {}
        samples: dict[str, tuple[str, tuple[str, ...]]] = {}
        for name, fields in self.node.reads.items():
            seen = self.plans[name].outlook[unit]
            if seen.row is not None:
                rows[name] = {"id": unit} | {f: seen.row[f] for f in fields}
            else:
                samples[name] = (seen.pack, tuple(fields))
        return UnitJob(unit, key, rows, samples, row.pack if row and self._usable(row) else None)

    def _explain(self, keys: Mapping[str, str], stale: list[str], open_units: list[str]) -> None:
        plan = self.plan
        if plan.state == "cached":
            return
        told = self.planner.why(plan, {})
        if stale and told != ["never run"]:
            told += self._unit_reasons(keys, stale)
        plan.reasons = list(told)
        if open_units:
            waiting = [n for n in self.node.reads if self.plans[n].state not in ("cached", "pinned")]
            plan.reasons.append(f"{len(open_units):,} after {', '.join(waiting)} (may cut off)")
        if not stale and (open_units or not plan.key):
            waiting = [n for n in self.node.reads if not self.plans[n].settled]
            plan.state = "stale" if told else "pending"
            plan.reasons = plan.reasons or [f"after {', '.join(waiting)} (may cut off)"]
        if not plan.reasons:
            regroup = "packs to regroup" if plan.jobs else "not sealed"
            plan.reasons = ["forced" if self.node.name in self.planner.options.force else regroup]

    def _unit_reasons(self, keys: Mapping[str, str], stale: list[str]) -> list[str]:
        """Of units stale under an unchanged node key: new ones, changed ones, lost ones."""
        manifests = self.packs.manifests()
        if not manifests:
            return []
        before = {r.unit: r for r in self.packs.manifest(manifests[-1])}
        kinds = Counter(
            "new" if unit not in before else "of a missing or damaged object"
            if before[unit].key == keys[unit] else "changed"
            for unit in stale
        )  # fmt: skip
        if kinds["changed"] and self.planner.why(self.plan, {}):
            del kinds["changed"]  # told by the key's own difference
        return [f"{n:,} of {len(keys):,} units {kind}" for kind, n in kinds.items()]


def describe(
    plans: Mapping[str, NodePlan], write: Callable[[str], None], damaged: Iterable[str] = ()
) -> None:
    """The plan as a table, one line a node, its first column as wide as the longest name; then the records
    that could not be read, and so count as not there."""
    wide = max(24, *map(len, plans))
    head = f"{'node':<{wide}} {'state':<8} {'units':>7} {'cached':>7} {'stale':>6} {'after':>6}  "
    write(f"{head}reason")
    for name, plan in plans.items():
        n = {kind: plan.counts.get(kind, "-") for kind in ("units", "cached", "stale", "pending")}
        first, *rest = plan.reasons or [""]
        numbers = f"{n['units']:>7} {n['cached']:>7} {n['stale']:>6} {n['pending']:>6}"
        write(f"{name:<{wide}} {plan.state:<8} {numbers}  {first}".rstrip())
        for reason in rest[:6]:
            write(f"{'':<{len(head)}}{reason}")
        if rest[6:]:
            write(f"{'':<{len(head)}}... and {len(rest) - 6} more (`reenact why RUN.yaml {name}`)")
    for text in damaged:
        write(f"warning: counted as not there: {text}")
