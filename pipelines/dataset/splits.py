"""What is in a split: whether anybody is, found from the list of recordings before work on it; and how many
of its clips a family lacks, have no sound, or show few pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from pipelines.engine.node_plan import NodePlan
from pipelines.errors import UserError

if TYPE_CHECKING:
    from pipelines.dataset.clips import ClipFamily, Clips
    from pipelines.preprocess.recordings import DataConfig

T = TypeVar("T")
SPLIT_NODE_PREFIXES = {"train": "train.", "test": "pairs."}
"""Split -> how the names of the nodes begin that cannot do without."""
SPLIT_SETTINGS_BY_SOURCE = {
    "synthetic": "data.synthetic.identities and data.synthetic.test_identities",
    "voxceleb": "data.voxceleb.txt and data.voxceleb.test_persons",
    "voxceleb_csv": "the column partition of data.voxceleb_csv.csv",
    "celebv": "data.celebv.held_out",
    "talkinghead_1kh": "data.talkinghead_1kh.sets",
}
"""What the split of a source depends on that says it itself."""
MAX_CHECKED_CLIPS = 1000
"""Clips of a split whose records are read to count those without sound, or with few pixels; each costs a
small read."""


def describe_empty_split(plans: Mapping[str, NodePlan], data: Mapping[str, DataConfig]) -> str:
    """One sentence, with what to set, where nodes that are yet to run need a split without recordings; ""
    where there is none. data: corpus -> its settings."""
    for name, plan in plans.items():
        if plan.node.stage == "recordings":
            corpus = plan.node.config["data.source"].split(".")[1]
            tables = {name, *(one for one, other in plans.items()
                              if other.node.stage == "splits" and name in other.node.upstream)}  # fmt: skip
            readers = [one for one, other in plans.items()
                       if not other.has_artifact and tables & set(other.node.upstream)]  # fmt: skip
            if found := _empty_split(plan, readers, corpus, data[corpus]):
                return found
    return ""


def _empty_split(plan: NodePlan, readers: Sequence[str], corpus: str, data: DataConfig) -> str:
    rows = [view.row for view in plan.units.values() if view.row is not None]
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["split"], set()).add(row["identity"])
    for split, prefix in SPLIT_NODE_PREFIXES.items():
        waiting = [name for name in readers if name.startswith(prefix)]
        if rows and waiting and split not in splits:
            other, people = next(iter(splits.items()))
            who = "the only identity is" if len(people) == 1 else f"all {len(people):,} identities are"
            advice = _advice(f"data.{corpus}", data, split, len(people), len(rows))
            if split == "test":
                advice += ", or leave evaluation out with --only NODE"
            return f"the {split} split is empty, and {waiting[0]} needs it: {who} in {other}; {advice}"
    return ""


def require_nonempty_splits(plans: Mapping[str, NodePlan], data: Mapping[str, DataConfig]) -> None:
    """UserError where a node that is to run needs a split that is empty."""
    if sentence := describe_empty_split(plans, data):
        raise UserError(sentence)


def _advice(at: str, data: DataConfig, split: str, people: int, recordings: int) -> str:
    """at: where the settings are in the run file."""
    if data.limit == 1:
        return f"set {at}.limit to 2 or more"
    if people > 1 and split == "test" and data.test_fraction == 0:
        return f"set {at}.test_fraction above 0"
    if people == 1 and data.source == "folder":
        if data.folder.identities:  # pyright: ignore[reportAttributeAccessIssue]
            return f"name more people in {at}.folder.identities"
        if recordings > 1:
            return (
                f"set {at}.folder.identity=file, if each video shows somebody else, or add videos of others"
            )
    if data.source in SPLIT_SETTINGS_BY_SOURCE:
        decides = SPLIT_SETTINGS_BY_SOURCE[data.source].replace("data.", f"{at}.")
        return f"{decides} decide" + "s" * (" and " not in decides) + " on it"
    return "add videos of other people"


# --- the clips of a split -----------------------------------------------------------------------------------
def count_missing_clips(
    stored: Clips, reads: Mapping[str, Sequence[str]], keys: Sequence[str]
) -> dict[str, int]:
    """Node -> how many of these clips its family lacks, as `fit3dmm` lacks those that it could not fit; nodes
    whose family has all are not named. reads: node -> the fields read from it."""
    others = {node: [name for name in names if name != "frames"] for node, names in reads.items()}
    families = {node: stored.fields[names[0]] for node, names in others.items() if names}
    counts = {node: sum(key not in family for key in keys) for node, family in families.items()}
    return {node: count for node, count in counts.items() if count}


def describe_clips_without_sound(stored: Clips, keys: Sequence[str]) -> str:
    """How many clips have no sound, so that their speech features are those of silence: "3 of 120". Of many,
    MAX_CHECKED_CLIPS are read, evenly spread.
    """
    silent = _of_some_clips(
        keys, lambda key: not stored.fields["clip"].read(key, ["clip"])["clip"]["has_sound"]
    )
    return f"{sum(silent):,} of {len(silent):,}"


def measure_clip_sides(stored: Clips, keys: Sequence[str]) -> list[int]:
    """How many pixels of the recording the frames show across each clip's square: as many as the recording
    has there, or the frames, of clips or view, if these have fewer. Of many clips, MAX_CHECKED_CLIPS are
    read, evenly spread.
    """

    def side(key: str) -> int:
        record = stored.fields["clip"].read(key, ["clip"])["clip"]
        zoom = stored.fields["affine"].read(key, ["affine"])["affine"][0, 0, 0] if stored.shows_view else 1
        return min(record["side"], round(float(zoom) * record["size"]))

    return _of_some_clips(keys, side)


def _of_some_clips(keys: Sequence[str], measure: Callable[[str], T]) -> list[T]:
    counted = keys[:: max(1, math.ceil(len(keys) / MAX_CHECKED_CLIPS))]
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(measure, counted))


def family_of_all_clips(stored: Clips, reads: Mapping[str, Sequence[str]]) -> ClipFamily:
    """That of the clips, where they are read; else that of the frames. A view may lack clips."""
    own = [name for name in reads.get("clips", ()) if name != "frames"]
    return stored.fields[own[0]] if own else stored.clips
