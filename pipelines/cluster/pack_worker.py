"""What builds packs in a Ray worker."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

from pipelines.engine.packs import PackJob, PackResult, StageCall, claim_and_build_pack
from pipelines.errors import make_picklable, prefix_error
from pipelines.nets import load_nets
from storage.files import Store


class RayMachines:
    """The nodes of the Ray cluster, asked from a worker. A node that comes back has another id."""

    def __init__(self) -> None:
        import ray

        self.here = ray.get_runtime_context().get_node_id()

    def is_alive(self, machine: str) -> bool:
        import ray

        return any(node["NodeID"] == machine and node["Alive"] for node in ray.nodes())


class PackWorker:
    """Nets loaded once, then one pack after the other: as an actor of Ray Data, or in a task."""

    def __init__(self, call: StageCall, store: Store):
        self.store, self.machines = store, RayMachines()
        self.broken: Exception | None = None
        try:
            nets = load_nets(call.node.nets, store, call.node.missing_weights)
            self.run = call.bind_nets(nets | call.load_checkpoint_nets())
        except Exception as error:  # noqa: BLE001 - raised in the driver, as those of `build`
            self.broken = prefix_error(error, call.node.name)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[bytes]]:
        jobs: list[PackJob] = [pickle.loads(data) for data in batch["job"]]
        return {"result": [pickle.dumps(self.build_pack(job)) for job in jobs]}

    def build_pack(self, job: PackJob) -> PackResult | Exception:
        """Errors travel as results: one that Ray Data raises keeps the pool and its cores alive."""
        try:
            return self.broken or claim_and_build_pack(job, self.run, self.store, self.machines)
        except Exception as error:  # noqa: BLE001 - raised in the driver
            return make_picklable(error)


ONE_THREAD_ENVIRONMENT = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
"""A worker is one core; libraries that start a thread a core would fight over them. Given by Ray's
runtime_env: what a worker sets itself comes after Ray's own imports, and numpy has its threads by then."""
