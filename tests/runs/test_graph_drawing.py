"""The graph as text and as a drawing."""

from xml.etree import ElementTree

import pytest

from pipelines.runs import graph_drawing
from tests.test_graph import CODE_ROOT


@pytest.fixture(scope="module")
def demo():
    from pipelines.config import load_config
    from pipelines.graph import build_graph

    return build_graph(load_config(CODE_ROOT / "configs/run/demo.yaml", ()).config)


def test_every_node_has_a_line_after_all_that_it_reads(demo):
    names = [line.split()[0] for line in graph_drawing.graph_text(demo).splitlines()]
    assert sorted(names) == sorted(demo.nodes)
    assert all(names.index(up) < names.index(node.name) for node in demo for up in node.upstream)


def test_a_node_of_one_split_says_so(demo):
    lines = {line.split()[0]: line for line in graph_drawing.graph_text(demo).splitlines()}
    assert "keyed, per test recording " in lines["views.truth"]
    assert "keyed, per recording " in lines["clips"]


def test_a_node_stands_right_of_all_that_it_reads(demo):
    depth = graph_drawing.node_depths(demo)
    assert all(depth[up] < depth[node.name] for node in demo for up in node.upstream)
    assert depth["recordings"] == 0


def test_the_drawing_is_xml_with_a_box_for_each_node(demo):
    drawing = ElementTree.fromstring(graph_drawing.graph_svg(demo))
    boxes = drawing.findall("{http://www.w3.org/2000/svg}rect")
    assert len(boxes) == len(demo.nodes)
