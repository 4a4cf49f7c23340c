import pytest

from pipelines.cluster.pack_tasks import needs_pool, wanted_workers
from pipelines.engine.node import Node, Use


def node(**settings):
    return Node(name="copy", kind="keyed", run="a:b", **settings)


@pytest.mark.parametrize(("light", "workers"), [(False, [1, 4, 5]), (True, [1, 1, 2])])
def test_a_worker_of_a_light_node_takes_several_packs(light, workers):
    assert [wanted_workers(node(light=light), packs) for packs in (1, 4, 5)] == workers


def test_only_nodes_that_load_heavy_nets_or_checkpoints_keep_their_workers():
    uses = {"model": Use("a:load", {"renderer": ("train", "model.safetensors")})}
    assert needs_pool(node(nets=("fan",)))
    assert needs_pool(node(uses=uses))
    assert not needs_pool(node())
    assert not needs_pool(node(nets=("dlib68",), light=True))
