"""What would run and why: one pass over the graph, from upstream content to keys to what the store holds.

States: `cached`; `stale` with reasons; `pending` = an upstream runs first and may cut off; `pinned`.
A node is planned alone, from the plans of the nodes it reads, so the runner asks again once those have run.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from pipelines.engine.dropped_shards import plan_dropped_shards_again
from pipelines.engine.fingerprint import (
    KEY_SCHEME,
    Fingerprint,
    KeyEnvironment,
    changed_symbols,
    compute_fingerprint_components,
    describe_key_difference,
    list_code_entry_points,
    node_config,
    resolve_entry_point,
    setting_path_in_run,
)
from pipelines.engine.keys import hash_json, lookup_setting
from pipelines.engine.node import Graph, Node
from pipelines.engine.node_plan import NodePlan
from pipelines.engine.packs import PackJob, UnitInputPacks, UnitJob, ok_units_digest
from pipelines.engine.published_artifacts import (
    DamageTolerantReader,
    PublishedPacks,
    read_whole_node_artifact,
)
from pipelines.engine.source_code import ReachedSymbol
from pipelines.engine.units import UnitInputs, UpstreamUnit
from pipelines.errors import UserError
from storage import locations
from storage.errors import DamagedFile
from storage.families import Artifact, ManifestRow
from storage.files import Store


class PlanOptions(Struct, frozen=True):
    force: frozenset[str] = frozenset()
    retry_rejected: bool = False
    pins: Mapping[str, str] = field(default_factory=dict)
    """Node -> artifact key it is frozen at."""


class LastNodeRun(Struct, frozen=True, kw_only=True):
    """What a finished run of a node was made of (`keys/<node>/<node key>.json`)."""

    fingerprint: Fingerprint
    inputs: Mapping[str, str]
    run_id: str
    code: Mapping[str, Sequence[str]]
    """Code symbol -> its own hash, and that of all it reaches."""
    source: Mapping[str, str]
    """Code symbol -> its text."""
    name: str = ""
    """Of the node then."""
    scheme: int = KEY_SCHEME

    @staticmethod
    def read(store: Store, path: str) -> LastNodeRun:
        try:
            return LastNodeRun.from_record(store.read_json(path, "fingerprint", "run_id"))
        except (TypeError, LookupError, AttributeError) as error:
            raise DamagedFile(f"{path} has another form ({error})") from error

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> LastNodeRun:
        if record.get("scheme") != KEY_SCHEME:  # its fingerprint has other components
            return LastNodeRun(
                fingerprint=Fingerprint(record["fingerprint"]["node"]), inputs={}, run_id=record["run_id"],
                code={}, source={}, scheme=0,
            )  # fmt: skip
        return LastNodeRun(**{**record, "fingerprint": Fingerprint(**record["fingerprint"])})


class Planner:
    def __init__(
        self, graph: Graph, config: Any, store: Store, env: KeyEnvironment, options: PlanOptions | None = None
    ):
        self.graph, self.config, self.store, self.env = graph, config, store, env
        self.options = options or PlanOptions()
        self.readable = DamageTolerantReader()

    def plan(self, names: set[str] | None = None) -> dict[str, NodePlan]:
        """Plan the whole graph, or some nodes with all that they need."""
        plans: dict[str, NodePlan] = {}
        for node in self.graph:
            if names is None or node.name in names:
                plans[node.name] = self.plan_node(node, plans)
        plan_dropped_shards_again(self.graph, plans)
        return plans

    def plan_node(self, node: Node, plans: Mapping[str, NodePlan]) -> NodePlan:
        if node.name in self.options.pins:
            return self._pinned(node, self.options.pins[node.name])
        made_of = compute_fingerprint_components(node, self.config, self.env)
        plan = NodePlan(node, "stale", fingerprint=made_of, node_key=self._accepted(node.stage, made_of.key))
        if node.kind == "whole":
            _Whole(self, plan, plans).fill()
        else:
            _Keyed(self, plan, plans).fill()
        if plan.state == "cached" and node.name in self.options.force:
            plan.state, plan.reasons, plan.artifact = "stale", ["forced"], None
        return plan

    # --- shared by whole and keyed ---
    def last_run(self, node: Node) -> LastNodeRun | None:
        """What the node's latest finished run was made of; of a stage that has several instances, the latest
        run under the node's own name, if there was one."""
        folder, latest = locations.node_keys_folder(node.stage), None
        known = sorted(self.store.list(folder), key=lambda e: (e.mtime, e.name))
        for entry in reversed(known):
            path = f"{folder}/{entry.name}"
            found = self.readable(lambda path=path: LastNodeRun.read(self.store, path), None)
            if found is not None and found.name == node.name:
                return found
            latest = latest or found
        return latest

    def describe_new_key(self, plan: NodePlan, inputs: Mapping[str, str]) -> list[str]:
        """Reasons a node's key is new, from the difference to its latest run."""
        last = self.last_run(plan.node)
        if last is None:
            return ["never run"]
        if last.scheme != KEY_SCHEME:
            return ["keys are made in another way since it ran"]
        found: list[str] = []
        if now := plan.fingerprint:
            accepted = plan.node_key != now.key  # this code was accepted as equal
            unchanged = accepted or last.fingerprint.code == now.code
            code = () if unchanged else self.changed_symbols(plan, last)
            found = describe_key_difference(last.fingerprint, now, code, plan.node.config, self.env.renamed)
        known = sorted(last.inputs.keys() & inputs.keys())
        found += [f"input {n} changed" for n in known if last.inputs[n] != inputs[n]]
        found += [f"input {n} is new" for n in sorted(inputs.keys() - last.inputs.keys())]
        return found

    def changed_symbols(self, plan: NodePlan, last: LastNodeRun) -> list[str]:
        return changed_symbols(last.code, self.reachable_symbols(plan.node))

    def reachable_symbols(self, node: Node) -> dict[str, ReachedSymbol]:
        """Every symbol that is in the node's key."""
        return self.env.code.reachable_symbols(list_code_entry_points(node, self.config, self.env.code))

    def pending_inputs(self, plan: NodePlan, plans: Mapping[str, NodePlan]) -> list[str]:
        """The nodes it reads or uses whose output is not known yet."""
        return [name for name in plan.node.upstream if not plans[name].has_artifact]

    def input_digests(self, plan: NodePlan, plans: Mapping[str, NodePlan]) -> dict[str, str]:
        """Role -> digest of what is known: of an artifact its content, of a file that is used its sha256.
        UserError for a file that was not published."""
        read = {role: plans[read.node].artifact for role, read in plan.node.reads.items()}
        found = {role: artifact.digest for role, artifact in read.items() if artifact}
        for name, use in plan.node.uses.items():
            for role, (upstream, file) in use.files.items():
                if (artifact := plans[upstream].artifact) is not None:
                    if file not in artifact.sums:
                        what = f"{plan.node.name} uses {file} of {upstream}, which published none"
                        raise UserError("; ".join(part for part in (what, use.without_file) if part))
                    found[f"{name}.{role}"] = artifact.sums[file]
        return found

    def _accepted(self, stage: str, key: str) -> str:
        path = locations.accepted_key_path(stage, key)
        return self.readable(lambda: self.store.read_json(path, "as"), {"as": key})["as"]

    def _pinned(self, node: Node, key: str) -> NodePlan:
        artifact = self.readable(lambda: read_whole_node_artifact(self.store, node.stage, key), None)
        if artifact is None:
            raise UserError(
                f"the pinned {node.name} {key} is not in the store; pin again: `reenact pin NAME RUN.yaml`"
            )
        plan = NodePlan(node, "pinned", [f"pinned at {key[:8]}"], key=key, artifact=artifact)
        plan.read_unit_table(artifact.path(f"{node.stage}.parquet").read_bytes())
        return plan


class _Whole:
    """Plans a node with one key for all of its input."""

    def __init__(self, planner: Planner, plan: NodePlan, plans: Mapping[str, NodePlan]):
        self.planner, self.plan, self.plans = planner, plan, plans

    def fill(self) -> None:
        plan, node = self.plan, self.plan.node
        waiting = self.planner.pending_inputs(plan, self.plans)
        known = self.planner.input_digests(plan, self.plans)
        if waiting:
            own = self.planner.describe_new_key(plan, known)
            plan.state = "stale" if own else "pending"
            plan.reasons = [*own, f"after {', '.join(waiting)}" + ("" if own else " (may cut off)")]
            return
        plan.inputs = known
        plan.key = hash_json("whole", node.stage, plan.node_key, known)
        plan.artifact = self._find()
        if plan.artifact is not None:
            plan.state = "cached"
            return
        plan.reasons = (
            plan.reasons or self.planner.describe_new_key(plan, known) or ["missing or damaged object"]
        )
        if node.run_at_plan_time:
            self._dry_run()

    def _find(self) -> Artifact | None:
        """Of a resumable budget, only the artifact of exactly these steps: what else the store holds must not
        decide a result. Training continues from the longest shorter one.
        """
        plan, node = self.plan, self.plan.node
        if node.resumable_budget is None:
            return self._read()
        path = setting_path_in_run(node.resumable_budget, node.config)
        plan.steps = int(lookup_setting(self.planner.config, path))
        if (artifact := self._read(plan.steps)) is not None:
            return artifact
        folders = self.planner.store.list_folders(locations.artifacts_folder(node.stage))
        reached = sorted(int(f.rpartition("-")[2]) for f in folders if f.startswith(f"{plan.key}-"))
        for steps in [s for s in reversed(reached) if s < plan.steps]:
            if (artifact := self._read(steps)) is not None:
                plan.previous = artifact
                plan.reasons = [f"config {path} {steps} -> {plan.steps} (continues)"]
                return None
        if reached and plan.steps not in reached:
            plan.reasons = [f"config {path} {reached[0]} -> {plan.steps} (trained anew)"]
        return None

    def _read(self, steps: int | None = None) -> Artifact | None:
        """The artifact with this key, if it is whole; its table of units is read at once."""

        def read() -> Artifact | None:
            artifact = read_whole_node_artifact(self.planner.store, name, self.plan.key, steps)
            if artifact is not None and f"{name}.parquet" in artifact.files:
                self.plan.read_unit_table(artifact.path(f"{name}.parquet").read_bytes())
            return artifact

        name = self.plan.node.stage
        return self.planner.readable(read, None)

    def _dry_run(self) -> None:
        """Run a cheap node now, publish nothing: only so that the plan behind it is exact."""
        plan = self.plan
        with tempfile.TemporaryDirectory() as folder:
            context = PlanTimeNodeContext(plan.node, self.planner.config, Path(folder), self.plans)
            resolve_entry_point(plan.node.run)(context, **plan.node.arguments)
            table = Path(folder) / f"{plan.node.stage}.parquet"
            if table.exists():
                plan.read_unit_table(table.read_bytes())


class PlanTimeNodeContext:
    """The context of a node that runs while planning: its figures go nowhere."""

    key = scratch = ""
    previous = None

    def __init__(self, node: Node, config: Any, out: Path, plans: Mapping[str, NodePlan]):
        self.node, self.out = node.name, out
        self.config, self.runtime = node_config(node, config), config.runtime
        self.inputs = {role: plans[read.node].artifact for role, read in node.reads.items()}

    def set_scratch_subfolder(self, name: str) -> None: ...

    def report_progress(self, done: int, total: int, note: str = "") -> None: ...

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None: ...

    def warn(self, text: str) -> None: ...

    def log_params(self, values: Mapping[str, Any]) -> None: ...


class _Keyed:
    """Plans a node unit by unit and pack by pack."""

    def __init__(self, planner: Planner, plan: NodePlan, plans: Mapping[str, NodePlan]):
        self.planner, self.plan, self.plans = planner, plan, plans
        self.store, self.node = planner.store, plan.node
        self.packs = PublishedPacks(planner.store, plan.node.stage, planner.readable)
        read = {plan.node.units, *(read.node for read in plan.node.reads.values())}
        self.inputs = UnitInputs(plan.node, {name: plans[name].units for name in read})
        plan.buckets = plans[plan.node.units].buckets

    def fill(self) -> None:
        plan = self.plan
        keys, open_units = self._unit_keys()
        total = len(keys) + len(open_units)
        waiting = self.planner.pending_inputs(plan, self.plans)
        if not total and any(not self.plans[name].units for name in waiting):
            plan.state, plan.reasons = (
                "pending",
                [*self.planner.describe_new_key(plan, {}), f"after {', '.join(waiting)}"],
            )
            return
        stage = self.node.stage
        pack_keys = {hash_json("pack", stage, sorted(keys[u] for u in g)): g for g in self._groups(keys)}
        plan.packs = sorted(pack_keys)
        known = self.packs.known_rows(hash_json("artifact", stage, plan.packs), plan.packs, bool(open_units))
        cached = {u: known[k] for u, k in keys.items() if self._usable(known.get(k))}
        stale = [u for u in keys if u not in cached]
        plan.units = {u: UpstreamUnit(r.digest, r.pack) for u, r in cached.items() if r.status == "ok"}
        plan.units |= {u: UpstreamUnit(None) for u in [*stale, *open_units]}
        plan.counts = {
            "units": total, "cached": len(cached), "stale": len(stale), "pending": len(open_units),
            "rejected": sum(r.status == "rejected" for r in cached.values()),
        }  # fmt: skip
        if not open_units and not waiting:
            self._settle(keys, pack_keys, known)
        self._describe_reasons(keys, stale, open_units)

    def _unit_keys(self) -> tuple[dict[str, str], list[str]]:
        """Unit -> key where every input is known; and the units still open."""
        used = {name for use in self.node.uses.values() for name, _ in use.files.values()}
        files = {role: sha for role, sha in self._known().items() if role not in self.node.reads}
        node_key = hash_json("uses", self.plan.node_key, files) if files else self.plan.node_key
        keys: dict[str, str] = {}
        open_units: list[str] = []
        for unit in self.inputs:
            parts = self.inputs.input_digests(unit)
            if parts is None or not all(self.plans[name].has_artifact for name in used):
                open_units.append(unit)
            else:
                keys[unit] = hash_json("unit", node_key, unit, parts)
        return keys, open_units

    def _known(self) -> dict[str, str]:
        return self.planner.input_digests(self.plan, self.plans)

    def _groups(self, keys: Mapping[str, str]) -> list[list[str]]:
        if self.node.pack == "unit":
            return [[unit] for unit in keys]
        groups: dict[int, list[str]] = {}
        for unit in keys:
            groups.setdefault(self.plan.buckets[unit], []).append(unit)
        return list(groups.values())

    def _usable(self, row: ManifestRow | None) -> bool:
        if row is None or not self.packs.known(row.pack, row):
            return False
        return row.status == "ok" or not self.planner.options.retry_rejected

    def _settle(
        self, keys: Mapping[str, str], packs: Mapping[str, list[str]], known: Mapping[str, ManifestRow]
    ) -> None:
        """Every input is known: the artifact is there, or these packs have to be built."""
        plan = self.plan
        plan.key = hash_json("artifact", self.node.stage, plan.packs)
        plan.inputs = self._known()
        forced = self.node.name in self.planner.options.force
        for pack in plan.packs:
            units = packs[pack]
            usable = self.packs.known(pack) and all(self._usable(known.get(keys[u])) for u in units)
            if usable and not forced and self.packs.is_pack_complete(pack):
                continue
            jobs = tuple(self._job(u, keys[u], None if forced else known.get(keys[u])) for u in units)
            job = PackJob(self.node.name, self.node.stage, pack, jobs, new=not self.packs.is_recorded(pack))
            if usable and not forced:
                plan.restore_jobs[pack] = replace(job, restores=True)
            else:
                plan.jobs.append(job)
        plan.jobs.sort(key=lambda j: (-j.computed_count, j.key))  # largest first: a short tail
        if not plan.jobs and self.packs.has_manifest:
            content = ok_units_digest(known[k] for k in keys.values())
            plan.artifact = Artifact(self.store, self.node.stage, plan.key, content)
            plan.state = "cached"

    def _job(self, unit: str, key: str, row: ManifestRow | None) -> UnitJob:
        rows: dict[str, Mapping[str, Any]] = {}
        samples: dict[str, UnitInputPacks] = {}
        for role, read in self.node.reads.items():
            views = self.inputs.input_units(unit, read)
            if (first := views[0][1].row) is not None:
                rows[role] = {"id": unit} | {f: first[f] for f in read.fields}
            else:
                stage, packs = self.plans[read.node].node.stage, tuple((one, v.pack) for one, v in views)
                samples[role] = UnitInputPacks(stage, packs, read.fields)
        there = row is not None and self.packs.is_pack_complete(row.pack, row) and self._usable(row)
        return UnitJob(unit, key, rows, samples, row.pack if row and there else None)

    def _describe_reasons(self, keys: Mapping[str, str], stale: list[str], open_units: list[str]) -> None:
        plan = self.plan
        if plan.state == "cached":
            return
        why = self.planner.describe_new_key(plan, {})
        if stale and why != ["never run"]:
            why += self._unit_reasons(keys, stale)
        plan.reasons = list(why)
        again = sum(job.computed_count for job in plan.jobs) - len(stale)
        if again > 0 and self.node.name not in self.planner.options.force:
            plan.reasons.append(f"{again:,} of {len(keys):,} units of dropped shards")
        if open_units:
            waiting = [n for n in self.node.upstream if self.plans[n].state not in ("cached", "pinned")]
            plan.reasons.append(f"{len(open_units):,} after {', '.join(waiting)} (may cut off)")
        if not stale and (open_units or not plan.key):
            waiting = self.planner.pending_inputs(plan, self.plans)
            plan.state = "stale" if why else "pending"
            plan.reasons = plan.reasons or [f"after {', '.join(waiting)} (may cut off)"]
        if not plan.reasons:
            regroup = "packs to regroup" if plan.jobs else "manifest missing"
            plan.reasons = ["forced" if self.node.name in self.planner.options.force else regroup]

    def _unit_reasons(self, keys: Mapping[str, str], stale: list[str]) -> list[str]:
        """Of units stale under an unchanged node key: new ones, changed ones, lost ones."""
        manifests = self.packs.list_manifests()
        if not manifests:
            return []
        before = {r.unit: r for r in self.packs.read_manifest(manifests[-1])}
        kinds = Counter(
            "new" if unit not in before else "of a missing or damaged object"
            if before[unit].key == keys[unit] else "changed"
            for unit in stale
        )  # fmt: skip
        if kinds["changed"] and self.planner.describe_new_key(self.plan, {}):
            del kinds["changed"]  # told by the key's own difference
        return [f"{n:,} of {len(keys):,} units {kind}" for kind, n in kinds.items()]
