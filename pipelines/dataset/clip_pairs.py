"""Pairs of clips of two people, drawn by hash; and the table of them that models' own nodes and tasks read
(models.spec.ClipPairTable).

All clips lie on a ring, in order of a hash of (seed, clip). A clip is the source of the one that follows it,
unless both show one person. One more clip parts two neighbours: of any number of pairs, at most two are
others afterwards.

Artifact of a node of stage `clip_pairs`: `clip_pairs.parquet`, a `ClipPair` a row, by id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, TypedDict

from pipelines.dataset.recording_table import Person, arrow_table, read_recording_people
from pipelines.errors import UserError
from pipelines.preprocess.recordings import hash_bucket_count, recording_bucket

if TYPE_CHECKING:
    from pipelines.engine.node import NodeContext

CLIP_PAIRS_STAGE = "clip_pairs"
CLIP_PAIR_COLUMNS = (
    "id", "bucket", "split", "identity", "source_recording", "source_clip", "driving_recording",
    "driving_clip", "recordings",
)  # fmt: skip
PAIRS_IN_A_PACK = 16
"""About so many pairs are stored together."""


class TrainingClipPair(TypedDict):
    id: str
    bucket: int
    split: str
    """train or test: that of both people."""
    identity: str
    """Of the source."""
    source_recording: str
    source_clip: str
    """Key of a clip."""
    driving_recording: str
    driving_clip: str
    recordings: list[str]
    """Those of both clips."""


class CrossPairSettings(Protocol):
    """What the node is configured with."""

    @property
    def seed(self) -> int: ...
    @property
    def rounds(self) -> int: ...


# --- the ring -----------------------------------------------------------------------------------------------
def sample_cross_pairs(keys: Iterable[str], seed: int, most: int | None) -> list[tuple[str, str]]:
    """Clip keys -> (source, driving) of different identities, each clip at most once a source and once
    driving; at most `most` of them, which do not depend on the order of the keys."""
    ring = sorted(keys, key=lambda key: hash_clip_with_seed(seed, key))
    pairs = zip(ring, [*ring[1:], *ring[:1]], strict=True)
    return [(a, b) for a, b in pairs if clip_identity(a) != clip_identity(b)][:most]


def hash_clip_with_seed(seed: int, clip: str) -> bytes:
    return hashlib.sha256(f"pair {seed} {clip}".encode()).digest()


def clip_identity(key: str) -> str:
    return key.split("#", 1)[0]


def cross_pair_id(source: str, driving: str) -> str:
    """Short, since it becomes the name of a shard's member, where two clip keys are too long."""
    return f"pair-{hashlib.sha256(f'{source} {driving}'.encode()).hexdigest()[:16]}"


# --- the table ----------------------------------------------------------------------------------------------
def list_clip_pairs(ctx: NodeContext) -> None:
    """The whole node. Inputs: `recordings`, `clips`, and every other family that both clips must be in."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    settings: CrossPairSettings = ctx.config
    families = {role: one.open_family() for role, one in ctx.inputs.items() if role != "recordings"}
    clips = families["clips"]
    keys = [key for key in clips.keys if all(key in family for family in families.values())]
    recordings = {key: clips.recording_of(key) for key in keys}
    rows = make_training_clip_pairs(
        recordings, read_recording_people(ctx.inputs["recordings"]), settings.seed, settings.rounds
    )
    if not rows:
        raise UserError(
            f"{ctx.node}: no pair among {len(keys)} clips that {', '.join(families)} have: a pair takes "
            "clips of two people of one split; add videos of other people"
        )
    kinds = {"bucket": pa.int32(), "recordings": pa.list_(pa.string())}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in CLIP_PAIR_COLUMNS])
    pq.write_table(arrow_table(rows, schema), ctx.out / f"{CLIP_PAIRS_STAGE}.parquet", compression="zstd")
    counts = {split: sum(row["split"] == split for row in rows) for split in ("train", "test")}
    ctx.report_progress(
        len(rows), len(rows), f"{counts['train']:,} pairs to train on, {counts['test']:,} held out"
    )


def make_training_clip_pairs(
    recordings: Mapping[str, str], people: Mapping[str, Person], seed: int, rounds: int
) -> list[TrainingClipPair]:
    """recordings: clip key -> its recording. people: recording -> who is in it, in which split. Each round
    and split has a ring of its own; that of the first round is of `seed`, of the next `seed + 1`."""
    found: dict[str, tuple[str, str]] = {}
    for split in ("train", "test"):
        keys = [key for key, recording in recordings.items() if people[recording].split == split]
        for turn in range(rounds):
            pairs = sample_cross_pairs(keys, seed + turn, None)
            found |= {cross_pair_id(source, driving): (source, driving) for source, driving in pairs}
    buckets = hash_bucket_count(len(found), PAIRS_IN_A_PACK)
    return [
        TrainingClipPair(
            id=id, bucket=recording_bucket(id, buckets),
            split=people[recordings[source]].split, identity=people[recordings[source]].identity,
            source_recording=recordings[source], source_clip=source,
            driving_recording=recordings[driving], driving_clip=driving,
            recordings=sorted({recordings[source], recordings[driving]}),
        )
        for id, (source, driving) in sorted(found.items())
    ]  # fmt: skip
