"""Packs as plain Ray tasks, for nodes without nets, or whose nets load at once.

A pool of Ray Data starts processes of its own for each node; a task takes one that an earlier task has left.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence

from pipelines.cluster.pack_worker import ONE_THREAD_ENVIRONMENT, PackWorker
from pipelines.engine.node import Node
from pipelines.engine.packs import PackJob, PackResult, StageCall
from storage.files import Store

LIGHT_PACKS = 4
"""Packs of a light node that one task builds."""


def needs_pool(node: Node) -> bool:
    """Whether workers hold what takes long to load."""
    return bool(node.nets or node.uses) and not node.light


def packs_in_a_task(node: Node) -> int:
    return LIGHT_PACKS if node.light else 1


def wanted_workers(node: Node, packs: int) -> int:
    """Workers that have something to do."""
    return -(-packs // packs_in_a_task(node))


def build_in_tasks(call: StageCall, jobs: Sequence[PackJob], store: Store, size: int) -> Iterator[PackResult]:
    """Results in order of completion. size: tasks at a time."""
    import ray

    node, count = call.node, packs_in_a_task(call.node)
    task = ray.remote(
        num_cpus=node.resources.get("cpu", 1),
        num_gpus=node.resources.get("gpu", 0),
        max_retries=-1,  # a unit that takes its process down is counted, and rejected in the end
        runtime_env={"env_vars": ONE_THREAD_ENVIRONMENT},
    )(_build)
    waiting = [jobs[at : at + count] for at in range(0, len(jobs), count)][::-1]
    running: list[ray.ObjectRef[list[bytes]]] = []
    try:
        while waiting or running:
            while waiting and len(running) < size:
                running.append(task.remote(call, store, waiting.pop()))
            (done,), running = ray.wait(running)
            for data in ray.get(done):
                result = pickle.loads(data)
                if isinstance(result, Exception):
                    raise result
                yield result
    finally:
        for one in running:  # of a stream that is left early: they hold cores that other nodes wait for
            ray.cancel(one, force=True)


def _build(call: StageCall, store: Store, jobs: Sequence[PackJob]) -> list[bytes]:
    worker = PackWorker(call, store)
    return [pickle.dumps(worker.build_pack(job)) for job in jobs]
