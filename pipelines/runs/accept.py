"""`reenact accept`: outputs declared valid for changed code, never for changed settings or inputs."""

from __future__ import annotations

import getpass
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Collection, Iterator
from io import BytesIO
from pathlib import Path

from msgspec.structs import replace

from pipelines.engine.fingerprint import (
    KEY_SCHEME,
    changed_symbols,
    compute_fingerprint_components,
    describe_closure,
    list_code_entry_points,
)
from pipelines.engine.keys import dict_difference
from pipelines.engine.node import Node
from pipelines.engine.node_plan import NodePlan
from pipelines.engine.plan import Planner
from pipelines.engine.source_code import SourceSymbolIndex
from pipelines.errors import UserError
from pipelines.runs.session import open_project_source_code
from pipelines.runs.snapshot import PROJECT_PACKAGES, checkout_folder
from storage import locations
from storage.files import Store, sha256_file

GOLDENS_FOLDER = "tests/golden"
MAX_LISTED_NODES = 4


def accept_node_outputs(planner: Planner, plan: NodePlan, reason: str) -> str:
    """Declare the outputs of the node's last run valid for the code as it is now."""
    name = plan.node.name
    if plan.fingerprint is None or plan.state == "cached":
        raise UserError(f"{name} is {plan.state}: there is nothing to accept")
    last = planner.last_run(plan.node)
    if last is None or last.scheme != KEY_SCHEME:
        raise UserError(f"{name} has never run: there is no output to accept")
    old, now = last.fingerprint, plan.fingerprint
    if not old.same_but_code(now):
        parts = ("config", "weights", "tools", "packages", "inputs")
        changed = [n for p in parts for n, _, _ in dict_difference(getattr(old, p), getattr(now, p))]
        raise UserError(
            f"{name}: more than code changed ({', '.join(changed[:MAX_LISTED_NODES])}); only a run can "
            "answer for that"
        )
    if old.key == now.key:
        raise UserError(f"{name}: its code did not change; it runs because: {'; '.join(plan.reasons)}")
    return _write(planner.store, plan.node, old.key, now.key, planner.changed_symbols(plan, last), reason)


def accept_since(planner: Planner, commit: str, reason: str, nodes: Collection[str] = ()) -> Iterator[str]:
    """Declare the outputs of every node (or of those named) that ran with the code of a commit valid for the
    code as it is now; a line for each node whose code changed. Recorded with the goldens of both, which must
    be the same: they are what shows that the numbers are.
    """
    full = (
        _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}").strip().decode()
    )
    if not full:
        raise UserError(f"no commit {commit!r} in {checkout_folder()}; give one that `git log` knows")
    goldens = _goldens(full)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(
            fileobj=BytesIO(_git("archive", "--format=tar", full, *PROJECT_PACKAGES))
        ) as archive:
            archive.extractall(folder, filter="data")
        before = open_project_source_code(type(planner.config), root=Path(folder))
        for node in planner.graph:
            if (not nodes or node.name in nodes) and node.name not in planner.options.pins:
                yield from _accept_node(planner, node, before, reason, {"since": full, "goldens": goldens})


def _accept_node(
    planner: Planner, node: Node, before: SourceSymbolIndex, reason: str, more: dict[str, object]
) -> Iterator[str]:
    name, stage, store = node.name, node.stage, planner.store
    now = compute_fingerprint_components(node, planner.config, planner.env)
    named = list_code_entry_points(node, planner.config, before)
    if missing := [entry for entry in named if not before.has_symbol(entry)]:
        yield f"{name}: left as it is, that commit has no {', '.join(missing[:MAX_LISTED_NODES])}"
        return
    old = replace(now, code=before.digest(named))
    if old.key == now.key or store.exists(locations.accepted_key_path(stage, now.key)):
        return
    known = (locations.node_key_path(stage, old.key), locations.accepted_key_path(stage, old.key))
    if not any(store.exists(path) for path in known):
        yield f"{name}: left as it is, it never ran with these settings and the code of that commit"
        return
    changed = changed_symbols(
        describe_closure(before.reachable_symbols(named)), planner.reachable_symbols(node)
    )
    yield _write(store, node, old.key, now.key, changed, reason, more)


def _write(
    store: Store,
    node: Node,
    old: str,
    new: str,
    symbols: list[str],
    reason: str,
    more: dict[str, object] | None = None,
) -> str:
    before = locations.accepted_key_path(node.stage, old)
    stands_for = store.read_json(before)["as"] if store.exists(before) else old
    record = {
        "as": stands_for,
        "reason": reason,
        "by": getpass.getuser(),
        "time": time.time(),
        "symbols": symbols,
    }
    store.write_json(locations.accepted_key_path(node.stage, new), record | (more or {}))
    names = ", ".join(
        [
            *symbols[:MAX_LISTED_NODES],
            *([f"{len(symbols) - MAX_LISTED_NODES} more"] if symbols[MAX_LISTED_NODES:] else []),
        ]
    )
    return f"{node.name}: outputs of {stands_for[:12]} accepted for changed {names}"


def _goldens(commit: str) -> dict[str, str]:
    """The golden files and their sha256, which are those of the commit."""
    changed = _git("diff", "--name-only", "--diff-filter=DM", commit, "--", GOLDENS_FOLDER).decode().split()
    if changed:
        names = ", ".join(changed[:MAX_LISTED_NODES])
        raise UserError(
            f"{names} changed since {commit[:12]}: numbers did, and only a run can answer for that"
        )
    folder = checkout_folder() / GOLDENS_FOLDER
    found = {path.name: sha256_file(path) for path in sorted(folder.glob("*")) if path.is_file()}
    if not found:
        raise UserError(f"no file in {folder}: nothing shows that the numbers are the same")
    return found


def _git(*arguments: str) -> bytes:
    if shutil.which("git") is None:
        raise UserError("accept --since: git is not on PATH; it reads the code of that commit")
    done = subprocess.run(["git", "-C", str(checkout_folder()), *arguments], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else b""
