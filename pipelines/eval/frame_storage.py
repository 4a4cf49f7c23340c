"""What generated frames take in the store, estimated before they are generated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipelines.engine.keys import lookup
from pipelines.eval.methods import COPY, FUNCTIONS

if TYPE_CHECKING:
    from pipelines.config import Config
    from pipelines.engine.plan import NodePlan

PNG_SHARE = 0.6
"""Bytes of a lossless frame over those of its pixels: 0.55 on rendered heads of 64 px, 0.46 of 128 px."""
STAGE = "generate."


def estimate_bytes(frames: int, size: int) -> int:
    """About what so many frames of this side, in pixels, take."""
    return round(frames * size * size * 3 * PNG_SHARE)


def describe_frame_storage(plans: Mapping[str, NodePlan], config: Config) -> dict[str, str]:
    """Node that has frames to generate -> a line on what they take, where its pairs are known."""
    found = {}
    for name, plan in plans.items():
        if plan.node.stage.startswith(STAGE) and (frames := _frames(plan, plans[plan.node.units])):
            size = lookup(config, plan.node.config["size"])
            count = estimate_bytes(frames, size)
            text = f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
            found[name] = f"keeps {frames:,} frames of {size} px: about {text}"
    return found


def _frames(plan: NodePlan, pairs: NodePlan) -> int:
    """Those of the pairs that are to be generated; 0 where the table of pairs is to be made first."""
    todo = [unit for unit, view in plan.units.items() if view.digest is None and not plan.settled]
    rows = [pairs.units[unit].row for unit in todo if unit in pairs.units]
    if plan.node.stage == f"{STAGE}{FUNCTIONS[COPY]}":
        return len(rows)
    return sum(len(row["driving_frames"]) for row in rows if row is not None)
