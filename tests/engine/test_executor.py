"""The same toy graph on a real, private Ray: same bytes, and a unit that kills its worker stops nothing."""

import os
import traceback
from types import SimpleNamespace

import pytest
import ray

from pipelines.engine.node import Node
from pipelines.engine.packs import CodeError
from pipelines.engine.runner import Cancelled, Runner
from pipelines.executor import RayExecutor

RUNTIME = SimpleNamespace(ray="", cpus=2, object_store_mb=100, workers=None, pools={})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One Ray for this file, and the folder in which its workers look for toy projects."""
    packages = tmp_path_factory.mktemp("packages")
    executor = RayExecutor(RUNTIME)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", f"{packages}{os.pathsep}{os.getcwd()}")
        executor.start()
    yield executor, packages
    ray.shutdown()


@pytest.fixture
def run_on_ray(cluster):
    executor, packages = cluster

    def run(project):
        (packages / project.package).symlink_to(project.folder)
        return Runner(project.planner(), executor, "run").run()

    return run


def test_ray_and_one_process_publish_the_same_bytes(project, run_on_ray):
    assert not run_on_ray(project).failed
    on_ray = project.bytes()
    for top in ("packs", "manifests", "whole", "keys"):
        project.store.delete_tree(top)
    project.run()
    assert project.bytes() == on_ray


def test_a_unit_that_kills_its_worker_is_rejected_after_two_tries_and_the_run_ends(project, run_on_ray):
    project.values({k: i for i, k in enumerate("abcdef")})
    guard = '    if row["value"] < 0:'
    project.edit("nodes", guard, f'    if row["value"] == 3:\n        import os; os._exit(9)\n{guard}')
    outcome = run_on_ray(project)
    assert not outcome.failed
    rows = {r.unit: r for r in outcome.plans["double"].artifact.manifest()}
    assert (rows["d"].status, rows["d"].code) == ("rejected", "crashed")
    assert project.did().count("double d") == 2
    assert {u for u, r in rows.items() if r.status == "ok"} == set("abcef")


def test_broken_code_on_ray_names_the_unit_and_ends_the_run(project, run_on_ray):
    project.values({"a": 1, "b": 666})
    failed = run_on_ray(project).failed
    told = "\n".join("".join(traceback.format_exception(e)) for e in failed.values())
    # a node beside the broken one, under way when it failed, is cancelled
    (error,) = (e for e in failed.values() if not isinstance(e, Cancelled))
    assert isinstance(error, CodeError), told
    assert "double: unit b: KeyError: 'a bug'" in str(error)


def test_a_pool_is_as_large_as_its_own_setting_says(monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16.0})
    nodes = [Node(name=name, kind="keyed", run="a:b", resources={"cpu": 2}) for name in ("a", "b", "c")]
    executor = RayExecutor(SimpleNamespace(workers=3, pools={"a": 5, "b": 99}))
    assert [executor.most_workers(node) for node in nodes] == [5, 8, 3]


def test_workers_that_mostly_wait_outnumber_the_cores_only_if_asked(monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    node = Node(name="download", kind="keyed", run="a:b", resources={"cpu": 0.25})
    sizes = [RayExecutor(SimpleNamespace(workers=None, pools=pools)).most_workers(node)
             for pools in ({}, {"download": 4}, {"download": 99})]  # fmt: skip
    assert sizes == [2, 4, 8]
