"""What generated frames take in the store, estimated before they are generated, and whether they stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pipelines.engine.keys import lookup_setting
from pipelines.eval.methods import COPY_METHOD, METHOD_FUNCTIONS
from pipelines.eval.scored_frames import SCORED_VIEW_RECIPE, is_lossless

if TYPE_CHECKING:
    from pipelines.config import RunConfig
    from pipelines.engine.node_plan import NodePlan
    from pipelines.engine.units import Units

PNG_COMPRESSION_RATIO = 0.6
"""Bytes of a lossless frame over those of its pixels, rather too many: 0.55 on rendered heads of 64 px, 0.46
of 128 px, 0.32 to 0.53 on real faces of 256 px."""
GENERATE_STAGE_PREFIX = "generate."
SCORED_VIEW_STAGE = f"views.{SCORED_VIEW_RECIPE}"


def estimate_frame_storage_bytes(frames: int, size: int) -> int:
    """About what so many frames of this side, in pixels, take."""
    return round(frames * size * size * 3 * PNG_COMPRESSION_RATIO)


def describe_frame_disk_usage(plans: Mapping[str, NodePlan], config: RunConfig) -> dict[str, str]:
    """Node -> a line on the frames that it has to generate, where its pairs are known, or that were
    dropped."""
    found = {}
    for name, plan in plans.items():
        if plan.node.stage == SCORED_VIEW_STAGE and (text := _describe_scored_view(plan, plans, config)):
            found[name] = text
        if not plan.node.stage.startswith(GENERATE_STAGE_PREFIX):
            continue
        pairs, size = plans[plan.node.units].units, lookup_setting(config, plan.node.config["size"])
        if frames := _frames(plan, _to_generate(plan), pairs):
            text = (
                f"{frames:,} frames of {size} px: about {_bytes(estimate_frame_storage_bytes(frames, size))}"
            )
            found[name] = f"makes {text}, and drops them in the end" if plan.node.drops else f"keeps {text}"
        elif frames := _frames(plan, _of_packs(plan, plan.restore_jobs), pairs):
            text = f"about {_bytes(estimate_frame_storage_bytes(frames, size))}"
            found[name] = f"its {frames:,} frames of {size} px were dropped: {text}"
    return found


def _describe_scored_view(plan: NodePlan, plans: Mapping[str, NodePlan], config: RunConfig) -> str:
    """The lossless frames that a view has to cut, where it is known how many the clips have; else what one
    takes. Nothing of a view that is there, or in another codec."""
    if plan.has_artifact or not is_lossless(lookup_setting(config, f"{plan.node.config['views']}.frames")):
        return ""
    size, clips = config.clips.size, plans[plan.node.reads["clips"].node].artifact
    if clips is None:
        return f"keeps about {_bytes(estimate_frame_storage_bytes(1, size))} for each frame of {size} px"
    wanted = _to_generate(plan)
    frames = sum(row.frames for row in clips.manifest() if row.unit in wanted)
    return f"keeps {frames:,} frames of {size} px: about {_bytes(estimate_frame_storage_bytes(frames, size))}"


def _to_generate(plan: NodePlan) -> set[str]:
    """Pairs; none where the table of pairs is to be made first."""
    if plan.to_restore:
        return _of_packs(plan, plan.to_restore)
    return {unit for unit, view in plan.units.items() if view.digest is None and not plan.has_artifact}


def _of_packs(plan: NodePlan, packs: Iterable[str]) -> set[str]:
    wanted = set(packs)
    return {unit for unit, view in plan.units.items() if view.pack in wanted}


def _frames(plan: NodePlan, some: set[str], pairs: Units) -> int:
    """Those of some pairs."""
    rows = [pairs[unit].row for unit in some if unit in pairs]
    if plan.node.stage == f"{GENERATE_STAGE_PREFIX}{METHOD_FUNCTIONS[COPY_METHOD]}":
        return len(rows)
    return sum(len(row["driving_frames"]) for row in rows if row is not None)


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
