"""The same toy graph on a real, private Ray: same bytes, and a unit that kills its worker stops nothing."""

import contextlib
import ipaddress
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest

from models.errors import InvalidSettings
from pipelines.cluster import pack_job, tasks
from pipelines.cluster.executor import ClusterCapacity, RayExecutor, start_private_cluster
from pipelines.cluster.pack_job import kept_worker
from pipelines.cluster.pack_worker import ONE_THREAD_ENVIRONMENT
from pipelines.cluster.start import set_auth_token
from pipelines.cluster.tasks import run_in_worker
from pipelines.engine.node import Node
from pipelines.engine.packs import StageCall
from pipelines.engine.runner import Runner, RunOutcome
from pipelines.errors import CodeError, UserError, format_traceback
from pipelines.runs.run import describe_failures
from storage.files import Store

set_auth_token(private=True)
import ray  # noqa: E402 - reads that environment once, when it is imported

RUNTIME = SimpleNamespace(ray="", cpus=2, object_store_mb=100, workers=None, pools={})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One Ray for this file, and the folder in which its workers look for toy projects."""
    packages = tmp_path_factory.mktemp("packages")
    on_ray = RayExecutor(RUNTIME)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", f"{packages}{os.pathsep}{os.getcwd()}")
        on_ray.start_ray()
    yield on_ray, packages
    ray.shutdown()


@pytest.fixture(params=["pools", "tasks"])
def workers(request, monkeypatch):
    """What packs are built in: the toy nodes have no nets, and would have tasks."""
    monkeypatch.setattr(pack_job, "needs_pool", lambda *_: request.param == "pools")
    return request.param


@pytest.fixture
def run_on_ray(cluster):
    on_ray, packages = cluster

    def run(project, *nodes):
        """These nodes of the toy graph, by default all: each keyed node starts workers of its own."""
        (packages / project.package).symlink_to(project.folder)
        return Runner(project.planner(), on_ray, "run").run(set(nodes) or None)

    return run


def test_ray_and_one_process_publish_the_same_bytes(project, run_on_ray, workers):
    nodes = ["listing", "double"] if workers == "pools" else []  # each keyed node starts a pool of its own
    assert not run_on_ray(project, *nodes).failed
    on_ray = project.bytes()
    assert on_ray
    for top in ("packs", "manifests", "whole", "keys"):
        project.store.delete_tree(top)
    project.run(*nodes)
    assert project.bytes() == on_ray


@pytest.mark.usefixtures("workers")
def test_a_unit_that_kills_its_worker_is_rejected_after_two_tries_and_the_run_ends(project, run_on_ray):
    project.values({k: i for i, k in enumerate("abcdef")})
    guard = '    if row["value"] < 0:'
    project.edit("nodes", guard, f'    if row["value"] == 3:\n        import os; os._exit(9)\n{guard}')
    outcome = run_on_ray(project, "listing", "double")
    assert not outcome.failed
    rows = {r.unit: r for r in outcome.plans["double"].artifact.manifest()}
    assert (rows["d"].status, rows["d"].code) == ("rejected", "crashed")
    assert project.did().count("double d") == 2
    assert {u for u, r in rows.items() if r.status == "ok"} == set("abcef")


@pytest.mark.usefixtures("workers")
def test_broken_code_on_ray_names_the_unit_and_ends_the_run(project, run_on_ray):
    project.values({"a": 1, "b": 666})
    failed = run_on_ray(project, "listing", "double").failed
    told = "\n".join("".join(traceback.format_exception(e)) for e in failed.values())
    (error,) = failed.values()
    assert isinstance(error, CodeError), told
    assert "double: unit b: KeyError: 'a bug'" in str(error)


def test_a_private_ray_listens_on_the_loopback_address_alone(cluster):
    import psutil

    ray.get(ray.remote(lambda: None).remote())  # a worker is there, and by then the agents are
    me, found = psutil.Process(), set()
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # an idle worker that has just ended
            listening = [c for c in process.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
            found |= {(process.name(), connection.laddr.ip) for connection in listening}
    assert {"gcs_server", "raylet"} <= {name for name, _ in found}
    assert not [one for one in found if one[1].removeprefix("::ffff:") not in ("127.0.0.1", "::1")]


def _listening(config):
    """A training loop: what two workers agree on, and where this one listens meanwhile."""
    import psutil
    import torch
    from torch import distributed

    one = torch.ones(1)
    distributed.all_reduce(one)
    listening = [
        c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN
    ]
    distributed.barrier()
    path = f"{config['folder']}/{distributed.get_rank()}.json"
    with open(path, "w") as file:
        json.dump([one.item(), listening], file)


@pytest.mark.slow
def test_training_workers_of_one_machine_meet_without_a_port_that_others_reach(
    cluster, tmp_path, monkeypatch
):
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from pipelines.train.process_group import SingleMachineTorchConfig

    TorchTrainer(
        _listening,
        train_loop_config={"folder": str(tmp_path)},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(storage_path=str(tmp_path / "ray")),
        torch_config=SingleMachineTorchConfig(backend="gloo"),
    ).fit()
    for rank in (0, 1):
        total, listening = json.loads((tmp_path / f"{rank}.json").read_text())
        assert total == 2
        assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


JOIN = """
import os, sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
    print("ran", ray.get(ray.remote(lambda: 6 * 7).remote()))
except ConnectionError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("given", "end"),
    [
        ({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}, "Failed to connect to Ray cluster"),
        ({"RAY_AUTH_TOKEN": "0" * 64}, "Failed to connect to Ray cluster"),
        ({}, "ran 42"),
    ],
)
def test_who_has_not_the_token_of_a_private_ray_cannot_join_it(cluster, given, end):
    address = ray.get_runtime_context().gcs_address
    env = os.environ | {"RAY_NUM_REDIS_GET_RETRIES": "1"} | given  # as it is named still: tries of the store
    done = subprocess.run(
        [sys.executable, "-c", JOIN, address],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert end in done.stdout, done.stdout + done.stderr


def test_a_private_ray_is_not_reached_by_the_machines_other_addresses(cluster):
    import psutil

    port = int(ray.get_runtime_context().gcs_address.rpartition(":")[2])
    others = {
        one.address
        for addresses in psutil.net_if_addrs().values()
        for one in addresses
        if one.family == socket.AF_INET and not ipaddress.ip_address(one.address).is_loopback
    }
    if not others:
        pytest.skip("this machine has no address but the loopback one")
    for address in others:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, port), timeout=5)


def test_a_pool_is_as_large_as_its_own_setting_says(monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16.0})
    nodes = [Node(name=name, kind="keyed", run="a:b", resources={"cpu": 2}) for name in ("a", "b", "c")]
    on_ray = RayExecutor(SimpleNamespace(workers=3, pools={"a": 5, "b": 99}))
    assert [on_ray.max_workers(node) for node in nodes] == [5, 8, 3]


def test_workers_that_mostly_wait_outnumber_the_cores_only_if_asked(monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    node = Node(name="download", kind="keyed", run="a:b", resources={"cpu": 0.25})
    sizes = [RayExecutor(SimpleNamespace(workers=None, pools=pools)).max_workers(node)
             for pools in ({}, {"download": 4}, {"download": 99})]  # fmt: skip
    assert sizes == [2, 4, 8]


def test_nodes_share_the_gpus_of_a_cluster_as_they_share_its_cores():
    capacity = ClusterCapacity(lambda: {"CPU": 16.0, "GPU": 1.0})
    began = threading.Event()

    def second():
        with capacity.reserve(1, {"cpu": 1, "gpu": 1}):
            began.set()

    with capacity.reserve(1, {"cpu": 1, "gpu": 1}):
        thread = threading.Thread(target=second, daemon=True)
        thread.start()
        assert not began.wait(0.2)  # 15 cores are free, the GPU is not
        with capacity.reserve(4, {"cpu": 2}):
            pass
    assert began.wait(5)


@pytest.mark.usefixtures("cluster")
def test_a_fault_in_a_task_says_where_the_code_failed_and_not_what_ray_calls_it():
    def evaluate(clips):
        return evaluate_clip(clips[3])

    def evaluate_clip(clip):
        return clip

    with pytest.raises(CodeError) as failed:
        run_in_worker(evaluate, [1, 2])
    assert str(failed.value) == "IndexError: list index out of range"
    trace = format_traceback(failed.value)
    assert "in evaluate\n" in trace
    assert trace.endswith("IndexError: list index out of range")
    assert "ray" not in trace.replace(str(Path(tasks.__file__)), "").lower()
    lines = list(describe_failures(RunOutcome(failed={"eval.fsrt": failed.value})))
    assert lines == ["\neval.fsrt failed: IndexError: list index out of range", f"\n{trace}\n"]


@pytest.mark.usefixtures("cluster")
def test_a_users_mistake_in_a_task_stays_one_line():
    def evaluate():
        raise InvalidSettings("eval.sources 2: expected 1")

    with pytest.raises(InvalidSettings) as failed:
        run_in_worker(evaluate)
    outcome = RunOutcome(failed={"eval.fsrt": failed.value})
    assert list(describe_failures(outcome)) == ["\neval.fsrt failed: eval.sources 2: expected 1"]
    assert outcome.exit_code == 2


@pytest.mark.usefixtures("cluster")
def test_tasks_of_a_node_find_the_nets_that_an_earlier_one_loaded_in_their_process(tmp_path):
    node = Node(name="generate.codec.self", kind="keyed", run="pipelines.eval.generate:codec")
    one, again = (pickle.dumps((StageCall(node, None, None), Store(str(tmp_path)))) for _ in range(2))
    other = pickle.dumps((StageCall(node, {"size": 64}, None), Store(str(tmp_path))))
    assert kept_worker(one) is kept_worker(again)
    assert kept_worker(one) is not kept_worker(other)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_a_worker_is_born_with_one_thread_for_each_library(project, run_on_ray):
    """Set later, it comes after Ray's own imports, numpy among them."""
    project.edit("nodes", 'log("double", row["id"])', 'log("double", born())')
    project.edit("nodes", "OFFSET = 0", '''OFFSET = 0


def born():
    """The environment that this process began with."""
    begin = dict(one.partition("=")[::2] for one in Path("/proc/self/environ").read_text().split("\\0"))
    return [begin.get(name) for name in NAMES]
'''.replace("NAMES", repr(sorted(ONE_THREAD_ENVIRONMENT))))  # fmt: skip
    assert not run_on_ray(project, "listing", "double").failed
    assert {line for line in project.did() if line.startswith("double")} == {f"double {['1'] * 4}"}


@pytest.mark.parametrize(
    "error",
    [OSError("AF_UNIX path too long"), ray.exceptions.RaySystemError("no room in /dev/shm")],
    ids=["sockets", "ray"],
)
def test_a_machine_on_which_ray_cannot_start_is_one_line(error, monkeypatch):
    with pytest.raises(UserError, match="Ray cannot start on this machine: "):
        start_with(error, monkeypatch)


@pytest.mark.parametrize("error", [TypeError("got an unexpected keyword"), ValueError("ours"), KeyError("x")])
def test_a_fault_of_ours_at_the_start_of_ray_stays_a_fault(error, monkeypatch):
    with pytest.raises(type(error)) as raised:
        start_with(error, monkeypatch)
    assert raised.value is error


def start_with(error, monkeypatch):
    """Start a private Ray whose own start raises this."""

    def init(**_options):
        raise error

    monkeypatch.setattr(ray, "init", init)
    start_private_cluster(RUNTIME, {})
