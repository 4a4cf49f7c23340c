"""The graph for people: text for a terminal, SVG for a page, in columns by the longest way from the start."""

from __future__ import annotations

from html import escape

from pipelines.engine.node import Graph, Node, Read

BOX_HEIGHT, COLUMN_GAP, ROW_GAP, PAGE_MARGIN = 46, 60, 22, 20
MIN_BOX_WIDTH, LETTER_WIDTH = 170, 7.5
"""Of a box, at least, and of a letter of its name."""


def node_depths(graph: Graph) -> dict[str, int]:
    depth: dict[str, int] = {}
    for node in graph:
        depth[node.name] = 1 + max((depth[u] for u in node.upstream), default=-1)
    return depth


def graph_text(graph: Graph) -> str:
    """One line a node: indented by depth, with what it reads from whom and what it writes."""
    depth = node_depths(graph)
    names = {node.name: f"{'  ' * depth[node.name]}{node.name}" for node in graph}
    width, kinds = max(map(len, names.values())), {node.name: _kind(node) for node in graph}
    wide = max(map(len, kinds.values()))
    return "\n".join(
        f"{names[node.name]:<{width}}  {kinds[node.name]:<{wide}}  "
        f"{', '.join(map(_input, node.reads.values())) or 'outside data'}  ->  {', '.join(node.writes)}"
        for node in graph
    )


def _kind(node: Node) -> str:
    return f"keyed, per {_unit(node)}" if node.kind == "keyed" else "whole"


def _unit(node: Node) -> str:
    """One row of the table that lists the units: recordings -> recording, pairs.self -> pair; of some splits
    alone: test recording."""
    row = node.units.split(".")[0].removesuffix("s")
    return " ".join([*node.rows.get("split", ()), row])


def _input(read: Read) -> str:
    return f"{read.node}({', '.join(read.fields)})" if read.fields else read.node


def graph_svg(graph: Graph) -> str:
    """A self-contained drawing; arrows are curves from right to left edge."""
    wide = max(MIN_BOX_WIDTH, *(round(LETTER_WIDTH * len(name)) + 20 for name in graph.nodes))
    place, width, height = _places(graph, wide)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" '
        'font-family="system-ui,sans-serif" font-size="13">\n'
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="#8a94a6"/></marker></defs>'
    )
    arrows = [_arrow(place[upstream], place[node.name], wide) for node in graph for upstream in node.upstream]
    boxes = [_box(graph[name], wide, *at) for name, at in place.items()]
    return "\n".join([head, *arrows, *boxes, "</svg>\n"])


def _places(graph: Graph, wide: int) -> tuple[dict[str, tuple[float, float]], float, float]:
    """Top left corner of each box, and the size of the drawing."""
    columns: dict[int, list[str]] = {}
    for name, at in node_depths(graph).items():
        columns.setdefault(at, []).append(name)
    step_x, step_y = wide + COLUMN_GAP, BOX_HEIGHT + ROW_GAP
    rows = max(len(column) for column in columns.values())
    place: dict[str, tuple[float, float]] = {
        name: (PAGE_MARGIN + at * step_x, PAGE_MARGIN + (i + (rows - len(column)) / 2) * step_y)
        for at, column in columns.items()
        for i, name in enumerate(column)
    }
    return (
        place,
        2 * PAGE_MARGIN + len(columns) * step_x - COLUMN_GAP,
        2 * PAGE_MARGIN + rows * step_y - ROW_GAP,
    )


def _arrow(source: tuple[float, float], target: tuple[float, float], wide: int) -> str:
    x0, y0 = source[0] + wide, source[1] + BOX_HEIGHT / 2
    x1, y1 = target[0] - 2, target[1] + BOX_HEIGHT / 2
    bend = (target[0] - x0) / 2
    curve = f"M{x0:g} {y0:g}C{x0 + bend:g} {y0:g} {x1 - bend:g} {y1:g} {x1:g} {y1:g}"
    return f'<path d="{curve}" fill="none" stroke="#8a94a6" marker-end="url(#a)"/>'


def _box(node: Node, wide: int, x: float, y: float) -> str:
    keyed = node.kind == "keyed"
    fill, stroke = ("#e7f1ec", "#4c8f6d") if keyed else ("#eaeef7", "#5470a8")
    kind = f"per {_unit(node)}" if keyed else "whole"
    label = f'<text x="{x + wide / 2:g}" text-anchor="middle"'
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{wide}" height="{BOX_HEIGHT}" '
        f'rx="8" fill="{fill}" stroke="{stroke}"/>'
        f'{label} y="{y + 20:g}" fill="#1d2433">{escape(node.name)}</text>'
        f'{label} y="{y + 36:g}" fill="#5c6678" font-size="10">{kind}</text>'
    )
