"""Runs what the plan says: independent nodes side by side, each published before the next one looks at it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from pipelines.engine.concurrent_builds import build_or_await_packs
from pipelines.engine.dropped_shards import drop_shards, find_droppable_packs, find_dropped_packs_to_rebuild
from pipelines.engine.fingerprint import (
    compute_fingerprint_components,
    describe_closure,
    node_config,
    resolve_entry_point,
    settings_in_run,
)
from pipelines.engine.keys import hash_json, to_json_value
from pipelines.engine.node import Node
from pipelines.engine.node_plan import NodePlan
from pipelines.engine.packs import PackExecutor, PackResult, StageCall
from pipelines.engine.plan import LastNodeRun, Planner
from pipelines.errors import TooManyRejects, Transient, error_meaning, format_traceback
from storage import leases, locations
from storage.families import Artifact, ManifestRow, encode_manifest, read_pack_manifest
from storage.files import sha256_file

EventEmitter = Callable[[dict[str, Any]], Any]


class RunCancelled(Exception):
    """The run was interrupted; what was published stays."""


@dataclass
class RunOutcome:
    """How a run ended: the final plan of every node that settled, what failed, what was under way when the
    run had to stop, and what never began; of these two the reason."""

    plans: dict[str, NodePlan] = field(default_factory=dict)
    failed: dict[str, BaseException] = field(default_factory=dict)
    cancelled: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)

    @property
    def stop_reason(self) -> str:
        """Why the rest of the run did not happen."""
        nodes = [name for name, error in self.failed.items() if not isinstance(error, KeyboardInterrupt)]
        return f"{nodes[0]} failed" if nodes else "the run was interrupted"

    @property
    def exit_code(self) -> int:
        errors = list(self.failed.values())
        if any(isinstance(error, KeyboardInterrupt) for error in errors):
            return 130
        if any(isinstance(error, TooManyRejects) for error in errors):
            return 3
        if errors:
            return 2 if all(error_meaning(error) == "user" for error in errors) else 1
        return 130 if self.cancelled or self.skipped else 0


@dataclass
class Runner:
    planner: Planner
    executor: PackExecutor
    run_id: str
    emit: EventEmitter = lambda event: None
    keep_going: bool = False
    max_rejected: float = 0.2
    width: int = 4
    lease: leases.LeaseTimings = field(default_factory=leases.LeaseTimings)
    cancel: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _going: dict[tuple[str, str], threading.Lock] = field(default_factory=dict)
    _without_shards: set[str] = field(default_factory=set)
    """Stages whose shards were dropped"""

    def run(self, names: set[str] | None = None) -> RunOutcome:
        """Run the nodes named (all by default); each node needs the nodes it reads among them or cached."""
        outcome = RunOutcome()
        todo = [n for n in self.planner.graph if names is None or n.name in names]
        pool = ThreadPoolExecutor(self.width, thread_name_prefix="node")
        running: dict[Future[NodePlan], Node] = {}
        try:
            while todo or running:
                ready = [n for n in todo if all(u in outcome.plans for u in n.upstream)]
                for node in ready if not self.cancel.is_set() else ():
                    todo.remove(node)
                    running[pool.submit(self._settle, node, dict(outcome.plans), outcome)] = node
                if not running:
                    break  # the rest waits for something that failed
                done, _ = wait(running, return_when=FIRST_COMPLETED, timeout=0.5)
                for future in done:
                    self._collect(future, running.pop(future), outcome)
                if outcome.failed and not self.keep_going:
                    self.cancel.set()
        except KeyboardInterrupt as interrupt:
            self.cancel.set()
            outcome.failed["(run)"] = interrupt
            self._let_stop(running, outcome)
        finally:
            interrupted = isinstance(outcome.failed.get("(run)"), KeyboardInterrupt)
            pool.shutdown(wait=not interrupted, cancel_futures=True)
        for node in [*todo, *running.values()]:
            outcome.skipped[node.name] = outcome.stop_reason
        return outcome

    def _let_stop(self, running: dict[Future[NodePlan], Node], outcome: RunOutcome) -> None:
        """Wait for the nodes of an interrupted run that stop at a safe point; another interrupt ends it."""
        stopping = {future for future, node in running.items() if node.stops and not future.cancel()}
        with suppress(KeyboardInterrupt):
            while stopping:
                done, stopping = wait(stopping, timeout=0.5)
                for future in done:
                    self._collect(future, running.pop(future), outcome)

    def _collect(self, future: Future[NodePlan], node: Node, outcome: RunOutcome) -> None:
        error = future.exception()
        if error is None:
            outcome.plans[node.name] = future.result()
            self._drop_shards(outcome)
            return
        if isinstance(error, RunCancelled):
            outcome.cancelled[node.name] = outcome.stop_reason
            status, detail = "KILLED", ""
        else:
            outcome.failed[node.name] = error
            status, detail = "FAILED", format_traceback(error)
        self.emit({"type": "node_finished", "node": node.name, "status": status, "error": str(error),
                   "detail": detail})  # fmt: skip

    def _settle(self, node: Node, plans: dict[str, NodePlan], outcome: RunOutcome) -> NodePlan:
        plan = self.planner.plan_node(node, plans)
        if plan.has_artifact:
            self.emit(_cached_event(plan, plans))
            return plan
        if self.cancel.is_set():
            raise RunCancelled("interrupted before it started")
        if self._restore(plan, plans, outcome):
            plan = self.planner.plan_node(node, plans)
        with self._await_twin(node.stage, plan.key) as waited:
            if waited and (plan := self.planner.plan_node(node, plans)).has_artifact:
                self.emit(_cached_event(plan, plans))
                return plan
            return (
                self._run_leased(plan, plans, outcome)
                if node.exclusive
                else self._execute(plan, plans, outcome)
            )

    def _restore(self, reader: NodePlan, plans: dict[str, NodePlan], outcome: RunOutcome) -> bool:
        """Make again the dropped shards that a node is about to read; whether there were any."""
        wanted = find_dropped_packs_to_rebuild(reader, plans)
        for name, packs in wanted.items():
            before = plans[name]
            with self._await_twin(before.node.stage, before.key):
                now = self.planner_without_force().plan_node(before.node, plans)
                again = [now.restore_jobs[pack] for pack in sorted(packs & now.restore_jobs.keys())]
                if again or not now.has_artifact:
                    why = [f"dropped, read again by {reader.node.name}"]
                    now = replace(now, jobs=[*now.jobs, *again], reasons=why)
                    self._restore(now, plans, outcome)
                    now = self._execute(now, plans, outcome)
            plans[name] = outcome.plans[name] = now
            if now.artifact and before.artifact and now.artifact.digest != before.artifact.digest:
                text = "made again it is not what was dropped; run again what was made of that"
                self.emit({"type": "warning", "node": name, "text": text})
        return bool(wanted)

    def _drop_shards(self, outcome: RunOutcome) -> None:
        """Of stages that all is there of that reads them (engine/dropped_shards.py)."""
        for stage, packs in find_droppable_packs(self.planner.graph, outcome.plans):
            if stage not in self._without_shards:
                self._without_shards.add(stage)
                freed = drop_shards(self.planner.store, stage, packs)
                self.emit({"type": "shards_dropped", "stage": stage, "bytes": freed})

    @contextmanager
    def _await_twin(self, stage: str, key: str) -> Iterator[bool]:
        """One of several nodes of this run that are the same under different names; the others wait. Yields
        whether it had to wait."""
        with self._lock:
            mine = self._going.setdefault((stage, key), threading.Lock())
        waited = not mine.acquire(blocking=False)
        if waited:
            mine.acquire()
        try:
            yield waited
        finally:
            mine.release()

    def _run_leased(self, plan: NodePlan, plans: dict[str, NodePlan], outcome: RunOutcome) -> NodePlan:
        """While no other driver runs it."""
        node = plan.node

        def waiting(holder: str) -> None:
            self.emit({"type": "progress", "node": node.name, "done": 0, "total": 0,
                       "note": f"waiting for {holder}, which runs it"})  # fmt: skip

        store, give_up = self.planner.store, self.cancel.is_set
        terms = {"run": self.run_id, "waiting": waiting, "give_up": give_up, "terms": self.lease}
        with leases.acquire_lease(store, node.stage, plan.key, **terms) as waited:
            if self.cancel.is_set():
                raise RunCancelled("interrupted before it started")
            if waited and (plan := self.planner.plan_node(node, plans)).has_artifact:
                self.emit(_cached_event(plan, plans))
                return plan
            return self._execute(plan, plans, outcome)

    def _execute(self, plan: NodePlan, plans: Mapping[str, NodePlan], outcome: RunOutcome) -> NodePlan:
        node = plan.node
        start = time.monotonic()
        outcome.executed.append(node.name)
        self.emit(self._started_event(plan, plans))
        if node.kind == "keyed":
            self._keyed(plan, plans)
        else:
            self._whole(plan, plans)
        self._record_last_run(plan)
        settled = self.planner_without_force().plan_node(node, plans)
        if not settled.has_artifact:
            raise RuntimeError(f"{node.name} was published but is not found again: {settled.reasons}")
        seconds = time.monotonic() - start
        self.emit(_finished_event(settled, seconds))
        return settled

    def planner_without_force(self) -> Planner:
        planner = self.planner
        options = replace(planner.options, force=frozenset(), retry_rejected=False)
        return Planner(planner.graph, planner.config, planner.store, planner.env, options)

    # --- keyed nodes ---
    def _keyed(self, plan: NodePlan, plans: Mapping[str, NodePlan]) -> None:
        node, store = plan.node, self.planner.store
        call = StageCall(
            node, node_config(node, self.planner.config), self.planner.config.runtime, _used(node, plans)
        )
        jobs = [replace(job, run=self.run_id) for job in plan.jobs]
        total = sum(j.computed_count for j in jobs)
        built: dict[str, PackResult] = {}
        done = rejected = frames = 0
        failures: list[str] = []

        def report(note: str = "") -> None:
            self.emit({"type": "progress", "node": node.name, "done": done, "total": total,
                       "rejected": rejected, "frames": frames, "note": note})  # fmt: skip

        report()
        shared = build_or_await_packs(self.executor, call, jobs, store, terms=self.lease, waiting=report,
                              cancelled=self.cancel.is_set)  # fmt: skip
        for result in shared:
            if result.failure:
                failures.append(result.failure)
                self.emit({"type": "warning", "node": node.name, "text": f"failed: {result.failure}"})
                continue
            built[result.key] = result
            done += len(result.rows) - result.copied
            rejected += sum(u.status == "rejected" for u in result.rows)
            frames += sum(u.frames for u in result.rows)
            report()
            if self.cancel.is_set():
                raise RunCancelled(f"interrupted with {done} of {total} units done; they are kept")
        if failures:
            kept = f"{len(failures)} of {len(jobs)} packs failed, the rest is kept; run again to retry"
            raise Transient(f"{node.name}: {kept}: {failures[0]}", soon=False)
        if self.cancel.is_set():
            raise RunCancelled(f"interrupted with {done} of {total} units done; they are kept")
        if lost := [job.key for job in jobs if job.key not in built]:
            raise RuntimeError(
                f"{node.name}: {len(lost)} of {len(jobs)} packs never came back, first {lost[0]}"
            )
        rows = [
            row
            for pack in plan.packs
            for row in (built[pack].rows if pack in built else read_pack_manifest(store, node.stage, pack))
        ]
        self._check_rejects(node, rows)
        store.write(locations.manifest_path(node.stage, plan.key), encode_manifest(rows))

    def _check_rejects(self, node: Node, rows: list[ManifestRow]) -> None:
        bad = [r for r in rows if r.status == "rejected"]
        if rows and len(bad) / len(rows) > self.max_rejected:
            codes = ", ".join(sorted({f"{r.code} ({r.unit}: {r.reason})" for r in bad})[:3])
            raise TooManyRejects(
                f"{node.name}: {len(bad)} of {len(rows)} units rejected, more than the "
                f"{self.max_rejected:.0%} allowed: {codes}; mend the data, or raise runtime.max_rejected "
                "(what was computed is kept)"
            )

    # --- whole nodes ---
    def _whole(self, plan: NodePlan, plans: Mapping[str, NodePlan]) -> None:
        node, store = plan.node, self.planner.store
        with store.scratch_folder() as folder:
            out = folder / "out"
            out.mkdir()
            read = {role: plans[one.node].artifact_as_read(plans) for role, one in node.reads.items()}
            context = RunContext(self, plan, out, {role: found for role, found in read.items() if found})
            resolve_entry_point(node.run)(context, **node.arguments)
            if self.cancel.is_set():
                raise RunCancelled("interrupted")
            self._publish(plan, out)
        if node.exclusive:
            store.delete_tree(context.work)

    def _publish(self, plan: NodePlan, out: Path) -> None:
        node, store = plan.node, self.planner.store
        files = sorted(p for p in out.rglob("*") if p.is_file())
        if not files:
            raise RuntimeError(f"{node.name} wrote no file into its output folder")
        names = {str(p.relative_to(out)).replace("/", "-"): p for p in files}
        sums = {name: sha256_file(p) for name, p in names.items()}
        content = {name: sha for name, sha in sums.items() if name not in node.logs}
        record = {
            "node": node.stage, "key": plan.key, "inputs": plan.inputs, "steps": plan.steps,
            "digest": hash_json("whole", content), "sha256": sums,
            "sizes": {name: p.stat().st_size for name, p in names.items()},
        }  # fmt: skip
        folder = locations.artifact_path(node.stage, plan.key, plan.steps)
        for name, path in names.items():
            store.put(path, f"{folder}/{name}")
        store.write_json(f"{folder}/record.json", record)

    # --- records ---
    def _record_last_run(self, plan: NodePlan) -> None:
        """What the key was made of, so that a later plan can tell the difference; notices edits meanwhile."""
        assert plan.fingerprint is not None
        node, planner = plan.node, self.planner
        now = compute_fingerprint_components(node, planner.config, planner.env)
        if now.key != plan.fingerprint.key:  # not its code: a run reads that once
            text = "its inputs, weights or tools changed while it ran"
            self.emit({"type": "warning", "node": node.name, "text": text})
        closure = planner.reachable_symbols(node)
        last = LastNodeRun(
            fingerprint=plan.fingerprint, inputs=plan.inputs, run_id=self.run_id,
            code=describe_closure(closure),
            source={name: symbol.text for name, symbol in closure.items()}, name=node.name,
        )  # fmt: skip
        planner.store.write_json(
            locations.node_key_path(node.stage, plan.fingerprint.key), to_json_value(last)
        )

    def _started_event(self, plan: NodePlan, plans: Mapping[str, NodePlan]) -> dict[str, Any]:
        node, made_of = plan.node, plan.fingerprint
        assert made_of is not None
        params = settings_in_run(made_of.config, node.config, self.planner.env.renamed)
        return {
            "type": "node_started", "node": node.name, "stage": node.stage, "kind": node.kind,
            "key": plan.key, "node_key": plan.node_key, "reasons": plan.reasons, "params": params,
            "weights": made_of.weights, "inputs": _input_events(plan, plans), "counts": plan.counts,
        }  # fmt: skip


def _used(node: Node, plans: Mapping[str, NodePlan]) -> dict[str, dict[str, tuple[Artifact, str]]]:
    found: dict[str, dict[str, tuple[Artifact, str]]] = {name: {} for name in node.uses}
    for name, use in node.uses.items():
        for role, (upstream, file) in use.files.items():
            artifact = plans[upstream].artifact
            assert artifact is not None  # it is settled, or this node would not run
            found[name][role] = (artifact, file)
    return found


def _input_events(plan: NodePlan, plans: Mapping[str, NodePlan]) -> dict[str, dict[str, str]]:
    """Upstream node -> its stage, its artifact's key and digest."""
    artifacts = {name: plans[name].artifact for name in plan.node.upstream if name in plans}
    return {
        name: {"stage": one.node, "key": one.key, "digest": one.digest}
        for name, one in artifacts.items()
        if one
    }


def _cached_event(plan: NodePlan, plans: Mapping[str, NodePlan]) -> dict[str, Any]:
    return {
        "type": "node_cached", "node": plan.node.name, "stage": plan.node.stage, "key": plan.key,
        "counts": plan.counts, "state": plan.state, "inputs": _input_events(plan, plans),
    }  # fmt: skip


def _finished_event(plan: NodePlan, seconds: float) -> dict[str, Any]:
    assert plan.artifact is not None
    rejects: list[dict[str, str]] = []
    if plan.node.kind == "keyed":
        rejects = [{"unit": r.unit, "code": r.code, "reason": r.reason} for r in plan.artifact.manifest()
                   if r.status == "rejected"]  # fmt: skip
    return {
        "type": "node_finished", "node": plan.node.name, "stage": plan.node.stage, "status": "FINISHED",
        "key": plan.key, "digest": plan.artifact.digest, "seconds": seconds, "counts": plan.counts,
        "rejects": rejects,
        "files": list(plan.artifact.files), "folder": plan.artifact.folder, "steps": plan.artifact.steps,
    }  # fmt: skip


class RunContext:
    """What a whole node's function receives (`node.NodeContext`)."""

    def __init__(self, runner: Runner, plan: NodePlan, out: Path, inputs: Mapping[str, Artifact]):
        self._runner = runner
        self.node, self.key, self.out, self.inputs = plan.node.name, plan.key, out, inputs
        self.config = node_config(plan.node, runner.planner.config)
        self.runtime, self.store = runner.planner.config.runtime, runner.planner.store
        self.work = locations.node_work_folder(plan.node.stage, plan.key)
        self.previous = plan.previous
        self.resources = plan.node.resources
        self.cancelled = runner.cancel.is_set

    @property
    def scratch(self) -> str:
        return self._runner.planner.store.uri_of(self.work)

    def set_scratch_subfolder(self, name: str) -> None:
        self.work = f"{self.work}/{name}"

    def report_progress(self, done: int, total: int, note: str = "") -> None:
        self._runner.emit({"type": "progress", "node": self.node, "done": done, "total": total, "note": note})

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self._runner.emit({"type": "metrics", "node": self.node, "values": dict(values), "step": step})

    def warn(self, text: str) -> None:
        self._runner.emit({"type": "warning", "node": self.node, "text": text})

    def log_params(self, values: Mapping[str, Any]) -> None:
        self._runner.emit({"type": "params", "node": self.node, "values": dict(values)})
