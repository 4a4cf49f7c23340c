"""Node `test_clips`: the clips that are scored, one list for every model of the run.

A clip whose 3DMM fit was rejected can drive a model that reads frames, but not one that reads fits. Scores
stand in one table only if all come from the same clips, so a clip is scored if every model can be driven with
it; how many were left out, and for want of what, is in the list. The list's content alone enters the keys of
the evaluations: a model more in the run, or a new fit, evaluates nothing again unless it changes the list.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.errors import UserError

if TYPE_CHECKING:
    from pipelines.engine.node import Context

LIST = "clips.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class TestClips:
    """clips.json"""

    clips: list[str]
    """Keys, sorted."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Node -> test clips that it has not, e.g. {"fit3dmm": 2}; a clip may count for several."""


def choose_clips(ctx: Context) -> None:
    """The whole node: clips.json. Every input but `recordings` is a family that a model of the run reads."""
    families = {name: one.family() for name, one in ctx.inputs.items() if name != "recordings"}
    split_of = splits(ctx.inputs["recordings"].path("recordings.parquet"))
    found = choose(families, split_of, ctx.config.eval.max_clips, ctx.config.eval.sources)
    (ctx.out / LIST).write_text(
        json.dumps(asdict(found), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    )


def read_chosen(artifact: Any) -> TestClips:
    """The artifact of `test_clips` -> the list."""
    return TestClips(**json.loads(artifact.path(LIST).read_text()))


def splits(recordings: Path) -> dict[str, str]:
    """recordings.parquet -> recording id: train or test."""
    import pyarrow.parquet as pq

    table = pq.read_table(recordings, columns=["id", "split"])
    return dict(zip(table["id"].to_pylist(), table["split"].to_pylist(), strict=True))


def choose(
    families: Mapping[str, Any], split_of: Mapping[str, str], most: int | None, sources: int
) -> TestClips:
    """Clips of test identities that have a driving frame besides the sources and that no family lacks: at
    most `most`, evenly spread. `families`: node -> family, `clips` among them.

    Raises UserError, which says what to change, where none is left.
    """
    clips = families["clips"]
    tested = [k for k in clips.keys if split_of[clips.recording_of(k)] == "test"]
    if not tested:
        raise UserError(
            f"none of {len(clips.keys)} clips is in the test split; raise data.NAME.test_fraction"
        )
    long = [k for k in tested if clips.frames_of(k) > sources]
    if not long:
        raise UserError(f"none of {len(tested)} test clips has more frames than eval.sources, {sources}")
    lacking = Counter(name for name, family in families.items() for key in long if key not in family)
    keys = [key for key in long if all(key in family for family in families.values())]
    if not keys:
        told = ", ".join(f"{count} by {name}" for name, count in sorted(lacking.items()))
        raise UserError(
            f"none of {len(long)} test clips can drive every model: rejected are {told}; "
            "the corpus page shows why, or leave a model out of `models`"
        )
    return TestClips(clips=evenly(keys, most or len(keys)), left_out=dict(sorted(lacking.items())))


def evenly(keys: Sequence[str], most: int) -> list[str]:
    """At most so many of the keys, in order, from the first to the last: neighbours are often one person."""
    if len(keys) <= most:
        return list(keys)
    return [keys[int(i)] for i in np.linspace(0, len(keys) - 1, most).round()]
