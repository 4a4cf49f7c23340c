"""What a pipeline is made of: nodes, the graph that checks their wiring, and what their functions receive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pipelines.errors import UserError

Sample = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A box of the DAG. Code is named as text ("module:function"), so that planning imports none of it."""

    name: str
    kind: Literal["whole", "keyed"]
    run: str
    """whole: run(context) -> None. keyed: run(inputs, config, nets) -> list of samples, for one unit."""
    reads: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Upstream node -> the fields read from it."""
    writes: Sequence[str] = ()
    logs: Sequence[str] = ()
    """whole: files published beside the result that are not part of its content digest, since they tell how
    it came about."""
    config: Sequence[str] = ()
    """Dotted config paths: the key holds their values, and the function can read no others."""
    pack: Literal["unit", "bucket"] = "bucket"
    inputs: str | None = None
    """"module:function" of (config view) -> {name: digest} for data outside the store; planning calls it."""
    weights: Sequence[str] = ()
    lacking: Literal["refuse", "say"] = "refuse"
    """Where weights are missing: refuse to run, before any node does; or run, and say what is left out."""
    check: str | None = None
    """"module:function" of (config, node name): called before any node runs, if this one will; raises
    UserError or InvalidSettings for settings that cannot work."""
    tools: Sequence[str] = ()
    packages: Sequence[str] = ()
    nets: Sequence[str] = ()
    """Perception nets by name: loaded once in each worker and handed to the (keyed) function."""
    code: Sequence[str] = ()
    """Further "module:symbol" entries that the function finds by name (a model, a codec)."""
    extend: str | None = None
    """Config path of a step budget that may grow without making the node stale."""
    table: bool = False
    """whole: it publishes a table of units, `<node>.parquet` with the columns id and bucket."""
    stops: bool = False
    """whole: its function looks at `Context.cancelled` and ends soon at a safe point, so an interrupted run
    waits for it."""
    eager: bool = False
    """Cheap enough for planning to run it (nothing is published), so that the plan is exact behind it."""
    exclusive: bool = False
    """Hold a lease while running, so that two drivers do not do the same long work."""
    resources: Mapping[str, float] = field(default_factory=lambda: {"cpu": 1})


class Graph:
    """Nodes in topological order. `add` checks each node against what its upstreams write."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}

    def add(self, node: Node) -> Node:
        if node.name in self.nodes:
            raise ValueError(f"node {node.name!r} is added twice")
        for upstream, fields in node.reads.items():
            if upstream not in self.nodes:
                raise ValueError(f"node {node.name!r} reads {upstream!r}, which is not there before it")
            written = sorted(self.nodes[upstream].writes)
            if missing := sorted(set(fields) - set(written)):
                raise ValueError(f"node {node.name!r} reads {missing} of {upstream!r}, which has {written}")
        if node.kind == "keyed" and not any(self._has_units(upstream) for upstream in node.reads):
            raise ValueError(
                f"keyed node {node.name!r} reads {sorted(node.reads) or 'nothing'}, none of which has units; "
                "let it read a keyed node, or a whole one that publishes a table of units (table=True)"
            )
        self.nodes[node.name] = node
        return node

    def _has_units(self, name: str) -> bool:
        return self.nodes[name].kind == "keyed" or self.nodes[name].table

    def __getitem__(self, name: str) -> Node:
        if name not in self.nodes:
            raise UserError(f"no node {name!r}; the nodes are {', '.join(self.nodes)}")
        return self.nodes[name]

    def __iter__(self):
        return iter(self.nodes.values())

    def upstream(self, name: str) -> set[str]:
        """Every node that `name` depends on, itself left out."""
        found: set[str] = set()
        stack = [*self[name].reads]
        while stack:
            one = stack.pop()
            if one not in found:
                found.add(one)
                stack += self.nodes[one].reads
        return found

    def downstream(self, name: str) -> set[str]:
        """Every node that depends on `name`, itself left out."""
        return {node.name for node in self if name in self.upstream(node.name)}


class Context(Protocol):
    """What a whole node's function receives."""

    node: str
    key: str
    config: Any
    """A view of the declared config paths and of `runtime`; any other read raises UndeclaredConfig."""
    inputs: Mapping[str, Any]
    """Upstream node -> storage.artifacts.Artifact (files of whole nodes, family of keyed ones)."""
    out: Path
    """An empty local folder: files written here are published as the artifact when the function returns."""
    scratch: str
    """URI of a folder that survives a crash and belongs to this key: a rerun finds it again."""
    previous: Any | None
    """An extendable node's artifact with fewer steps under the same key, to continue from; else None."""
    resources: Mapping[str, float]
    """What the node asks of a worker: cpu, gpu."""
    cancelled: Callable[[], bool]
    """True once the run is being interrupted: stop at the next safe point."""

    def work_apart(self, name: str) -> None:
        """Have `scratch` name a folder within it from now on, and spare the rest when this node is done."""
        ...

    def progress(self, done: int, total: int, note: str = "") -> None: ...

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Figures for this node's MLflow run; `step` None = a final figure, also put on the parent run."""
        ...

    def params(self, values: Mapping[str, Any]) -> None:
        """Facts for this node's MLflow run: net names, whether weights are random, distilled or released."""
        ...
