import pytest

from pipelines.cluster.pack_job import needs_pool, wanted_workers
from pipelines.engine.node import Node, UsedCheckpoints

USE = UsedCheckpoints("a:load", {"renderer": ("train", "model.safetensors")})


def node(**settings):
    return Node(name="copy", kind="keyed", run="a:b", **settings)


@pytest.mark.parametrize(("light", "workers"), [(False, [1, 4, 5]), (True, [1, 1, 2])])
def test_a_worker_of_a_light_node_takes_several_packs(light, workers):
    assert [wanted_workers(node(light=light), packs) for packs in (1, 4, 5)] == workers


@pytest.mark.parametrize("heavy", [{"nets": ("fan",)}, {"uses": {"model": USE}}])
def test_only_many_packs_of_a_node_with_nets_or_checkpoints_start_a_pool(heavy):
    assert needs_pool(node(**heavy), packs=16, size=2)
    assert not needs_pool(node(**heavy), packs=15, size=2)
    assert not needs_pool(node(), packs=16, size=2)
    assert not needs_pool(node(nets=("dlib68",), light=True), packs=16, size=2)


def test_nets_on_a_gpu_are_held_by_a_pool_however_few_the_packs():
    assert needs_pool(node(nets=("fan",), resources={"cpu": 1, "gpu": 0.5}), packs=1, size=1)
