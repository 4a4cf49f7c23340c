"""Shards that are dropped on purpose, to free space, once all that reads them is there (`Node.drops`).

The record of such a pack stays, and beside it a mark. So its units and the digests of their content are still
known, what was made of them stands, and nothing runs. When a node is to read them again, the runner first
makes the shards again that it reads, and no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from storage import locations

if TYPE_CHECKING:
    from pipelines.engine.node import Graph
    from pipelines.engine.node_plan import NodePlan
    from pipelines.engine.packs import PackJob
    from storage.files import Store


def find_dropped_packs_to_rebuild(plan: NodePlan, plans: Mapping[str, NodePlan]) -> dict[str, set[str]]:
    """Upstream node -> its packs without a shard that a node reads when it runs. Of a keyed node whose jobs
    are not known yet, all: it may read them."""
    found: dict[str, set[str]] = {}
    for role, read in plan.node.reads.items():
        known = plans[read.node].restore_jobs.keys()
        if known and plan.node.kind == "keyed" and plan.key:
            known &= _packs_read(plan.jobs, role)
        if known:
            found.setdefault(read.node, set()).update(known)
    return found


def _packs_read(jobs: Iterable[PackJob], role: str) -> set[str]:
    """The packs of one input that hold what is computed from."""
    units = [unit for job in jobs for unit in job.units if unit.copy_from is None]
    return {pack for unit in units if role in unit.samples for _, pack in unit.samples[role].packs}


def plan_dropped_shards_again(graph: Graph, plans: Mapping[str, NodePlan]) -> None:
    """Mark the nodes whose shards are made again since nodes that are planned to run read them."""
    readers: dict[str, list[str]] = {}
    for node in reversed(list(graph)):
        plan = plans.get(node.name)
        if plan is None:
            continue
        if plan.to_restore:
            again = [plan.restore_jobs[pack] for pack in sorted(plan.to_restore)]
            units, names = sum(len(job.units) for job in again), ", ".join(reversed(readers[node.name]))
            plan.reasons.append(f"{units:,} of {plan.counts['units']:,} units dropped, read again by {names}")
            plan.jobs = [*plan.jobs, *again]
            plan.state = "stale" if plan.has_artifact else plan.state
        if not plan.has_artifact or plan.to_restore:
            for name, packs in find_dropped_packs_to_rebuild(plan, plans).items():
                plans[name].to_restore |= packs
                readers.setdefault(name, []).append(node.name)


def find_droppable_packs(graph: Graph, plans: Mapping[str, NodePlan]) -> Iterator[tuple[str, set[str]]]:
    """Stages that drop their shards, and whose every node is there with all that reads it -> their packs.

    By stage, since nodes of one stage may share packs."""
    stages: dict[str, set[str]] = {}
    for node in graph:
        if node.drops:
            stages.setdefault(node.stage, set()).add(node.name)
    for stage, names in stages.items():
        readers = {node.name for node in graph if any(read.node in names for read in node.reads.values())}
        there = all(name in plans and plans[name].has_artifact for name in names | readers)
        if readers and there and not any(plans[name].to_restore for name in names):
            yield stage, {pack for name in names for pack in plans[name].packs}


def drop_shards(store: Store, stage: str, packs: Iterable[str]) -> int:
    """Drop the shards of these packs -> the bytes that are freed. The mark comes first: without it, a pack
    without a shard counts as damaged."""
    sizes, freed = {entry.name: entry.size for entry in store.list(locations.packs_folder(stage))}, 0
    for pack in sorted(packs):
        if f"{pack}.tar" in sizes and f"{pack}.parquet" in sizes:
            store.write(locations.drop_mark_path(stage, pack), b"")
            store.delete(locations.pack_path(stage, pack))
            freed += sizes[f"{pack}.tar"]
    return freed
