"""What a pipeline is made of: nodes, the graph that checks their wiring, and what their functions receive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from msgspec import Struct, field
from msgspec.structs import force_setattr

from pipelines.errors import UserError
from storage.shards import Sample

if TYPE_CHECKING:
    from storage.files import Store

Inputs = Mapping[str, Sequence[Sample]]
"""What a keyed stage sees: by role, [the row] of a table, or the samples of a unit (engine/packs.py)."""


class Read(Struct, frozen=True):
    """What a node reads of another."""

    node: str
    fields: tuple[str, ...] = ()
    by: str = ""
    """Keyed nodes: the column of the reader's unit row that names the units to read, one id or a list of ids,
    where the two have different units (a pair reads the recordings of its source and driving clip). Empty =
    the reader's own unit."""


class UsedCheckpoints(Struct, frozen=True):
    """Files of whole nodes, loaded once in each worker: a checkpoint that a later node computes with. The
    digest of each file is part of the user's key."""

    loader: str
    """"module:function" of ({role: local Path}) -> object."""
    files: Mapping[str, tuple[str, str]]
    """Role, as the loader knows it -> (node, name of a file that it publishes)."""
    without_file: str = ""
    """What it means, and what to do, where a node has published no such file; for people."""


class Node(Struct, frozen=True, kw_only=True):
    """A box of the DAG. Code is named as text ("module:function"), so that planning imports none of it."""

    name: str
    """Shown to users. A label: neither keys nor the store hold it, so that the same stage with the same
    settings is computed once under any names."""
    stage: str = ""
    """What the node is, in keys and in the store's paths: "fit3dmm" for a node named "fit3dmm.deca". Empty =
    its name."""
    kind: Literal["whole", "keyed"]
    run: str
    """whole: run(context, **arguments) -> None. keyed: run(inputs, config, nets, runtime, **arguments) ->
    samples, for one unit."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    """Keyword arguments of `run`, part of the key: which model and phase, which feature."""
    reads: Mapping[str, Read] = field(default_factory=dict)
    """Role, as the function sees the input ("keypoints") -> what is read of which node."""
    units: str = ""
    """keyed: the whole node whose table lists its units (engine/units.py)."""
    rows: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """keyed: only the units whose row has one of these values in these columns: {"split": ("test",)}."""
    uses: Mapping[str, UsedCheckpoints] = field(default_factory=dict)
    """keyed: what its function is given among the nets, by these names."""
    writes: Sequence[str] = ()
    logs: Sequence[str] = ()
    """whole: files published beside the result that are not part of its content digest, since they tell how
    it came about."""
    config: Mapping[str, str] = field(default_factory=dict)
    """Settings in the key, as the function reads them -> their path in the run: {"fit3dmm": "fit3dmm.deca"}.
    The function can read no others."""
    key_values: Mapping[str, str] = field(default_factory=dict)
    """Value of a setting that names an instance of the run -> what stands in the key for it, since an
    instance's name is a label."""
    section: str = ""
    """keyed: the part of its config that the function is given; empty = all of it."""
    pack: Literal["unit", "bucket"] = "bucket"
    drops: bool = False
    """keyed: its shards are dropped once all that reads them is there (dropped_shards.py). In no key."""
    light: bool = False
    """keyed: a pack takes less time than the start of a worker, so that one worker takes several."""
    inputs: str | None = None
    """"module:function" of (config view) -> {name: digest} for data outside the store; planning calls it."""
    weights: Sequence[str] = ()
    missing_weights: Literal["error", "skip"] = "error"
    """error: refuse to run, before any node does. skip: run, and leave out what needs them."""
    check: str | None = None
    """"module:function" of (config, runtime, node name, **arguments): called before any node runs, if this
    one will; raises UserError or InvalidSettings for settings that cannot work."""
    tools: Sequence[str] = ()
    packages: Sequence[str] = ()
    nets: Sequence[str] = ()
    """Perception nets by name: loaded once in each worker and handed to the (keyed) function."""
    code: Sequence[str] = ()
    """Further "module:symbol" entries that the function finds by name (a model, a codec)."""
    resumable_budget: str | None = None
    """Path, as in `config`, of a step budget that may grow: training then continues from a shorter run."""
    table: bool = False
    """whole: it publishes a table of units, `<stage>.parquet` with the columns id and bucket."""
    stops: bool = False
    """whole: its function looks at `NodeContext.cancelled` and ends soon at a safe point, so an interrupted
    run waits for it."""
    run_at_plan_time: bool = False
    """whole: cheap enough for planning to run it (nothing is published), so that the plan behind it is
    exact."""
    exclusive: bool = False
    """Hold a lease while running, so that two drivers do not do the same long work."""
    resources: Mapping[str, float] = field(default_factory=lambda: {"cpu": 1})

    def __post_init__(self) -> None:
        force_setattr(self, "stage", self.stage or self.name)

    @property
    def upstream(self) -> tuple[str, ...]:
        """The nodes that it reads or uses, each once, in the order in which they are named."""
        used = (node for use in self.uses.values() for node, _ in use.files.values())
        return tuple(dict.fromkeys([*(read.node for read in self.reads.values()), *used]))


class Graph:
    """Nodes in topological order. `add` checks each node against what its upstreams write."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}

    def add(self, node: Node) -> Node:
        """Raises ValueError for a wiring that cannot work."""
        if node.name in self.nodes:
            raise ValueError(f"node {node.name!r} is added twice")
        for upstream in node.upstream:
            if upstream not in self.nodes:
                raise ValueError(f"node {node.name!r} reads {upstream!r}, which is not there before it")
        for read in node.reads.values():
            written = sorted(self.nodes[read.node].writes)
            if missing := sorted(set(read.fields) - set(written)):
                raise ValueError(f"node {node.name!r} reads {missing} of {read.node!r}, which has {written}")
        for use in node.uses.values():
            for upstream, _ in use.files.values():
                if self.nodes[upstream].kind != "whole":
                    raise ValueError(f"{node.name!r} uses a file of {upstream!r}, which publishes shards")
        if node.kind == "keyed":
            self._check_units(node)
        self.nodes[node.name] = node
        return node

    def _check_units(self, node: Node) -> None:
        """A keyed node reads its units' table or nodes with the same units; others by a column of its
        table."""
        table = self.nodes.get(node.units)
        if table is None or not table.table:
            raise ValueError(
                f"keyed node {node.name!r} has the units of {node.units or 'no node'!r}, which publishes no "
                "table of units; name a whole node with table=True before it"
            )
        own = [read for read in node.reads.values() if not read.by]
        if not own:
            raise ValueError(f"keyed node {node.name!r} reads nothing by its own unit of {node.units!r}")
        for read in own:
            if self.unit_table_name(read.node) != node.units:
                raise ValueError(
                    f"keyed node {node.name!r} has the units of {node.units!r}, but reads {read.node!r}, "
                    f"which has {self.unit_table_name(read.node) or 'none'}; "
                    "name the column that leads there (by)"
                )
        for read in node.reads.values():
            if read.by and read.by not in table.writes:
                raise ValueError(f"node {node.name!r} reads by {read.by!r}, no column of {node.units!r}")

    def unit_table_name(self, name: str) -> str:
        """The table whose rows are a node's units; "" of a whole node without a table."""
        node = self.nodes[name]
        return node.units if node.kind == "keyed" else name * node.table

    def __getitem__(self, name: str) -> Node:
        if name not in self.nodes:
            raise UserError(f"no node {name!r}; the nodes are {', '.join(self.nodes)}")
        return self.nodes[name]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def upstream(self, name: str) -> set[str]:
        """Every node that `name` depends on, itself left out."""
        found: set[str] = set()
        stack = [*self[name].upstream]
        while stack:
            one = stack.pop()
            if one not in found:
                found.add(one)
                stack += self.nodes[one].upstream
        return found


class NodeContext(Protocol):
    """What a whole node's function receives."""

    node: str
    key: str
    config: Any
    """A view of the declared settings; any other read raises UndeclaredConfigError."""
    runtime: Any
    """How and where to run; in no key."""
    inputs: Mapping[str, Any]
    """Role -> storage.families.Artifact (files of whole nodes, family of keyed ones)."""
    store: Store
    """Of artifacts and of imported weights."""
    out: Path
    """An empty local folder: files written here are published as the artifact when the function returns."""
    scratch: str
    """URI of a folder that survives a crash and belongs to this key: a rerun finds it again."""
    previous: Any | None
    """The artifact of a node with a resumable budget with fewer steps under the same key; else None."""
    resources: Mapping[str, float]
    """What the node asks of a worker: cpu, gpu."""
    cancelled: Callable[[], bool]
    """True once the run is being interrupted: stop at the next safe point."""

    def set_scratch_subfolder(self, name: str) -> None:
        """Have `scratch` name a folder within it from now on, and spare the rest when this node is done."""
        ...

    def report_progress(self, done: int, total: int, note: str = "") -> None: ...

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Figures for this node's MLflow run; `step` None = a final figure, also put on the parent run."""
        ...

    def warn(self, text: str) -> None:
        """One sentence for who watches the run: it goes on, but not all is as one would expect."""
        ...

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Facts for this node's MLflow run: net names, whether weights are random, distilled or released."""
        ...
