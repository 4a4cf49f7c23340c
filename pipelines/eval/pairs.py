"""Node `pairs.<protocol>`: which source drives with which clip, one table for every method of the run.

A pair is a unit: what a method generates for it is kept until the pair itself changes. A clip whose 3DMM fit
was rejected can drive a model that reads frames, but not one that reads fits. Values stand in one table only
if all come from the same pairs, so a clip is used if every model of the run can be driven with it; how many
were left out, and which node rejected them, is published beside the table. A model more in the run, or a new
fit, generates nothing again unless it changes the pairs.

Cross-reenactment: all test clips lie on a ring (dataset/clip_pairs.py), where neighbours make a pair. Where
sources and drivings come from two corpora, the clips of both lie on one ring, and neighbours make a pair if
one is a source and the other a driving clip.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast
from typing import Protocol as Interface

from msgspec import Struct, field
from msgspec.structs import asdict

from pipelines.dataset.clip_pairs import cross_pair_id, sample_cross_pairs
from pipelines.dataset.recording_table import read_recording_people
from pipelines.errors import UserError
from pipelines.eval.pair_clips import DRIVING_ROLE_PREFIX, SOUND_ROLE_PREFIX, SOURCE_ROLE_PREFIX
from pipelines.eval.pair_sampling import (
    FRAME_LIST_COLUMNS,
    ListedPair,
    driving_indices,
    read_list_bytes,
    read_pair_list,
    sample_cross_corpus_pairs,
    source_indices,
    spread_evenly,
)
from pipelines.eval.protocols import EvaluationProtocol
from pipelines.eval.scored_frames import describe_frame_codec, is_lossless
from pipelines.preprocess.recordings import hash_bucket_count, recording_bucket

if TYPE_CHECKING:
    from pipelines.engine.node import NodeContext
    from pipelines.preprocess.clips_config import FrameCodecConfig
    from storage.families import Artifact

PAIRS_FILE, PAIR_LIST_FILE, PAIRS_SUMMARY_FILE = "pairs.parquet", "pairs.csv", "about.json"
PAIR_COLUMNS = (
    "id", "source_recording", "source_clip", "source_frames", "driving_recording", "driving_clip",
    "driving_frames", "sound_clip",
)  # fmt: skip
"""Of the table, beside the bucket, `recordings`, the one or two recordings of the clips that are seen, and
`sound_recording`."""
PAIRS_PER_PACK = 2
"""About so many pairs are generated, and stored, together: few, since a pair takes seconds to minutes."""
_PAIR_ID = re.compile(r"[A-Za-z0-9_#-]+")


class PairsConfig(Interface):
    """What the node is configured with."""

    @property
    def protocol(self) -> EvaluationProtocol: ...
    @property
    def frames(self) -> FrameCodecConfig:
        """How the frames are stored that the protocol takes."""
        ...


class ClipFamilyIndex(Interface):
    """What is used of a storage.families.Family of clips."""

    @property
    def keys(self) -> list[str]: ...
    def __contains__(self, key: str) -> bool: ...
    def frame_count(self, key: str) -> int: ...
    def recording_of(self, key: str) -> str: ...
    def read(self, key: str, fields: Sequence[str], /) -> Mapping[str, Any]: ...


class PairRow(TypedDict):
    """A row of the table as the engine hands it to a stage; see `ClipPair`."""

    id: str
    source_recording: str
    source_clip: str
    source_frames: list[int]
    driving_recording: str
    driving_clip: str
    driving_frames: list[int]
    sound_clip: str


class ClipPair(Struct, frozen=True, kw_only=True):
    """A row of the table, without its bucket."""

    id: str
    """A clip paired with itself bears that clip's key."""
    source_recording: str
    """Id of the recording that the source clip is cut from."""
    source_clip: str
    source_frames: tuple[int, ...]
    """Numbers of frames in the source clip."""
    driving_recording: str
    driving_clip: str
    driving_frames: tuple[int, ...]
    """Numbers of frames in the driving clip, ascending: those that are generated. Of an editing protocol the
    source frame, once for each value."""
    sound_recording: str = ""
    """Id of the recording that the sound is of; "" = of the driving clip."""
    sound_clip: str = ""
    """The clip that is heard at the same frames in place of the driving clip; "" = that one."""

    @classmethod
    def from_row(cls, row: PairRow) -> ClipPair:
        return cls(
            id=row["id"],
            source_recording=row["source_recording"],
            source_clip=row["source_clip"],
            source_frames=tuple(row["source_frames"]),
            driving_recording=row["driving_recording"],
            driving_clip=row["driving_clip"],
            driving_frames=tuple(row["driving_frames"]),
            sound_clip=row["sound_clip"],
        )

    @property
    def clip_with_sound(self) -> str:
        """Key of the clip whose sound goes with the generated frames."""
        return self.sound_clip or self.driving_clip

    @property
    def recordings(self) -> list[str]:
        return sorted({self.source_recording, self.driving_recording})


class PairsSummary(Struct, frozen=True, kw_only=True):
    """about.json: what the report says of the pairs."""

    protocol: str
    """The protocol's id: values of two methods stand in one table if this is the same."""
    has_truth: bool
    frames: str = ""
    """What sources, driving frames and truth have been through since they were cut from the recordings."""
    lossless: bool = False
    """Whether that is no codec with a loss."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Node -> test clips that it has not, e.g. {"fit3dmm": 2}; a clip may count for several."""


class CandidateClips(Struct, frozen=True):
    """Test clips of one corpus, of which pairs are made. Of those that are heard, with a sound."""

    keys: Sequence[str]
    clips: ClipFamilyIndex
    """What knows of their frames and recordings."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Node -> test clips that it has not."""


def make_pairs(ctx: NodeContext) -> None:
    """The whole node: pairs.parquet, pairs.csv and about.json. Inputs: `recordings`, `clips`, and every other
    family that a model of the run is driven with, `scored_frames` among them where the frames are those of a
    view; of two corpora, those of each under `source.` and `driving.`; of clips that are heard alone, under
    `sound.`."""
    protocol: EvaluationProtocol = ctx.config.protocol
    stored: FrameCodecConfig = ctx.config.frames
    least = protocol.sources + protocol.has_truth
    sides = [side for side in (SOURCE_ROLE_PREFIX, DRIVING_ROLE_PREFIX, SOUND_ROLE_PREFIX)
             if f"{side}recordings" in ctx.inputs]  # fmt: skip
    if "recordings" in ctx.inputs:
        sides = ["", *sides]
    sound_sides = {sides[-1]} if protocol.kind == "audio_driven" else set()
    found = {
        side: read_candidate_clips(ctx.inputs, side, least if side == sides[0] else 1, side in sound_sides)
        for side in sides
    }
    source, driving = found[sides[0]], found[sides[-1]]
    rejected = {f"{side}{node}": count for side, one in found.items() for node, count in one.rejected.items()}
    pairs = make_protocol_pairs(protocol, source, driving)
    write_pairs(ctx.out / PAIRS_FILE, pairs)
    write_pair_list(ctx.out / PAIR_LIST_FILE, pairs)
    about = PairsSummary(
        protocol=protocol.protocol_id(len(pairs), pair_list_digest(pairs), stored),
        has_truth=protocol.has_truth,
        frames=describe_frame_codec(stored),
        lossless=is_lossless(stored),
        rejected=rejected,
    )
    text = json.dumps(asdict(about), indent=1, sort_keys=True, ensure_ascii=False)
    (ctx.out / PAIRS_SUMMARY_FILE).write_text(text + "\n")
    ctx.log_params({"protocol": about.protocol, "frames": about.frames})


def digest_external_files(config: PairsConfig) -> dict[str, str]:
    """An imported list of pairs -> its digest, for the node's key."""
    if not config.protocol.pair_list:
        return {}
    path = Path(config.protocol.pair_list).expanduser()
    return {config.protocol.pair_list: hashlib.sha256(read_list_bytes(path)).hexdigest()}


def read_candidate_clips(
    inputs: Mapping[str, Artifact], side: str, least: int, with_sound: bool = False
) -> CandidateClips:
    """The usable clips among the inputs whose role begins with a side. with_sound: those that have one."""
    others = () if side else (SOURCE_ROLE_PREFIX, DRIVING_ROLE_PREFIX, SOUND_ROLE_PREFIX)
    own = {
        role.removeprefix(side): one for role, one in inputs.items()
        if role.startswith(side) and not role.startswith(others)
    }  # fmt: skip
    families = {role: one.open_family() for role, one in own.items() if role != "recordings"}
    split = {id: person.split for id, person in read_recording_people(own["recordings"]).items()}
    keys, rejected = find_usable_test_clips(families, split, least)
    if with_sound:
        audible = [key for key in keys if families["clips"].read(key, ["clip"])["clip"]["audible"] > 0]
        if not audible:
            raise UserError(f"none of {len(keys)} usable test clips has a sound; choose another corpus")
        rejected = dict(rejected) | (
            {"silence": len(keys) - len(audible)} if len(keys) > len(audible) else {}
        )
        keys = audible
    return CandidateClips(keys, families["clips"], rejected)


def find_usable_test_clips(
    families: Mapping[str, ClipFamilyIndex], split: Mapping[str, str], least: int
) -> tuple[list[str], dict[str, int]]:
    """-> keys of the test clips that have so many frames and that no family lacks; and how many such clips
    each node has not. `families`: node -> family, `clips` among them; `split`: recording -> train or test.

    Raises UserError, which says what to change, where none is left.
    """
    clips = families["clips"]
    tested = [key for key in clips.keys if split[clips.recording_of(key)] == "test"]
    if not tested:
        raise UserError(f"none of {len(clips.keys)} clips is in the test split; raise data.test_fraction")
    long = [key for key in tested if clips.frame_count(key) >= least]
    if not long:
        raise UserError(
            f"none of {len(tested)} test clips has {least} frames, as many as the protocol takes of one; "
            "lower its sources"
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
def make_protocol_pairs(
    protocol: EvaluationProtocol, source: CandidateClips, driving: CandidateClips
) -> list[ClipPair]:
    """The protocol's pairs among usable clips, sorted by id. source, driving: the same object where both come
    from one corpus."""
    if protocol.pair_list:
        second = "sound" if protocol.has_other_sound else "driving"
        columns = FRAME_LIST_COLUMNS if protocol.sweep is None else FRAME_LIST_COLUMNS[:1]
        path = Path(protocol.pair_list).expanduser()
        listed = read_pair_list(path, source.keys, driving.keys, second, columns)
    else:
        listed = [ListedPair(one, other) for one, other in _sampled_clips(protocol, source, driving)]
    if not listed:
        count = len({*source.keys, *driving.keys})
        raise UserError(
            f"no pair among {count} test clips: {protocol.kind} takes clips of two identities; "
            "raise data.test_fraction"
        )
    return sorted(
        (_pair(protocol, one, source.clips, driving.clips) for one in listed), key=lambda pair: pair.id
    )


def _sampled_clips(
    protocol: EvaluationProtocol, source: CandidateClips, driving: CandidateClips
) -> list[tuple[str, str]]:
    if not protocol.joins_clips:
        return [(key, key) for key in spread_evenly(source.keys, protocol.max_pairs or len(source.keys))]
    if source is driving:
        return sample_cross_pairs(source.keys, protocol.seed, protocol.max_pairs)
    return sample_cross_corpus_pairs(source.keys, driving.keys, protocol.seed, protocol.max_pairs)


def _pair(
    protocol: EvaluationProtocol, listed: ListedPair, sources: ClipFamilyIndex, drivings: ClipFamilyIndex
) -> ClipPair:
    """sources, drivings: what knows of the clips. The second clip of a pair drives, or is heard alone.
    UserError for a list with frames that a clip does not have, or that pairs two clips where the protocol
    pairs one with itself."""
    if protocol.joins_clips and listed.source == listed.driving:
        raise UserError(
            f"{protocol.pair_list} pairs {listed.source} with itself, and {protocol.kind} takes two clips; "
            "name another one"
        )
    if not protocol.joins_clips and listed.source != listed.driving:
        raise UserError(
            f"{protocol.pair_list} pairs {listed.source} with {listed.driving}, and {protocol.kind} pairs "
            "each clip with itself; name one clip in both columns"
        )
    seen = listed.source if protocol.has_other_sound else listed.driving
    of_seen = sources if protocol.has_other_sound else drivings
    indices = list(listed.source_frames) or source_indices(
        sources.frame_count(listed.source), protocol.sources
    )
    length = of_seen.frame_count(seen)
    if protocol.has_other_sound:
        length = min(length, drivings.frame_count(listed.driving))
    frames = list(listed.driving_frames) or driving_indices(
        length, protocol.frame_stride, protocol.max_frames, indices if protocol.has_truth else []
    )
    for numbers, count in ((indices, sources.frame_count(listed.source)), (frames, length)):
        if max(numbers, default=0) >= count:
            raise UserError(
                f"{protocol.pair_list}: {listed.source} with {listed.driving}: frame {max(numbers)} of "
                f"{count}, counted from 0"
            )
    if not frames or (protocol.has_truth and set(frames) & set(indices)):
        problem = "a source frame is to be scored" if frames else "no driving frame is left"
        raise UserError(f"{listed.source} with {listed.driving}: {problem}; name other frames in pair_list")
    if protocol.sweep is not None:
        frames = indices[:1] * len(protocol.sweep.values)
    sound = {"sound_recording": drivings.recording_of(listed.driving), "sound_clip": listed.driving}
    return ClipPair(
        id=cross_pair_id(listed.source, listed.driving) if protocol.joins_clips else listed.source,
        source_recording=sources.recording_of(listed.source),
        source_clip=listed.source,
        source_frames=tuple(indices),
        driving_recording=of_seen.recording_of(seen),
        driving_clip=seen,
        driving_frames=tuple(frames),
        **(sound if protocol.has_other_sound else {}),
    )


# --- the table ----------------------------------------------------------------------------------------------
def write_pairs(path: Path, pairs: Sequence[ClipPair]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = hash_bucket_count(len(pairs), PAIRS_PER_PACK)
    rows = [{**asdict(pair), "recordings": pair.recordings, "bucket": recording_bucket(pair.id, count)}
            for pair in pairs]  # fmt: skip
    texts, numbers = pa.list_(pa.string()), pa.list_(pa.int32())
    schema = pa.schema([
        ("id", pa.string()), ("bucket", pa.int32()), ("recordings", texts),
        ("source_recording", pa.string()), ("source_clip", pa.string()), ("source_frames", numbers),
        ("driving_recording", pa.string()), ("driving_clip", pa.string()), ("driving_frames", numbers),
        ("sound_recording", pa.string()), ("sound_clip", pa.string()),
    ])  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


def write_pair_list(path: Path, pairs: Sequence[ClipPair]) -> None:
    """What other code needs to generate the same pairs: clips, numbers of frames, and how to call its
    files."""
    with path.open("w", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["file", "source", "source_frames", "driving", "driving_frames", "sound"])
        for pair in pairs:
            frames = (" ".join(map(str, some)) for some in (pair.source_frames, pair.driving_frames))
            source, driving = frames
            sound = pair.sound_clip or pair.driving_clip
            rows.writerow(
                [pair_file_name(pair.id), pair.source_clip, source, pair.driving_clip, driving, sound]
            )


def pair_file_name(pair: str) -> str:
    """Id of a pair -> what its files are called: the parts of a clip's key hold no dot, and "#" is none for a
    file's name."""
    if not _PAIR_ID.fullmatch(pair):
        raise ValueError(f"pair {pair!r}: expected letters, digits, '_', '-' and '#' only")
    return pair.replace("#", ".")


def read_pairs(path: Path) -> list[ClipPair]:
    """pairs.parquet -> its pairs, sorted by id."""
    import pyarrow.parquet as pq

    return [ClipPair.from_row(cast("PairRow", row)) for row in pq.read_table(path).to_pylist()]


def pair_list_digest(pairs: Sequence[ClipPair]) -> str:
    """Eight characters that are others where clips, or their frames, are others."""
    rows = [f"{pair.id} {pair.source_frames} {pair.driving_frames} {pair.sound_clip}" for pair in pairs]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:8]
