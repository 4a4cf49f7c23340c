"""Packs of a keyed node as a Ray Data job: a row of the dataset is one pack.

Many packs of a node with nets are built by a pool of actors, which each node starts anew: each loads its nets
once. All others are tasks of Ray Data, which take the processes that earlier tasks have left, of this node or
another, and what these have imported and loaded. The only importer of ray.data.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pipelines.cluster.pack_worker import ONE_THREAD_ENVIRONMENT, PackWorker
from pipelines.engine.node import Node
from pipelines.engine.packs import PackJob, PackResult, StageCall
from storage.files import Store

if TYPE_CHECKING:
    from ray.data import Dataset
    from ray.data._internal.execution.interfaces import Executor

LIGHT_PACKS_PER_TASK = 4
"""Packs of a light node that one task builds."""
MIN_PACKS_PER_POOL_WORKER = 8
"""Packs a worker from which on a pool is started: it takes some ten seconds, torch alone four."""
MAX_CACHED_PACK_WORKERS = 2
"""Nodes whose nets a process keeps between tasks: two may take turns on it."""


def needs_pool(node: Node, packs: int, size: int) -> bool:
    """Whether actors build the packs, in so many workers (size). Nets on a GPU always have them: Ray ends a
    process after a task that had one."""
    heavy = bool(node.nets or node.uses) and not node.light
    return heavy and (node.resources.get("gpu", 0) > 0 or packs >= MIN_PACKS_PER_POOL_WORKER * size)


def packs_in_a_task(node: Node) -> int:
    return LIGHT_PACKS_PER_TASK if node.light else 1


def wanted_workers(node: Node, packs: int) -> int:
    """Workers that have something to do."""
    return -(-packs // packs_in_a_task(node))


def run_pack_job(call: StageCall, jobs: Sequence[PackJob], store: Store, size: int) -> Iterator[PackResult]:
    """Results in order of completion; raises what a stage raised. size: workers."""
    dataset = _dataset(call, jobs, store, size)
    failed: Exception | None = None
    try:
        for row in dataset.iter_rows():
            result = pickle.loads(row["result"])
            if isinstance(result, Exception):
                failed = result
                break
            yield result
    finally:
        # Also of a stream that is left early: its workers hold the cores that other nodes wait for.
        if (running := dataset._current_executor) is not None:
            stop_ray_data_execution(running, failed)
    if failed is not None:
        raise failed


def _dataset(call: StageCall, jobs: Sequence[PackJob], store: Store, size: int) -> Dataset:
    """Rows {"result": a pickled PackResult, or the error that a stage raised}."""
    import ray.data

    node = call.node
    rows = [{"job": pickle.dumps(job)} for job in jobs]
    count = packs_in_a_task(node)
    dataset = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // count))
    options: dict[str, Any] = {
        "num_cpus": node.resources.get("cpu", 1),
        "num_gpus": node.resources.get("gpu", 0),
        "runtime_env": {"env_vars": ONE_THREAD_ENVIRONMENT},
    }
    if not needs_pool(node, len(jobs), size):
        return dataset.map_batches(
            build_packs_in_ray_task,  # pyright: ignore[reportArgumentType]
            batch_size=None, compute=ray.data.TaskPoolStrategy(size=size),
            fn_args=(pickle.dumps((call, store)),), **options,
        )  # fmt: skip
    # Of many packs, each worker has the next one waiting: none idles until the driver has sent it.
    ahead = 2 if len(jobs) >= 4 * size else 1
    return dataset.map_batches(
        PackWorker,  # pyright: ignore[reportArgumentType]
        batch_size=1,
        # Of a fixed size: Ray Data grows a pool only above 1.75 packs in flight a worker, and late.
        compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=ahead),
        fn_constructor_args=(call, store),
        **options,
    )


def build_packs_in_ray_task(batch: Mapping[str, Any], call_and_store: bytes) -> dict[str, list[bytes]]:
    return kept_worker(call_and_store)(batch)


@lru_cache(MAX_CACHED_PACK_WORKERS)
def kept_worker(call_and_store: bytes) -> PackWorker:
    """Of this process, with its nets."""
    return PackWorker(*pickle.loads(call_and_store))


def stop_ray_data_execution(running: Executor, failed: Exception | None) -> None:
    """End a Ray Data execution at once. On a busy machine its own loop may still turn while it is taken down,
    and either trip over the other; that must not hide why the stream ended.
    """
    try:
        running.shutdown(force=True)
    except Exception as trouble:
        if failed is None:
            raise
        failed.add_note(f"Ray Data, when it was stopped: {trouble!r}")
