"""`gc`: what no run, pin or lease needs any more, by pipelines/runs/retention.py."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

from pipelines.runs.retention import (
    MAX_CLOCK_DIFFERENCE_HOURS,
    SECONDS_PER_HOUR,
    ArtifactKey,
    KeptArtifacts,
    find_kept_artifacts,
)
from storage.errors import DamagedFile
from storage.families import read_node_manifest
from storage.files import FileEntry, Store

GRACE_HOURS = 72.0
SWEPT_FOLDERS = ("packs", "manifests", "whole", "work", "attempts", "leases", "tmp")
"""Folders of a store that are looked through; keys, accepts, pins, weights and the ledger stay."""


@dataclass
class GarbageFiles:
    found: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    """Node -> (path, bytes)"""
    unreadable: list[str] = field(default_factory=list)
    """What the ledger and the pins could not tell: without it nothing may be deleted"""
    spared: list[str] = field(default_factory=list)
    """Manifests that could not be read: their nodes' packs all stay"""


def find_garbage(
    store: Store, keep_runs: int, grace_hours: float = GRACE_HOURS, drop: Collection[str] = ()
) -> GarbageFiles:
    """What nothing reaches and is older than the grace; `drop`: names whose past runs do not count."""
    result, before = GarbageFiles(), time.time() - grace_hours * SECONDS_PER_HOUR
    found = find_kept_artifacts(store, keep_runs, result.unreadable.append, drop)
    entries = {top: store.walk(top) for top in SWEPT_FOLDERS}
    for entry in entries["manifests"]:  # a young manifest keeps its packs, which may be old
        if entry.mtime >= before:
            found.keys.add(_key(entry))
    spared = _reach_packs(store, found, result)
    for top, some in entries.items():
        for entry in some:
            node = entry.name.split("/")[1]
            alive = node in spared if top in ("packs", "manifests") else False
            if entry.mtime < before and not alive and not _is_used(top, entry, found):
                result.found[node].append((entry.name, entry.size))
    return result


def _reach_packs(store: Store, found: KeptArtifacts, result: GarbageFiles) -> set[str]:
    """Adds the packs of every manifest in use; -> nodes with one that cannot be read."""
    spared = set()
    for node, key in sorted(found.keys):
        try:
            found.packs |= {(node, row.pack) for row in read_node_manifest(store, node, key)}
        except FileNotFoundError:
            continue  # a whole node's, or one that was not finished
        except DamagedFile as error:
            result.spared.append(str(error))
            spared.add(node)
    return spared


def _key(entry: FileEntry) -> ArtifactKey:
    """<top>/<node>/<key>... -> node and key; of a whole artifact with steps, without them."""
    _, node, name, *_ = [*entry.name.split("/"), ""]
    return node, name.split(".")[0].split("-")[0]


def _is_used(top: str, entry: FileEntry, found: KeptArtifacts) -> bool:
    node, key = _key(entry)
    if top == "packs":
        return (node, key) in found.packs or entry.mtime >= found.since.get(node, float("inf"))
    if top in ("manifests", "whole", "work"):
        return (node, key) in found.keys
    if top == "attempts":
        return entry.name.rpartition("@")[2] in found.going
    if top == "tmp":  # a run's files in the making
        return any(
            entry.mtime >= began - MAX_CLOCK_DIFFERENCE_HOURS * SECONDS_PER_HOUR
            for began in found.going.values()
        )
    return entry.name in found.claims


def delete_garbage(store: Store, found: GarbageFiles) -> None:
    """Delete, records before the data they point to."""
    for paths in found.found.values():
        for path, _ in sorted(paths, key=lambda p: not p[0].endswith((".parquet", "record.json"))):
            store.delete(path)


def garbage_table(found: GarbageFiles) -> list[str]:
    rows = {node: (len(paths), sum(size for _, size in paths)) for node, paths in sorted(found.found.items())}
    rows["total"] = (sum(count for count, _ in rows.values()), sum(size for _, size in rows.values()))
    return [f"{name:<26} {n:>7,} files {size / 2**20:>10,.1f} MiB" for name, (n, size) in rows.items()]
