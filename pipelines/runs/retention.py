"""What is in use: by the ledger, pins, leases and runs that are not over; `gc` keeps it, `verify` misses it.

A run is known by the name in its run file. Of each node, what the latest runs of each name made or found in
place is in use, those on a pin counted apart from the others; so is all that it was made from, as far up as
the ledger tells. Counted by node, a run of a few nodes pushes nothing else out.
"""

from __future__ import annotations

import socket
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from storage import leases, ledger, locations
from storage.errors import DamagedFile
from storage.files import Store

ArtifactKey = tuple[str, str]
"""Node, artifact key."""
DEAD_RUN_HOURS = 24.0
"""After so long without a word, a run on another machine is taken for dead."""
MAX_CLOCK_DIFFERENCE_HOURS = 24.0
"""How far apart the clocks of machines and stores may be."""
SECONDS_PER_HOUR = 3600.0


@dataclass
class RunArtifactUsage:
    """What one run made, found in place or left unfinished."""

    run: str
    name: str
    time: float
    going: bool = False
    keys: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    published: dict[ArtifactKey, str] = field(default_factory=dict)
    """What was there when the run left it -> the folder of its files; "" of keyed nodes and where unknown"""
    unfinished: dict[str, float] = field(default_factory=dict)
    """Node -> when it was started"""


@dataclass
class ArtifactUseHistory:
    uses: list[RunArtifactUsage]
    """Oldest first"""
    inputs: dict[ArtifactKey, set[ArtifactKey]]
    """What each artifact was made from"""


def read_ledger_history(store: Store, damaged: Callable[[str], object]) -> ArtifactUseHistory:
    """The whole ledger, without metrics. `damaged` gets a line for what cannot be read."""
    inputs: dict[ArtifactKey, set[ArtifactKey]] = defaultdict(set)
    uses = [_use(store, run, inputs, damaged) for run in ledger.list_runs(store)]
    for found in ledger.read_fully_cached_runs(store, damaged):
        use = RunArtifactUsage("", found["name"], found["time"])
        for node, key in found["artifacts"]:
            use.keys[node].add(key)
            use.published[node, key] = ""
        uses.append(use)
    return ArtifactUseHistory(sorted(uses, key=lambda use: use.time), inputs)


def _use(
    store: Store, run: str, inputs: dict[ArtifactKey, set[ArtifactKey]], damaged: Callable[[str], object]
) -> RunArtifactUsage:
    use, holder, over = RunArtifactUsage(run, "", 0.0), ":0", False
    for event in ledger.read_events(store, run, metrics=False, damaged=damaged):
        use.time = use.time or event["time"]
        if event["type"] == "run_started":
            use.name, holder = str(event.get("name", "")), str(event.get("holder", ":0"))
        over |= event["type"] == "run_finished"
        node, key = event.get("stage") or event.get("node"), event.get("key")
        if event["type"] == "node_finished" and event.get("status") == "FINISHED":
            use.unfinished.pop(str(node), None)
        if not node or not key or event["type"] not in ("node_started", "node_cached", "node_finished"):
            continue
        use.keys[node].add(key)
        if event["type"] == "node_started":
            use.unfinished[node] = event["time"]
        else:
            use.published[node, key] = event.get("folder") or ""
        read = (event.get("inputs") or {}).items()
        inputs[node, key] |= {(one.get("stage") or up, one["key"]) for up, one in read}
    use.going = not over and _goes_on(store, run, holder)
    return use


def _goes_on(store: Store, run: str, holder: str) -> bool:
    if holder.rpartition(":")[0] == socket.gethostname():
        return not leases.is_holder_dead(holder)
    latest = max((entry.mtime for entry in store.list(locations.run_folder(run))), default=0.0)
    return latest > time.time() - DEAD_RUN_HOURS * SECONDS_PER_HOUR


@dataclass
class KeptArtifacts:
    """What is in use."""

    keys: set[ArtifactKey] = field(default_factory=set)
    packs: set[ArtifactKey] = field(default_factory=set)
    """Node, pack key: of units being built"""
    since: dict[str, float] = field(default_factory=dict)
    """Node -> from when on its packs may be of a run that did not finish it: no manifest reaches them"""
    published: dict[ArtifactKey, str] = field(default_factory=dict)
    """What the ledger says was published -> the folder of its files, where known"""
    claims: set[str] = field(default_factory=set)
    """Paths of live ones"""
    going: dict[str, float] = field(default_factory=dict)
    """Run that is not over -> when it began"""


def find_kept_artifacts(
    store: Store, keep_runs: int, damaged: Callable[[str], object], drop: Collection[str] = ()
) -> KeptArtifacts:
    """All that is in use, where the latest `keep_runs` runs of each name and node count."""
    past, pins = read_ledger_history(store, damaged), _pins(store, damaged)
    let_go = read_run_drop_times(store, damaged) | dict.fromkeys(drop, time.time())
    found = KeptArtifacts(
        keys=set(pins), published={k: at for use in past.uses for k, at in use.published.items()}
    )
    counted: dict[tuple[str, str, str], list[RunArtifactUsage]] = defaultdict(list)  # name, pin, node
    for use in past.uses:
        if use.going:
            found.going[use.run] = use.time
        elif use.time <= let_go.get(use.name, -1.0):
            continue
        pinned = next((key for node, key in pins if key in use.keys.get(node, ())), "")
        for node in use.keys:
            counted[use.name, pinned, node].append(use)
    for (_, _, node), uses in counted.items():
        kept = [use for use in reversed(uses) if use.going] + uses[-keep_runs:]
        found.keys |= {(node, key) for use in kept for key in use.keys[node]}
        for use in reversed(uses[-keep_runs:]):
            if node not in use.unfinished:
                break  # a later run finished what earlier ones did not
            since = use.unfinished[node] - MAX_CLOCK_DIFFERENCE_HOURS * SECONDS_PER_HOUR
            found.since[node] = min(since, found.since.get(node, since))
    for node, claim in _live_claims(store):
        found.keys.add((node, claim.key))
        found.packs.add((node, claim.key))
        found.claims.add(f"{locations.leases_folder(node)}/{claim.name}")
    found.keys = artifact_input_closure(found.keys, past.inputs)
    return found


def artifact_input_closure(
    keys: Iterable[ArtifactKey], inputs: Mapping[ArtifactKey, set[ArtifactKey]]
) -> set[ArtifactKey]:
    """These and all they were made from."""
    found: set[ArtifactKey] = set()
    stack = list(keys)
    while stack:
        if (one := stack.pop()) not in found:
            found.add(one)
            stack += inputs.get(one, ())
    return found


def _pins(store: Store, damaged: Callable[[str], object]) -> list[ArtifactKey]:
    found: list[ArtifactKey] = []
    for entry in store.list("refs"):
        try:
            record: Any = store.read_json(f"refs/{entry.name}", "artifacts", "stage")
            found += [(str(record["stage"]), str(key)) for key in record["artifacts"].values()]
        except AttributeError:
            damaged(f"refs/{entry.name}: its artifacts are no keys by corpus")
        except DamagedFile as error:
            damaged(str(error))
    return found


def _live_claims(store: Store) -> Iterable[tuple[str, leases.Claim]]:
    """Claims that changed within an hour, by the store's own clock as far as it agrees with ours."""
    for node in store.list_folders("leases"):
        written = {entry.name: entry.mtime for entry in store.list(locations.leases_folder(node))}
        for claim in leases.list_claims(store, node):
            fresh = written.get(claim.name, 0.0) > time.time() - SECONDS_PER_HOUR
            if fresh and not leases.is_holder_dead(claim.holder):
                yield node, claim


# --- names that no longer count -----------------------------------------------------------------------------
def read_run_drop_times(
    store: Store, damaged: Callable[[str], object] = lambda _text: None
) -> dict[str, float]:
    """Run name -> until when its runs no longer count."""
    try:
        return {str(name): float(at) for name, at in store.read_json(locations.DROPPED_RUNS_FILE).items()}
    except FileNotFoundError:
        return {}
    except (DamagedFile, AttributeError, TypeError, ValueError) as error:
        damaged(f"{locations.DROPPED_RUNS_FILE}: {error}")
        return {}


def drop_runs_from_retention(store: Store, names: Iterable[str]) -> None:
    """Past runs of these names no longer count; later ones do."""
    store.write_json(
        locations.DROPPED_RUNS_FILE, read_run_drop_times(store) | dict.fromkeys(names, time.time())
    )
