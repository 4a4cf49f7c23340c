"""Why a node would run, down to the changed line; and where a number came from, up to the recordings."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.engine.fingerprint import KEY_SCHEME
from pipelines.engine.node_plan import NodePlan
from pipelines.engine.plan import Planner
from pipelines.errors import UserError
from storage import ledger, locations
from storage.errors import DamagedFile
from storage.families import ManifestRow, decode_parquet, read_node_manifest
from storage.files import Store
from storage.ledger import Event


def describe_node_reasons(
    planner: Planner, plans: Mapping[str, NodePlan], node: str, unit: str | None
) -> Iterator[str]:
    """The node's own state, what it waits for, and the source that changed; each node once."""
    yield from _why(planner, plans, node, unit, set())


def _why(
    planner: Planner, plans: Mapping[str, NodePlan], node: str, unit: str | None, seen: set[str]
) -> Iterator[str]:
    seen.add(node)
    plan = plans[node]
    yield f"{node}: {plan.state}"
    for reason in plan.reasons:
        yield f"  {reason}"
    if unit is not None:
        yield from _unit(plan, unit)
    for upstream in plan.node.upstream:
        if plans[upstream].state not in ("cached", "pinned") and upstream not in seen:
            yield ""
            yield from _why(planner, plans, upstream, unit, seen)
    yield from _source(planner, plan)


def _unit(plan: NodePlan, unit: str) -> Iterator[str]:
    if plan.node.kind != "keyed":
        return
    seen = plan.units.get(unit)
    if seen is not None and seen.digest:
        yield f"  unit {unit}: cached, content {seen.digest[:12]}, pack {seen.pack[:12]}"
    elif seen is not None:
        yield f"  unit {unit}: to be computed"
    else:
        rows = plan.artifact.manifest() if plan.artifact else []
        found = [f"{row.status}, {row.code}: {row.reason}" for row in rows if row.unit == unit]
        yield f"  unit {unit}: {found[0] if found else 'not among its units'}"


def _source(planner: Planner, plan: NodePlan) -> Iterator[str]:
    """Unified differences of the symbols behind `code` reasons, from the text kept at the last run."""
    last = planner.last_run(plan.node)
    if plan.state == "cached" or last is None or plan.fingerprint is None:
        return
    if last.scheme != KEY_SCHEME or last.fingerprint.code == plan.fingerprint.code:
        return
    now = planner.reachable_symbols(plan.node)
    for change in planner.changed_symbols(plan, last):
        name = change.partition(" ")[0]
        before = last.source.get(name, "").splitlines()
        after = now[name].text.splitlines() if name in now else []
        yield ""
        yield from difflib.unified_diff(before, after, f"{name} (last run)", f"{name} (now)", lineterm="")


def event_stage(event: Event) -> str:
    """What the store files a node's output under; events of older runs have the node's name alone."""
    return event.get("stage") or event["node"]


# --- trace: from a figure to the recordings, and back -----------------------------------------------------
def _history(store: Store, damaged: list[str]) -> dict[tuple[str, str], Event]:
    """(node, artifact key) -> the event of the run that made it, newest last. `damaged` gets what could not
    be read."""
    return {
        (event_stage(event), event["key"]): event
        for run in ledger.list_runs(store)
        for event in ledger.read_events(store, run, metrics=False, damaged=damaged.append)
        if event["type"] == "node_started"
    }


def _warnings(damaged: list[str]) -> Iterator[str]:
    yield from (f"warning: left out: {text}" for text in dict.fromkeys(damaged))


def trace_artifact(store: Store, node: str, key: str) -> Iterator[str]:
    """The artifact and everything it was made from, each with its key, content digest, run and code size."""
    damaged: list[str] = []
    history = _history(store, damaged)
    seen: set[tuple[str, str]] = set()

    def up(name: str, at: str, depth: int) -> Iterator[tuple[str, str]]:
        event = history.get((name, at))
        run = f"run {event['run_id']}" if event else "made by a run that is no longer in the ledger"
        again = " (above)" if (name, at) in seen else ""
        yield f"{'  ' * depth}{name}", f"{at}  {run}{again}"
        if event is None or (name, at) in seen:
            return
        seen.add((name, at))
        for weights, digest in event["weights"].items():
            yield f"{'  ' * (depth + 1)}weights {weights}", digest[:32]
        for upstream, source in event["inputs"].items():
            yield from up(source.get("stage", upstream), source["key"], depth + 1)

    rows = list(up(node, key, 0))
    width = max(len(name) for name, _ in rows)
    yield from (f"{name:<{width}}  {about}" for name, about in rows)
    yield from _warnings(damaged)


def find_artifact(store: Store, text: str) -> tuple[str, str]:
    """A run of the ledger, one of its nodes ("RUN:NODE") or the start of an artifact key -> (node, key). Of a
    run alone its report, which all scores go into, or the last score where there is none."""
    run, _, node = text.partition(":")
    hits: list[tuple[bool, tuple[str, str]]] = []
    for run_id in ledger.list_runs(store):
        for event in ledger.read_events(store, run_id, metrics=False):
            if event["type"] not in ("node_started", "node_cached"):
                continue
            name = event["node"]
            meant = name == node if node else name == "report" or name.startswith("score.")
            if (run == run_id and meant) or (len(text) >= 6 and event["key"].startswith(text)):
                hits.append((name == "report", (event_stage(event), event["key"])))
    if not hits:
        raise UserError(f"no run or artifact {text!r} in the ledger; give a run id, RUN:NODE or a key")
    return max(reversed(hits), key=lambda hit: hit[0])[1]


def trace_recording_downstream(store: Store, recording: str) -> Iterator[str]:
    """Every published artifact that a recording went into: as a unit, by units that are made of it (the pairs
    of its clips), or through what a whole node reads."""
    damaged: list[str] = []
    history = _history(store, damaged)
    touched: dict[str, set[str]] = {}
    """Key of an artifact -> its units."""
    width = max((len(node) for node, _ in history), default=0) + 1
    for (node, key), event in history.items():  # in order of time: an artifact comes after what it reads
        inputs = {up: source["key"] for up, source in event["inputs"].items()}
        used = [up for up, at in inputs.items() if at in touched]
        if not store.exists(locations.manifest_path(node, key)):
            if used:
                touched[key] = set()
                yield f"{node:<{width}} {key}  through {', '.join(used)}"
            continue
        rows = _manifest(store, node, key, damaged)
        tables = {up: _table(store, source.get("stage", up), source["key"])
                  for up, source in event["inputs"].items()}  # fmt: skip
        if files := [up for up in used if not touched[inputs[up]] and tables[up] is None]:
            touched[key] = {row.unit for row in rows}  # of a checkpoint, which made them all
            yield f"{node:<{width}} {key}  through {', '.join(files)}"
            continue
        units = {recording}.union(*(touched[inputs[up]] for up in used))
        units |= {row["id"] for table in tables.values() for row in table or ()
                  if recording in (row.get("recordings") or ())}  # fmt: skip
        if own := [row for row in rows if row.unit in units]:
            touched[key] = {row.unit for row in own}
            yield from (f"{node:<{width}} {key}  {_row_text(row, recording)}" for row in own)
    yield from _warnings(damaged)
    if not touched:
        raise UserError(f"no artifact holds a recording {recording!r}")


def _row_text(row: ManifestRow, recording: str) -> str:
    content = f"{row.clips} clip{'s' * (row.clips != 1)}"
    content += f", {row.frames} frames" if row.frames else ""
    detail = content if row.status == "ok" else f"{row.code}: {row.reason}"
    unit = "" if row.unit == recording else f"{row.unit}  "
    return f"{unit}pack {row.pack[:12]}  {row.status}  {detail}"


def _table(store: Store, stage: str, key: str) -> list[dict[str, Any]] | None:
    """The table of units that a whole node published; None of other nodes."""
    path = f"{locations.artifact_path(stage, key)}/{stage}.parquet"
    return decode_parquet(store.read(path)).to_pylist() if store.exists(path) else None


def _manifest(store: Store, node: str, key: str, damaged: list[str]) -> list[ManifestRow]:
    try:
        return read_node_manifest(store, node, key)
    except FileNotFoundError:
        return []
    except DamagedFile as error:
        damaged.append(str(error))
        return []
