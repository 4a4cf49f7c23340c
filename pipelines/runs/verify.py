"""`find_store_faults`: all that is published is read again and compared with its records, and what to do
about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from pipelines.runs.retention import find_kept_artifacts
from storage import leases, ledger, locations
from storage.checkpoints import BEST_FILE, STATE_FILE, read_safetensors_metadata
from storage.errors import DamagedFile
from storage.families import ManifestRow, read_encoded_sample, read_node_manifest, read_pack_record
from storage.files import Store, sha256_file
from storage.shards import compute_shard_bytes


@dataclass(frozen=True, slots=True)
class StoreFault:
    path: str
    what: str
    node: str = ""
    """Whose output it is, if it is one"""
    then: Literal["rebuilt", "delete", "mend", "left"] = "delete"
    """rebuilt: the next run that needs it sees it and makes it again; delete: it does once the file is gone;
    mend: its other lines count; left: no fault, of a run that was cut short, and `gc` removes it."""


def find_store_faults(store: Store) -> Iterator[StoreFault]:
    """Every fault of the store, and what lies about."""
    yield from _small_files(store)
    listed: dict[str, dict[str, ManifestRow]] = {}
    for node in store.list_folders("manifests"):
        listed[node] = {}
        for entry in store.list(locations.manifests_folder(node)):
            key = entry.name.removesuffix(".parquet")
            try:
                listed[node] |= {row.pack: row for row in read_node_manifest(store, node, key)}
            except DamagedFile as error:
                yield _fault_of(error, locations.manifest_path(node, key), node)
    for node in sorted({*store.list_folders("packs"), *listed}):
        yield from _packs(store, node, listed.get(node, {}))
    for node in store.list_folders("whole"):
        for folder in store.list_folders(locations.artifacts_folder(node)):
            yield from _whole(store, node, f"{locations.artifacts_folder(node)}/{folder}")
    yield from _missing_artifacts(store)


def _fault_of(error: DamagedFile, path: str, node: str = "") -> StoreFault:
    """An error's text begins with the path, which is printed before it anyway."""
    return StoreFault(path, str(error).removeprefix(path).lstrip(": ").partition(";")[0], node)


# --- keyed nodes --------------------------------------------------------------------------------------------
def _packs(store: Store, node: str, listed: dict[str, ManifestRow]) -> Iterator[StoreFault]:
    sizes = {entry.name: entry.size for entry in store.list(locations.packs_folder(node))}
    there = {name.rpartition(".")[0] for name in sizes if name.endswith((".tar", ".parquet"))}
    for pack in sorted({*there, *listed}):
        shard, record = f"{pack}.tar" in sizes, f"{pack}.parquet" in sizes
        if shard and record:
            yield from _pack(store, node, pack, sizes[f"{pack}.tar"])
            continue
        if record and f"{pack}.dropped" in sizes:  # its shard, on purpose
            path = locations.pack_record_path(node, pack)
            yield from _check_reading(partial(read_pack_record, store, node, pack), path, node)
            continue
        for there_is, path in (
            (shard, locations.pack_path(node, pack)),
            (record, locations.pack_record_path(node, pack)),
        ):
            if not there_is and pack in listed:
                yield StoreFault(path, "missing", node, "rebuilt")
            elif there_is and pack not in listed:
                yield StoreFault(
                    path, "half of a pack: a run was cut short while publishing it", node, "left"
                )


def _pack(store: Store, node: str, pack: str, size: int) -> Iterator[StoreFault]:
    path = locations.pack_path(node, pack)
    try:
        units = read_pack_record(store, node, pack)
    except DamagedFile as error:
        yield _fault_of(error, locations.pack_record_path(node, pack), node)
        return
    samples = [sample for unit in units for sample in unit.samples]
    if size != (expected := compute_shard_bytes(samples)):
        yield StoreFault(path, f"{size:,} bytes, its record says {expected:,}", node, "rebuilt")
        return
    for sample in samples:
        try:
            found = read_encoded_sample(store, node, pack, sample).digest()
        except DamagedFile:
            found = ""
        if found != sample.digest:
            yield StoreFault(path, f"sample {sample.key} differs from its digest", node)


# --- whole nodes --------------------------------------------------------------------------------------------
def _whole(store: Store, node: str, folder: str) -> Iterator[StoreFault]:
    sizes = {entry.name: entry.size for entry in store.list(folder)}
    path = f"{folder}/record.json"
    if "record.json" not in sizes:
        for name in sorted(sizes):
            yield StoreFault(
                f"{folder}/{name}", "no record: a run was cut short while publishing", node, "left"
            )
        return
    try:
        sums = dict(store.read_json(path, "digest", "sizes", "sha256")["sha256"])
    except DamagedFile as error:
        yield _fault_of(error, path, node)
        return
    except (TypeError, ValueError):
        yield StoreFault(path, "its sha256 are no list by file name", node)
        return
    intact = set()
    for name, sha in sums.items():
        if name not in sizes:
            yield StoreFault(f"{folder}/{name}", "missing", node, "rebuilt")
        elif _sha256(store, f"{folder}/{name}") != sha:
            yield StoreFault(f"{folder}/{name}", "differs from its sha256", node)
        else:
            intact.add(name)
    for name in sorted(sizes.keys() - sums.keys() - {"record.json"}):
        yield StoreFault(f"{folder}/{name}", "not in the record of its folder", node, "left")
    if {BEST_FILE, STATE_FILE} <= intact:
        yield from _best(store, node, folder)


def _sha256(store: Store, path: str) -> str:
    return sha256_file(store.fetch(path))


def _best(store: Store, node: str, folder: str) -> Iterator[StoreFault]:
    """The best weights of a training are those of the step that its state names as the best."""
    state, best = (
        read_safetensors_metadata(store.fetch(f"{folder}/{name}")) for name in (STATE_FILE, BEST_FILE)
    )
    recorded = state.get("best")
    if recorded is not None and recorded[1] != best.get("step"):
        what = f"of step {best.get('step')}, the state beside it says that step {recorded[1]} was the best"
        yield StoreFault(f"{folder}/{BEST_FILE}", what, node)


# --- small files --------------------------------------------------------------------------------------------
def _small_files(store: Store) -> Iterator[StoreFault]:
    for top, names in (("keys", ("fingerprint", "run_id")), ("accepts", ("as",))):
        for entry in store.walk(top):
            yield from _check_reading(partial(store.read_json, entry.name, *names), entry.name)
    for entry in store.list("refs"):
        yield from _check_reading(
            partial(store.read_json, f"refs/{entry.name}", "artifacts"), f"refs/{entry.name}"
        )
    for node in store.list_folders("leases"):
        readable = {claim.name for claim in leases.list_claims(store, node)}
        for entry in store.list(locations.leases_folder(node)):
            path = f"{locations.leases_folder(node)}/{entry.name}"
            if entry.name not in readable and store.exists(path):
                yield StoreFault(path, "no claim, so that nobody waits for it", "", "left")
    damaged: list[str] = []
    for run in ledger.list_runs(store):
        for _ in ledger.read_events(store, run, damaged=damaged.append):
            pass
    list(ledger.read_fully_cached_runs(store, damaged.append))
    for text in dict.fromkeys(damaged):
        path = text.partition(" ")[0].rstrip(",:")
        then = "mend" if path.startswith("runs/") else "delete"
        yield StoreFault(path, text.removeprefix(path).lstrip(",: "), "", then)


def _check_reading(read: Callable[[], object], path: str, node: str = "") -> Iterator[StoreFault]:
    try:
        read()
    except DamagedFile as error:
        yield _fault_of(error, path, node)


def _missing_artifacts(store: Store) -> Iterator[StoreFault]:
    """What is in use by the latest run of each name, or pinned, and is not there at all."""
    found = find_kept_artifacts(store, 1, lambda _text: None)
    keyed, whole = (
        {*store.list_folders("manifests"), *store.list_folders("packs")},
        set(store.list_folders("whole")),
    )
    for (node, key), folder in sorted(found.published.items()):
        if (node, key) not in found.keys:
            continue
        if node in whole or folder:
            there = {
                f"{locations.artifacts_folder(node)}/{name}"
                for name in store.list_folders(locations.artifacts_folder(node))
            }
            mine = {folder} if folder else {at for at in there if at.split("/")[-1].split("-")[0] == key}
            if not any(store.exists(f"{at}/record.json") for at in mine):
                at = folder or locations.artifact_path(node, key)
                yield StoreFault(f"{at}/record.json", "missing, though a run published it", node, "rebuilt")
        elif node in keyed and not store.exists(locations.manifest_path(node, key)):
            yield StoreFault(
                locations.manifest_path(node, key), "missing, though a run published it", node, "rebuilt"
            )


# --- what comes of it ---------------------------------------------------------------------------------------
def describe_store_repairs(faults: Iterable[StoreFault]) -> list[str]:
    """What to delete, and what the next run then makes again."""
    faults = [fault for fault in faults if fault.then != "left"]
    lines = [f"delete {path}" for path in dict.fromkeys(f.path for f in faults if f.then == "delete")]
    mend = dict.fromkeys(f.path for f in faults if f.then == "mend")
    lines += [f"take the lines named above out of {path}" for path in mend]
    counts: dict[str, set[str]] = defaultdict(set)
    for fault in faults:
        if fault.node:
            counts[fault.node].add(fault.path)
    if counts:
        parts = ", ".join(f"{node} ({len(paths)} files)" for node, paths in sorted(counts.items()))
        lines.append(f"the next run that needs them makes again what it finds missing of: {parts}")
    return lines
