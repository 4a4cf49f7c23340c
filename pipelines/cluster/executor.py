"""Where work runs: packs as a Ray Data job whose actors hold the nets, heavy functions as Ray tasks.

The only importer of ray.data. Stages stay plain functions; a row of the dataset is one pack.
"""

from __future__ import annotations

import logging
import os
import pickle
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from pipelines.cluster import ray_address
from pipelines.engine.node import Node
from pipelines.engine.packs import PackJob, PackResult, StageCall, take_pack
from pipelines.errors import Transient, UserError, first_line, placed, portable
from pipelines.nets import load_nets
from pipelines.runs import snapshot
from storage.files import Store

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray where a submitted job runs."""
PATIENCE = 30.0
"""Seconds that a cluster may take to tell of its cores."""
LOOPBACK = "127.0.0.1"
NO_ENTRY = (
    "cannot join Ray at {address}: {why}. Is it up, and is its token here (RAY_AUTH_TOKEN_PATH, "
    "RAY_AUTH_TOKEN or ~/.ray/auth_token)? One without tokens is joined with RAY_AUTH_MODE=disabled only"
)

NO_START = (
    "Ray cannot start on this machine: {why}. Its logs are in {logs}/session_latest/logs; see to memory, "
    "/dev/shm, open files (ulimit -n) and runtime.object_store_mb"
)


class RayMachines:
    """The nodes of the Ray cluster, asked from a worker. A node that comes back has another id."""

    def __init__(self) -> None:
        import ray

        self.here = ray.get_runtime_context().get_node_id()

    def alive(self, machine: str) -> bool:
        import ray

        return any(node["NodeID"] == machine and node["Alive"] for node in ray.nodes())


class PackWorker:
    """A Ray Data actor: nets loaded once, then one pack a call."""

    def __init__(self, call: StageCall, store: Store):
        self.store, self.machines = store, RayMachines()
        self.broken: Exception | None = None
        try:
            self.run = call.bind(load_nets(call.node.nets, store) | call.load_used())
        except Exception as error:  # noqa: BLE001 - raised in the driver, as those of `build`
            self.broken = placed(error, call.node.name)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[bytes]]:
        jobs: list[PackJob] = [pickle.loads(data) for data in batch["job"]]
        return {"result": [pickle.dumps(self.build(job)) for job in jobs]}

    def build(self, job: PackJob) -> PackResult | Exception:
        """Errors travel as results: one that Ray Data raises keeps the pool and its cores alive."""
        try:
            return self.broken or take_pack(job, self.run, self.store, self.machines)
        except Exception as error:  # noqa: BLE001 - raised in the driver
            return portable(error)


ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
"""A worker is one core; libraries that start a thread a core would fight over them. Given by Ray's
runtime_env: what a worker sets itself comes after Ray's own imports, and numpy has its threads by then."""


class Room:
    """Nodes run side by side as far as the cluster holds their whole pools, on cores and on GPUs: two half
    pools would wait for each other's other half."""

    def __init__(self, have: Callable[[], Mapping[str, float]]):
        self._have = have
        self._freed = threading.Condition()
        self._taken: dict[str, float] = {"CPU": 0.0, "GPU": 0.0}

    @contextmanager
    def of(self, workers: int, resources: Mapping[str, float]) -> Iterator[None]:
        """Hold what so many workers of a node need (its `resources`); alone, a node always has room."""
        wanted = {"CPU": workers * resources.get("cpu", 1), "GPU": workers * resources.get("gpu", 0)}

        def fits() -> bool:
            have = self._have()
            return not any(self._taken.values()) or all(
                self._taken[name] + amount <= have.get(name, 0) for name, amount in wanted.items() if amount
            )

        with self._freed:
            self._freed.wait_for(fits)
            for name, amount in wanted.items():
                self._taken[name] += amount
        try:
            yield
        finally:
            with self._freed:
                for name, amount in wanted.items():
                    self._taken[name] -= amount
                self._freed.notify_all()


class RayExecutor:
    """Starts or joins Ray when the first node needs it; a run with nothing to do never pays for that."""

    def __init__(self, runtime: Any):
        self.runtime = runtime
        self._starting = threading.Lock()
        self._room = Room(cluster_resources)

    def start(self) -> None:
        """Idempotent, from any node's thread."""
        address = self.runtime.ray or os.environ.get("RAY_ADDRESS") or "local"
        if address not in ("local", "auto"):
            ray_address.check(address)
        closed_environment(private=address == "local")
        quiet_environment()
        import ray

        with self._starting:
            if not ray.is_initialized():
                with native_messages_hidden(), signals_kept():
                    self._join(ray, address)
                    await_cores(ray)

    def _join(self, ray: Any, address: str) -> None:
        common: Any = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
        if snapshot.inside() and JOB not in os.environ:
            common |= _same_code(shipped=address != "local")
        if address != "local":
            try:
                if address == "auto":  # what Ray takes that for may be gone as well
                    ray_address.check(ray._private.services.canonicalize_bootstrap_address(address))
                ray.init(address=address, **common)
            except (ConnectionError, RuntimeError, ValueError, ray.exceptions.AuthenticationError) as error:
                why = " ".join(str(error).split())[:300]  # of another version: over several lines
                raise UserError(NO_ENTRY.format(address=address, why=why)) from error
        else:  # a cluster somebody left running on this machine is not ours to use
            folder = ray_address.folder_of_sockets()
            if folder is not None:
                sys.stdout.write(f"note: TMPDIR is no place for Ray's sockets; they are in {folder}\n")
            try:
                ray.init(
                    address=address, num_cpus=self.runtime.cpus, include_dashboard=False, _temp_dir=folder,
                    object_store_memory=self.runtime.object_store_mb * 2**20, **common,
                )  # fmt: skip
            except Exception as error:  # Ray raises bare ones for a machine on which it cannot start
                why = " ".join(str(error).split())[:300]
                raise UserError(
                    NO_START.format(why=why, logs=folder or ray_address.usual_folder())
                ) from error
            if not is_private():
                raise RuntimeError(f"the private Ray is not at {LOOPBACK} alone: ray was imported too early")

    def check(self, node: Node) -> None:
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

    def most_workers(self, node: Node) -> int:
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

    def build(self, call: StageCall, jobs: Sequence[PackJob], store: Store) -> Iterator[PackResult]:
        self.start()
        self.check(call.node)
        size = min(self.most_workers(call.node), len(jobs))
        with self._room.of(size, call.node.resources):
            yield from self._stream(call, jobs, store, size)

    def _stream(
        self, call: StageCall, jobs: Sequence[PackJob], store: Store, size: int
    ) -> Iterator[PackResult]:
        import ray.data

        node = call.node
        # Of many packs, each worker has the next one waiting: none idles until the driver has sent it.
        ahead = 2 if len(jobs) >= 4 * size else 1
        rows = [{"job": pickle.dumps(job)} for job in jobs]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            PackWorker,  # pyright: ignore[reportArgumentType]
            batch_size=1,
            # Of a fixed size: Ray Data grows a pool only above 1.75 packs in flight a worker, and late.
            compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=ahead),
            num_cpus=node.resources.get("cpu", 1),
            num_gpus=node.resources.get("gpu", 0),
            runtime_env={"env_vars": ONE_THREAD},
            fn_constructor_args=(call, store),
        )
        failed: Exception | None = None
        try:
            for row in dataset.iter_rows():
                result = pickle.loads(row["result"])
                if isinstance(result, Exception):
                    failed = result
                    break
                yield result
        finally:
            # Also of a stream that is left early: its actors hold the cores that other nodes wait for.
            if (running := dataset._current_executor) is not None:
                stop(running, failed)
        if failed is not None:
            raise failed

    def abandon(self) -> None:
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


def _same_code(shipped: bool) -> dict[str, Any]:
    """Arguments of ray.init with which workers import the snapshot that this process runs from: on machines
    of a cluster a copy that Ray ships, else by PYTHONPATH as this process does. (Workers of a submitted job
    run the copy of the checkout that came with it.)
    """
    if shipped:
        return {"runtime_env": {"working_dir": str(snapshot.ROOT)}}
    from ray.job_config import JobConfig

    class FromPath(JobConfig):
        def _runtime_env_has_working_dir(self) -> bool:
            """Ray puts the current folder, often the checkout, in front of its workers' path unless so."""
            return True

    return {"job_config": FromPath()}


def cluster_resources() -> Mapping[str, float]:
    import ray

    return ray.cluster_resources()


def await_cores(ray: Any) -> None:
    """A cluster that has just started tells of its resources a moment later, on a busy machine seconds."""
    until = time.monotonic() + PATIENCE
    while not ray.cluster_resources().get("CPU") and time.monotonic() < until:
        time.sleep(0.1)


def stop(running: Any, failed: Exception | None) -> None:
    """End a Ray Data execution at once. On a busy machine its own loop may still turn while it is taken down,
    and either trip over the other; that must not hide why the stream ended.
    """
    try:
        running.shutdown(force=True)
    except Exception as trouble:
        if failed is None:
            raise
        failed.add_note(f"Ray Data, when it was stopped: {trouble!r}")


def closed_environment(private: bool) -> None:
    """Set before ray is imported: who reaches a port of Ray runs code as its user, so calls carry a token.

    A cluster's token is the user's (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token); to go without
    takes an explicit RAY_AUTH_MODE=disabled. A private Ray always has one, made for this run and kept in its
    environment, and is reached from this machine alone.
    """
    if not private:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        return
    os.environ["RAY_AUTH_MODE"] = "token"
    if not os.environ.get("RAY_AUTH_TOKEN") and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # How Ray keeps to the loopback address, as it does on macOS and Windows; an address handed to ray.init
    # would be replaced by the machine's own.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):  # where training workers listen for each other
        os.environ[name] = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


def is_private() -> bool:
    """Whether the Ray in use is of this machine alone, and reached from nowhere else."""
    import ray

    return ray.util.get_node_ip_address() == LOOPBACK


def quiet_environment() -> None:
    """Set before ray is imported: no usage reports, no bars of its own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # or a thread that outlives shutdown starts another cluster
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # each pool of Ray Data trips a warning of core
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    context.execution_options.verbose_progress = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what goes wrong comes as an exception


@contextmanager
def signals_kept() -> Iterator[None]:
    """Ray answers SIGTERM with a native stack trace and its own exit; how a run ends is ours to say."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def native_messages_hidden() -> Iterator[None]:
    """Ray's C++ part greets on the file descriptor itself; its failures come as exceptions all the same."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def in_worker(
    function: Callable[..., Any], *args: Any, resources: Mapping[str, float] | None = None, **kwargs: Any
) -> Any:
    """Call a function in a Ray task with these resources (cpu, gpu), or here when Ray is not running."""
    if "ray" not in sys.modules:
        return function(*args, **kwargs)
    import ray
    import ray.exceptions

    if not ray.is_initialized():
        return function(*args, **kwargs)
    wanted = resources or {}
    task = ray.remote(num_cpus=wanted.get("cpu", 1), num_gpus=wanted.get("gpu", 0), max_retries=1)(_call)
    try:
        value, error = ray.get(task.remote(function, args, kwargs))
    except (ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError) as lost:
        raise Transient(f"its worker was lost, run again: {first_line(lost)}", soon=False) from lost
    if error is not None:
        raise error
    return value


def _call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, Exception | None]:
    """An error travels as a result: one that Ray raises is hidden behind Ray's own words."""
    try:
        return function(*args, **kwargs), None
    except Exception as error:  # noqa: BLE001 - raised in the driver
        return None, portable(error)
