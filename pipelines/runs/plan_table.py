"""A plan as people read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pipelines.engine.node_plan import NodePlan


def print_plan_table(
    plans: Mapping[str, NodePlan],
    write: Callable[[str], None],
    damaged: Iterable[str] = (),
    notes: Mapping[str, str] | None = None,
) -> None:
    """The plan as a table, one line a node, its first column as wide as the longest name; then the records
    that could not be read, and so count as not there. notes: node -> a line below its reasons."""
    wide = max(24, *map(len, plans))
    head = f"{'node':<{wide}} {'state':<8} {'units':>7} {'cached':>7} {'stale':>6} {'after':>6}  "
    write(f"{head}reason")
    for name, plan in plans.items():
        n = {kind: plan.counts.get(kind, "-") for kind in ("units", "cached", "stale", "pending")}
        first, *rest = plan.reasons or [""]
        numbers = f"{n['units']:>7} {n['cached']:>7} {n['stale']:>6} {n['pending']:>6}"
        write(f"{name:<{wide}} {plan.state:<8} {numbers}  {first}".rstrip())
        for reason in rest[:6]:
            write(f"{'':<{len(head)}}{reason}")
        if rest[6:]:
            write(f"{'':<{len(head)}}... and {len(rest) - 6} more (`reenact why RUN.yaml {name}`)")
        if notes and name in notes:
            write(f"{'':<{len(head)}}{notes[name]}")
    for text in damaged:
        write(f"warning: counted as not there: {text}")
