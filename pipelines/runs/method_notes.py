"""Lines of a run about its methods: baselines that it cannot have, pairs that frames of other code lack, and
files of no pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.eval.methods import WARP_METHOD

if TYPE_CHECKING:
    from pipelines.config import RunConfig
    from pipelines.engine.node import Graph
    from pipelines.engine.node_plan import NodePlan

MAX_NAMES = 3
"""Of pairs and files in a line."""


def describe_left_out_baselines(graph: Graph, config: RunConfig) -> list[str]:
    """Protocols without a landmark warp, where they would have one if the run found landmarks."""
    without = [
        name
        for name, protocol in config.eval.active_protocols.items()
        if protocol.kind in ("self_reenactment", "cross_reenactment")
        and f"generate.{WARP_METHOD}.{name}" not in graph.nodes
    ]
    if not without:
        return []
    some = next(iter(config.keypoints), "main")
    return [
        f"no baseline {WARP_METHOD} in {', '.join(without)}: the run finds no landmarks in the clips of both "
        f"sides; --set also=[keypoints.{some}] does"
    ]


def describe_external_folders(config: RunConfig, plans: Mapping[str, NodePlan]) -> Iterator[str]:
    """What does not fit in the folders of methods of other code, so far as pairs are known."""
    from pipelines.eval.external_frames import find_extra_entries

    for method, settings in config.eval.methods.items():
        pairs: dict[str, None] = {}
        complete = True
        for protocol in settings.protocols or config.eval.active_protocols:
            table, generated = (plans.get(f"{node}.{protocol}") for node in ("pairs", f"generate.{method}"))
            complete = complete and table is not None and table.has_artifact
            pairs |= dict.fromkeys(table.units if table else ())
            if generated and generated.artifact:
                rejected = [row for row in generated.artifact.manifest() if row.status == "rejected"]
                if rejected:
                    named = [f"{row.unit} ({row.code})" for row in rejected]
                    total = len(table.units) if table else len(named)
                    counts = f"{len(named)} of {total} pairs without frames"
                    yield f"{method}, {protocol}: {counts}: {_some(named)}"
        folder = Path(settings.folder)
        if complete and folder.is_dir() and (extra := find_extra_entries(folder, pairs)):
            yield f"{method}: {len(extra)} files or folders of no pair in {folder}: {_some(extra)}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f"{', '.join(names[:MAX_NAMES])}{more}"
