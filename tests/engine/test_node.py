"""Wiring that cannot work is refused when a node is added."""

import pytest

from pipelines.engine.node import Graph, Node, Read, UsedCheckpoints
from pipelines.errors import UserError


def listing(**more):
    return Node(name="listing", kind="whole", run="m:f", table=True, writes=("split", "pair"), **more)


@pytest.fixture
def graph():
    graph = Graph()
    graph.add(listing())
    graph.add(
        Node(name="clips", kind="keyed", run="m:f", units="listing", reads={"listing": Read("listing")},
             writes=("frames",))
    )  # fmt: skip
    return graph


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        (listing(), "added twice"),
        (Node(name="a", kind="whole", run="m:f", reads={"b": Read("b")}), "which is not there before it"),
        (
            Node(name="a", kind="whole", run="m:f", reads={"clips": Read("clips", ("sound",))}),
            r"reads \['sound'\] of 'clips', which has \['frames'\]",
        ),
        (
            Node(name="a", kind="whole", run="m:f",
                 uses={"net": UsedCheckpoints("m:load", {"weights": ("clips", "x")})}),
            "uses a file of 'clips', which publishes shards",
        ),
        (Node(name="a", kind="keyed", run="m:f", reads={"clips": Read("clips")}), "publishes no table"),
        (
            Node(name="a", kind="keyed", run="m:f", units="listing", reads={"c": Read("clips", by="pair")}),
            "reads nothing by its own unit",
        ),
        (
            Node(name="a", kind="keyed", run="m:f", units="listing",
                 reads={"listing": Read("listing"), "clips": Read("clips", by="clip")}),
            "reads by 'clip', no column of 'listing'",
        ),
    ],
)  # fmt: skip
def test_a_node_that_cannot_work_is_refused(graph, node, sentence):
    with pytest.raises(ValueError, match=sentence):
        graph.add(node)


def test_upstream_is_everything_a_node_depends_on(graph):
    graph.add(Node(name="page", kind="whole", run="m:f", reads={"clips": Read("clips")}))
    assert graph.upstream("page") == {"clips", "listing"}


def test_an_unknown_node_is_named_with_the_known_ones(graph):
    with pytest.raises(UserError, match="no node 'clip'; the nodes are listing, clips"):
        graph["clip"]
