"""Keeping a store: pin, gc, verify."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator

from pipelines.engine.plan import NodePlan
from storage import ledger, locations
from storage.families import read_manifest, read_pack_record, stored_sample
from storage.files import Store, sha256_file

GRACE_HOURS = 72.0

Found = dict[str, list[tuple[str, int]]]  # node -> (path, bytes)


def pin(store: Store, plans: dict[str, NodePlan], name: str) -> str:
    """Freeze the list of recordings as it was last published; run files use it with `data.pin: NAME`."""
    plan = plans["recordings"]
    if plan.artifact is None:
        raise ValueError("recordings is not up to date; run `reenact run RUN.yaml --only recordings` first")
    artifacts = {"recordings": plan.artifact.key}
    record = {"artifacts": artifacts, "time": time.time(), "recordings": len(plan.outlook)}
    store.write_json(locations.ref(name), record)
    return f"pinned {len(plan.outlook):,} recordings ({plan.artifact.key[:12]}) as {name}"


# --- verify -----------------------------------------------------------------------------------------------
def verify(store: Store) -> Iterator[str]:
    """Re-hash everything published; yields one line a fault."""
    for node in store.folders("manifests"):
        keys = [entry.name.removesuffix(".parquet") for entry in store.list(locations.manifests(node))]
        for pack in sorted({row.pack for key in keys for row in read_manifest(store, node, key)}):
            yield from _verify_pack(store, node, pack)
    for node in store.folders("whole"):
        for folder in store.folders(locations.wholes(node)):
            yield from _verify_whole(store, f"{locations.wholes(node)}/{folder}")


def _verify_pack(store: Store, node: str, pack: str) -> Iterator[str]:
    path = locations.pack(node, pack)
    if not store.exists(path) or not store.exists(locations.pack_record(node, pack)):
        yield f"{path}: missing; the next run rebuilds it"
        return
    for unit in read_pack_record(store, node, pack):
        for sample in unit.samples:
            if stored_sample(store, node, pack, sample).digest() != sample.digest:
                yield f"{path}: sample {sample.key} differs from its digest; delete the file and run again"


def _verify_whole(store: Store, folder: str) -> Iterator[str]:
    if not store.exists(f"{folder}/record.json"):
        yield f"{folder}: no record (a run was cut short while publishing); the next run publishes it again"
        return
    for name, sha in store.read_json(f"{folder}/record.json")["sha256"].items():
        if not store.exists(f"{folder}/{name}"):
            yield f"{folder}/{name}: missing; the next run rebuilds it"
        elif sha256_file(store.fetch(f"{folder}/{name}")) != sha:
            yield f"{folder}/{name}: differs from its sha256; delete the folder and run again"


# --- gc ---------------------------------------------------------------------------------------------------
def garbage(store: Store, keep_runs: int, grace_hours: float = GRACE_HOURS) -> Found:
    """Node -> (path, bytes) of what neither the latest runs nor a pin reaches and that is past the grace."""
    live_packs, live_folders = _reachable(store, keep_runs)
    before = time.time() - grace_hours * 3600
    found: Found = defaultdict(list)
    for top in ("packs", "manifests", "whole", "work", "attempts", "tmp"):
        for entry in store.walk(top):
            parts = entry.name.split("/")
            stem = parts[2].split(".")[0] if len(parts) > 2 else ""
            if top in ("packs", "manifests"):
                alive = (parts[1], stem) in live_packs
            else:
                alive = f"{parts[1]}/{stem}" in live_folders
            if not alive and entry.mtime < before:
                found[parts[1]].append((entry.name, entry.size))
    return dict(found)


def _reachable(store: Store, keep_runs: int) -> tuple[set[tuple[str, str]], set[str]]:
    keys: set[tuple[str, str]] = set()
    for run in ledger.runs(store)[-keep_runs:]:
        for event in ledger.read_events(store, run):
            if event["type"] in ("node_started", "node_cached", "node_finished") and event.get("key"):
                keys.add((event["node"], event["key"]))
    for entry in store.list("refs"):
        keys |= set(store.read_json(f"refs/{entry.name}")["artifacts"].items())
    packs = {
        (node, row.pack)
        for node, key in keys
        if store.exists(locations.manifest(node, key))
        for row in read_manifest(store, node, key)
    }
    folders = {f"{node}/{key}" for node, key in keys} | {
        f"{node}/{name}"
        for node in store.folders("whole")
        for name in store.folders(locations.wholes(node))
        if (node, name.split("-")[0]) in keys
    }
    return packs | keys, folders


def collect(store: Store, found: Found) -> None:
    """Delete, records before the data they point to."""
    for paths in found.values():
        for path, _ in sorted(paths, key=lambda p: not p[0].endswith((".parquet", "record.json"))):
            store.delete(path)


def table(found: Found) -> list[str]:
    rows = {node: (len(paths), sum(size for _, size in paths)) for node, paths in sorted(found.items())}
    rows["total"] = (sum(count for count, _ in rows.values()), sum(size for _, size in rows.values()))
    return [f"{name:<26} {n:>7,} files {size / 2**20:>10,.1f} MiB" for name, (n, size) in rows.items()]
