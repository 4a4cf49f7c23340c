"""Node `pairs.<protocol>`: which source drives with which clip, one table for every method of the run.

A pair is a unit: what a method generates for it is kept until the pair itself changes. A clip whose 3DMM fit
was rejected can drive a model that reads frames, but not one that reads fits. Values stand in one table only
if all come from the same pairs, so a clip is used if every model of the run can be driven with it; how many
were left out, and which node rejected them, is published beside the table. A model more in the run, or a new
fit, generates nothing again unless it changes the pairs.

Cross-reenactment: all test clips lie on a ring, in order of a hash of (seed, clip). A clip is the source of
the one that follows it, unless both show one person. One more clip parts two neighbours: of any number of
pairs, at most two are others afterwards.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast
from typing import Protocol as Interface

import numpy as np

from pipelines.errors import UserError
from pipelines.eval.protocols import Protocol
from pipelines.preprocess.recordings import bucket_count, bucket_of

if TYPE_CHECKING:
    from pipelines.engine.node import Context

TABLE, ABOUT = "pairs.parquet", "about.json"
COLUMNS = ("id", "recordings", "source_clip", "source_frames", "driving_clip", "driving_frames")
"""Of the table, beside the bucket."""
PAIRS_IN_A_PACK = 2
"""About so many pairs are generated, and stored, together: few, since a pair takes seconds to minutes."""
LIST_COLUMNS = ("source", "driving")


class Settings(Interface):
    """What the node is configured with."""

    @property
    def protocol(self) -> Protocol: ...


class ClipIndex(Interface):
    """What is used of a storage.families.Family of clips."""

    @property
    def keys(self) -> list[str]: ...
    def __contains__(self, key: str) -> bool: ...
    def frames_of(self, key: str) -> int: ...
    def recording_of(self, key: str) -> str: ...


class PairRow(TypedDict):
    """A row of the table as the engine hands it to a stage; see `Pair`."""

    id: str
    recordings: list[str]
    source_clip: str
    source_frames: list[int]
    driving_clip: str
    driving_frames: list[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A row of the table, without its bucket."""

    id: str
    """A clip paired with itself bears that clip's key."""
    recordings: tuple[str, ...]
    """Ids of the recordings that its clips are cut from."""
    source_clip: str
    source_frames: tuple[int, ...]
    """Numbers of frames in the source clip."""
    driving_clip: str
    driving_frames: tuple[int, ...]
    """Numbers of frames in the driving clip, ascending: those that are generated."""

    @classmethod
    def of(cls, row: PairRow) -> Pair:
        return cls(
            id=row["id"],
            recordings=tuple(row["recordings"]),
            source_clip=row["source_clip"],
            source_frames=tuple(row["source_frames"]),
            driving_clip=row["driving_clip"],
            driving_frames=tuple(row["driving_frames"]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """about.json: what the report says of the pairs."""

    protocol: str
    """The protocol's id: values of two methods stand in one table if this is the same."""
    has_truth: bool
    rejected: dict[str, int] = field(default_factory=dict)
    """Node -> test clips that it has not, e.g. {"fit3dmm": 2}; a clip may count for several."""


def make_pairs(ctx: Context) -> None:
    """The whole node: pairs.parquet and about.json. Inputs: `recordings`, `clips`, and every other family
    that a model of the run is driven with."""
    protocol: Protocol = ctx.config.protocol
    families = {role: one.family() for role, one in ctx.inputs.items() if role != "recordings"}
    split = splits(ctx.inputs["recordings"].path("recordings.parquet"))
    clips, rejected = usable_clips(families, split, protocol.sources)
    pairs = pair_up(protocol, clips, families["clips"])
    write_pairs(ctx.out / TABLE, pairs)
    about = About(
        protocol=protocol.describe(len(pairs), list_digest(pairs)),
        has_truth=protocol.has_truth,
        rejected=rejected,
    )
    text = json.dumps(asdict(about), indent=1, sort_keys=True, ensure_ascii=False)
    (ctx.out / ABOUT).write_text(text + "\n")


def external(config: Settings) -> dict[str, str]:
    """An imported list of pairs -> its digest, for the node's key."""
    if not config.protocol.pair_list:
        return {}
    path = Path(config.protocol.pair_list).expanduser()
    return {config.protocol.pair_list: hashlib.sha256(_list_bytes(path)).hexdigest()}


def splits(recordings: Path) -> dict[str, str]:
    """recordings.parquet -> recording id: train or test."""
    import pyarrow.parquet as pq

    table = pq.read_table(recordings, columns=["id", "split"])
    return dict(zip(table["id"].to_pylist(), table["split"].to_pylist(), strict=True))


def usable_clips(
    families: Mapping[str, ClipIndex], split: Mapping[str, str], sources: int
) -> tuple[list[str], dict[str, int]]:
    """-> keys of the test clips that have a driving frame besides the sources and that no family lacks; and
    how many such clips each node has not. `families`: node -> family, `clips` among them; `split`: recording
    -> train or test.

    Raises UserError, which says what to change, where none is left.
    """
    clips = families["clips"]
    tested = [key for key in clips.keys if split[clips.recording_of(key)] == "test"]
    if not tested:
        raise UserError(f"none of {len(clips.keys)} clips is in the test split; raise data.test_fraction")
    long = [key for key in tested if clips.frames_of(key) > sources]
    if not long:
        raise UserError(
            f"none of {len(tested)} test clips has more frames than the protocol has sources, {sources}"
        )
    rejected = Counter(name for name, family in families.items() for key in long if key not in family)
    keys = [key for key in long if all(key in family for family in families.values())]
    if not keys:
        counts = ", ".join(f"{count} by {name}" for name, count in sorted(rejected.items()))
        raise UserError(
            f"none of {len(long)} test clips can drive every model: rejected are {counts}; "
            "the corpus page shows why, or leave a model out of `models`"
        )
    return keys, dict(sorted(rejected.items()))


# --- which clip drives which source -------------------------------------------------------------------------
def pair_up(protocol: Protocol, keys: Sequence[str], clips: ClipIndex) -> list[Pair]:
    """The protocol's pairs among usable clips, sorted by id."""
    if protocol.pair_list:
        chosen = read_list(Path(protocol.pair_list).expanduser(), keys)
    elif protocol.has_truth:
        chosen = [(key, key) for key in evenly(keys, protocol.max_pairs or len(keys))]
    else:
        chosen = sample_cross_pairs(keys, protocol.seed, protocol.max_pairs)
        if not chosen:
            raise UserError(
                f"no pair among {len(keys)} test clips: cross-reenactment takes clips of two identities; "
                "raise data.test_fraction"
            )
    pairs = [_pair(protocol, source, driving, clips) for source, driving in chosen]
    return sorted(pairs, key=lambda pair: pair.id)


def _pair(protocol: Protocol, source: str, driving: str, clips: ClipIndex) -> Pair:
    sources = source_indices(clips.frames_of(source), protocol.sources)
    left_out = sources if protocol.has_truth else []
    return Pair(
        id=source if protocol.has_truth else cross_id(source, driving),
        recordings=tuple(sorted({clips.recording_of(source), clips.recording_of(driving)})),
        source_clip=source,
        source_frames=tuple(sources),
        driving_clip=driving,
        driving_frames=tuple(
            driving_indices(clips.frames_of(driving), protocol.frame_stride, protocol.max_frames, left_out)
        ),
    )


def cross_id(source: str, driving: str) -> str:
    """Short, since it becomes the name of a shard's member, where two clip keys are too long."""
    return f"pair-{hashlib.sha256(f'{source} {driving}'.encode()).hexdigest()[:16]}"


def source_indices(frames: int, sources: int) -> list[int]:
    """Source frames of a clip: the first; first and last; first, middle and last; and so on."""
    return [int(i) for i in np.linspace(0, frames - 1, sources).round()]


def driving_indices(frames: int, stride: int, most: int | None, sources: Sequence[int]) -> list[int]:
    """Driving frames of a clip; never one of `sources`, its own source frames, which would score a copy."""
    return [i for i in range(frames) if i not in sources][::stride][:most]


def evenly(keys: Sequence[str], most: int) -> list[str]:
    """At most so many of the keys, in order, from the first to the last: neighbours are often one person."""
    if len(keys) <= most:
        return list(keys)
    return [keys[int(i)] for i in np.linspace(0, len(keys) - 1, most).round()]


def sample_cross_pairs(keys: Iterable[str], seed: int, most: int | None) -> list[tuple[str, str]]:
    """Clip keys -> (source, driving) of different identities, each clip at most once a source and once
    driving; at most `most` of them, which do not depend on the order of the keys."""
    ring = sorted(keys, key=lambda key: hashlib.sha256(f"pair {seed} {key}".encode()).digest())
    pairs = zip(ring, [*ring[1:], *ring[:1]], strict=True)
    return [(a, b) for a, b in pairs if identity_of(a) != identity_of(b)][:most]


def identity_of(key: str) -> str:
    return key.split("#", 1)[0]


def read_list(path: Path, keys: Sequence[str]) -> list[tuple[str, str]]:
    """A CSV file of clip keys -> its pairs. UserError: no such file or columns, no pair, one pair twice, or
    clips that cannot be used."""
    rows = list(csv.DictReader(_list_bytes(path).decode("utf-8-sig").splitlines()))
    if not rows or not set(LIST_COLUMNS) <= set(rows[0]):
        found = ", ".join(rows[0]) if rows else "no rows"
        raise UserError(
            f"{path}: expected rows under the columns {' and '.join(LIST_COLUMNS)}, found {found}"
        )
    pairs = [(row["source"], row["driving"]) for row in rows]
    if unknown := sorted({key for pair in pairs for key in pair} - set(keys)):
        raise UserError(
            f"{path} names {len(unknown)} clips that are not among the {len(keys)} usable test clips, "
            f"the first {unknown[0]!r}; correct the list"
        )
    if repeated := [pair for pair, count in Counter(pairs).items() if count > 1]:
        raise UserError(f"{path} lists {' with '.join(repeated[0])} twice; keep one of the rows")
    return pairs


def _list_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"pair_list {path} cannot be read: {error.strerror}") from error


# --- the table ----------------------------------------------------------------------------------------------
def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = bucket_count(len(pairs), PAIRS_IN_A_PACK)
    rows = [{**asdict(pair), "bucket": bucket_of(pair.id, count)} for pair in pairs]
    texts, numbers = pa.list_(pa.string()), pa.list_(pa.int32())
    schema = pa.schema([
        ("id", pa.string()), ("bucket", pa.int32()), ("recordings", texts), ("source_clip", pa.string()),
        ("source_frames", numbers), ("driving_clip", pa.string()), ("driving_frames", numbers),
    ])  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


def read_pairs(path: Path) -> list[Pair]:
    """pairs.parquet -> its pairs, sorted by id."""
    import pyarrow.parquet as pq

    return [Pair.of(cast("PairRow", row)) for row in pq.read_table(path).to_pylist()]


def list_digest(pairs: Sequence[Pair]) -> str:
    """Eight characters that are others where the list of clips is another."""
    return hashlib.sha256("\n".join(pair.id for pair in pairs).encode()).hexdigest()[:8]
