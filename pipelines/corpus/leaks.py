"""Node `splits`: the split of each recording, after test identities that are training identities too.

It is in the graph where `data.NAME.leaks` asks for more than a report; training and pairs of clips then read
the split here, and wait for it. Artifact: `recordings.parquet` with the columns id, identity, split and
listed_split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines.corpus.identity_check import CheckSummary, PersonRow, read_identity_rows, read_summary
from pipelines.corpus.identity_distance import MIN_IDENTITIES
from pipelines.dataset.recording_table import RECORDINGS_FILE, Person, read_recording_people
from pipelines.errors import UserError

if TYPE_CHECKING:
    from pipelines.engine.node import NodeContext
    from storage.families import Artifact

MAX_NAMED_LEAKS = 5
"""Pairs that a message names."""


def make_checked_splits(ctx: NodeContext) -> None:
    """The whole node. Inputs: `recordings` and `identity_check`. UserError for a leak where leaks is refuse,
    and where too few people are there to compare."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    people = read_recording_people(ctx.inputs["recordings"])
    summary = read_summary(ctx.inputs["identity_check"])
    policy: str = ctx.config.data.leaks
    if not summary.enough:
        raise UserError(
            f"{ctx.node}: faces of {summary.identities} identities were found, {MIN_IDENTITIES} are needed "
            f"to tell who is who; add people, or set data.NAME.leaks to report"
        )
    leaks = [row for row in read_identity_rows(ctx.inputs["identity_check"]) if row.same_as]
    if leaks and policy == "refuse":
        raise UserError(f"{ctx.node}: {describe_leaks(leaks, summary)}")
    split = move_leaks_to_train(people, leaks)
    if leaks and "test" not in split.values():
        raise UserError(f"{ctx.node}: {describe_leaks(leaks, summary)}; nobody is left to test on")
    rows = [
        {"id": id, "identity": person.identity, "split": split[id], "listed_split": person.split}
        for id, person in sorted(people.items())
    ]
    schema = pa.schema([(name, pa.string()) for name in ("id", "identity", "split", "listed_split")])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), ctx.out / RECORDINGS_FILE, compression="zstd")
    moved = sum(row["split"] != row["listed_split"] for row in rows)
    ctx.report_progress(len(rows), len(rows), f"{moved:,} recordings moved from test to train")
    ctx.log_metrics({"recordings_moved": moved})


def describe_leaks(leaks: Sequence[PersonRow], summary: CheckSummary) -> str:
    """Who is who, how many of them chance would name, and what to do."""
    named = ", ".join(f"{row.identity} is {row.same_as}" for row in leaks[:MAX_NAMED_LEAKS])
    more = ", ..." if len(leaks) > MAX_NAMED_LEAKS else ""
    chance = (
        f"some {summary.expected_false_names:,.1f} of {summary.compared_pairs:,} pairs are as near by chance"
    )
    return (
        f"test identities that are training identities too, by their faces: {len(leaks)} ({named}{more}), "
        f"where {chance}; the corpus page shows them. Give them one name in the source, or set "
        "data.NAME.leaks to move or report"
    )


def move_leaks_to_train(people: Mapping[str, Person], leaks: Sequence[PersonRow]) -> dict[str, str]:
    """people: recording -> its person -> recording -> split. A test identity that is a training identity too
    joins the training split with all its recordings: its video is not lost, and no split but these two is
    known to those who read one. Families of one split only (a view, a model's node) were chosen by the split
    that the source gave: of those moved they hold what that split asks for."""
    moved = {people[recording].identity for row in leaks for recording in row.recordings}
    return {id: "train" if person.identity in moved else person.split for id, person in people.items()}


def read_checked_splits(artifact: Artifact) -> dict[str, str]:
    """Recording -> split."""
    return {id: person.split for id, person in read_recording_people(artifact).items()}


def read_moved_identities(artifact: Artifact) -> list[str]:
    """Those whose split is another than the listed one."""
    import pyarrow.parquet as pq

    rows = pq.read_table(artifact.path(RECORDINGS_FILE)).to_pylist()
    return sorted({row["identity"] for row in rows if row["split"] != row["listed_split"]})
