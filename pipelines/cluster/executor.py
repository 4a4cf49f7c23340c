"""Where packs are built: on Ray, which is started or joined when the first node needs it, in as many workers
as the cluster has room for (pack_job.py)."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pipelines.cluster import ray_address
from pipelines.cluster.pack_job import run_pack_job, wanted_workers
from pipelines.cluster.start import (
    LOOPBACK_ADDRESS,
    hide_native_messages,
    is_private_cluster,
    keep_signal_handlers,
    quiet_ray,
    set_auth_token,
    wait_for_cores,
)
from pipelines.engine.node import Node
from pipelines.engine.packs import PackJob, PackResult, StageCall
from pipelines.errors import UserError
from pipelines.runs import snapshot
from storage.files import Store

if TYPE_CHECKING:
    from pipelines.cluster.runtime import RuntimeConfig

JOB_CONFIG_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray where a submitted job runs."""
JOIN_ERROR = (
    "cannot join Ray at {address}: {why}. Is it up, and is its token here (RAY_AUTH_TOKEN_PATH, "
    "RAY_AUTH_TOKEN or ~/.ray/auth_token)? One without tokens is joined with RAY_AUTH_MODE=disabled only"
)

RAY_START_ERROR_TEMPLATE = (
    "Ray cannot start on this machine: {why}. Its logs are in {logs}/session_latest/logs; see to memory, "
    "/dev/shm, open files (ulimit -n) and runtime.object_store_mb"
)


class ClusterCapacity:
    """Nodes run side by side where the cluster has room for their complete pools, on cores and on GPUs: two
    half pools would wait for each other's other half."""

    def __init__(self, have: Callable[[], Mapping[str, float]]):
        self._have = have
        self._freed = threading.Condition()
        self._reserved: dict[str, float] = {"CPU": 0.0, "GPU": 0.0}

    @contextmanager
    def reserve(self, workers: int, resources: Mapping[str, float]) -> Iterator[None]:
        """Reserve what so many workers of a node need (its `resources`); a node alone always gets it."""
        wanted = {"CPU": workers * resources.get("cpu", 1), "GPU": workers * resources.get("gpu", 0)}

        def fits() -> bool:
            have = self._have()
            return not any(self._reserved.values()) or all(
                self._reserved[name] + amount <= have.get(name, 0)
                for name, amount in wanted.items()
                if amount
            )

        with self._freed:
            self._freed.wait_for(fits)
            for name, amount in wanted.items():
                self._reserved[name] += amount
        try:
            yield
        finally:
            with self._freed:
                for name, amount in wanted.items():
                    self._reserved[name] -= amount
                self._freed.notify_all()


class RayExecutor:
    """Starts or joins Ray when the first node needs it; a run with nothing to do never pays for that."""

    def __init__(self, runtime: RuntimeConfig):
        self.runtime = runtime
        self._starting = threading.Lock()
        self._capacity = ClusterCapacity(cluster_resources)

    def start_ray(self) -> None:
        """Idempotent, from any node's thread."""
        address = self.runtime.ray or os.environ.get("RAY_ADDRESS") or "local"
        if address not in ("local", "auto"):
            ray_address.check_ray_reachable(address)
        set_auth_token(private=address == "local")
        quiet_ray()
        import ray

        with self._starting:
            if not ray.is_initialized():
                with hide_native_messages(), keep_signal_handlers():
                    self._join(address)
                    wait_for_cores()

    def _join(self, address: str) -> None:
        common: dict[str, Any] = {
            "log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True,
        }  # fmt: skip
        if snapshot.is_running_from_snapshot() and JOB_CONFIG_VARIABLE not in os.environ:
            common |= _worker_code(shipped=address != "local")
        if address == "local":  # a cluster somebody left running on this machine is not ours to use
            start_private_cluster(self.runtime, common)
        else:
            connect_to_ray_cluster(address, common)

    def check_resources(self, node: Node) -> None:
        """A request that no node of the cluster can meet would wait for ever."""
        import ray

        have = ray.cluster_resources()
        wanted = {"CPU": node.resources.get("cpu", 0), "GPU": node.resources.get("gpu", 0)}
        for name, amount in wanted.items():
            if amount > have.get(name, 0):
                raise RuntimeError(
                    f"{node.name} wants {amount:g} {name}, the cluster has {have.get(name, 0):g}; "
                    "change runtime settings or the cluster"
                )

    def max_workers(self, node: Node) -> int:
        """As many as the settings ask for, else one a core; at most as many as fit into the cluster."""
        import ray

        have = ray.cluster_resources()
        wanted = (("CPU", node.resources.get("cpu", 1)), ("GPU", node.resources.get("gpu", 0)))
        fit = min(int(have.get(name, 0) // amount) for name, amount in wanted if amount)
        asked = (
            self.runtime.pools.get(node.name)
            or self.runtime.pools.get(node.stage)
            or self.runtime.workers
            or int(have["CPU"])
        )
        return max(1, min(fit, asked))

    def build_packs(self, call: StageCall, jobs: Sequence[PackJob], store: Store) -> Iterator[PackResult]:
        self.start_ray()
        self.check_resources(call.node)
        size = min(self.max_workers(call.node), wanted_workers(call.node, len(jobs)))
        with self._capacity.reserve(size, call.node.resources):
            yield from run_pack_job(call, jobs, store, size)

    def kill_children(self) -> None:
        """Just before this process ends: take along what a private cluster would leave running. Its raylet
        and control store die with us by themselves, and this process with them if they went first; the
        raylet goes with its agents, so these come last."""
        import psutil

        others: list[psutil.Process] = []
        agents: list[psutil.Process] = []
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if (name := child.name()) not in ("raylet", "gcs_server"):
                    (agents if name.endswith("Agent") else others).append(child)
        for child in (*others, *agents):
            with suppress(psutil.NoSuchProcess):
                child.kill()


def connect_to_ray_cluster(address: str, options: Mapping[str, Any]) -> None:
    """ray.init at an address; UserError, with what Ray answered, where it cannot be joined."""
    import ray
    from ray._private.services import canonicalize_bootstrap_address
    from ray.exceptions import AuthenticationError

    try:
        if address == "auto":  # the cluster that Ray finds may be gone as well
            ray_address.check_ray_reachable(canonicalize_bootstrap_address(address) or address)
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        raise UserError(JOIN_ERROR.format(address=address, why=_one_line(error))) from error


def start_private_cluster(runtime: RuntimeConfig, options: Mapping[str, Any]) -> None:
    """ray.init of a cluster on this machine alone; UserError where the machine does not allow one."""
    import ray

    folder = ray_address.short_ray_folder()
    if folder is not None:
        sys.stdout.write(f"note: TMPDIR is too deep or closed for Ray's sockets; they are in {folder}\n")
    try:
        ray.init(
            address="local", num_cpus=runtime.cpus, include_dashboard=False, _temp_dir=folder,
            object_store_memory=runtime.object_store_mb * 2**20, **options,
        )  # fmt: skip
    except Exception as error:
        if not is_machine_error(error):
            raise
        why, logs = _one_line(error), folder or ray_address.default_ray_folder()
        raise UserError(RAY_START_ERROR_TEMPLATE.format(why=why, logs=logs)) from error
    if not is_private_cluster():
        raise RuntimeError(f"the private Ray is not at {LOOPBACK_ADDRESS} alone: ray was imported too early")


def is_machine_error(error: Exception) -> bool:
    """Whether Ray says with this error that it cannot start here: a class of its own, a fault of sockets,
    files or processes, a settings check of ray.init, or one of the bare ones that its node and service code
    raises. Any other is a fault of the code."""
    from ray.exceptions import RayError

    if isinstance(error, (RayError, OSError, TimeoutError)):
        return True
    if not isinstance(error, (RuntimeError, ValueError)) and type(error) is not Exception:
        return False
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = frame.tb_frame.f_globals.get("__name__", "") if frame is not None else ""
    return module.partition(".")[0] == "ray"


def _one_line(error: Exception) -> str:
    """Ray's messages run over several lines."""
    return " ".join(str(error).split())[:300]


def _worker_code(shipped: bool) -> dict[str, Any]:
    """Arguments of ray.init with which workers import the snapshot that this process runs from: on machines
    of a cluster a copy that Ray ships, else by PYTHONPATH as this process does. (Workers of a submitted job
    run the copy of the checkout that came with it.)
    """
    if shipped:
        return {"runtime_env": {"working_dir": str(snapshot.CODE_ROOT)}}
    from ray.job_config import JobConfig

    class FromPath(JobConfig):
        def _runtime_env_has_working_dir(self) -> bool:
            """Ray puts the current folder, often the checkout, in front of its workers' path unless so."""
            return True

    return {"job_config": FromPath()}


def cluster_resources() -> Mapping[str, float]:
    import ray

    return ray.cluster_resources()
