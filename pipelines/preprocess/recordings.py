"""The node `recordings`: what a source lists, with its split by identity and its bucket, as a table
(dataset/recording_table.py)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from msgspec import Struct, defstruct, field

from pipelines.dataset.recording_table import Recording, write_recording_tables
from pipelines.errors import UserError
from pipelines.preprocess.sources import (
    SOURCES,
    RecordingListing,
    load_data_source_function,
    source_settings_class,
)
from pipelines.preprocess.sources.common.files import InvalidLine, check_id, digest_each_file
from pipelines.preprocess.sources.common.rows import ListedRecording, RejectRow, make_reject_row
from pipelines.preprocess.sources.common.source_tracks import find_tracks_time_span, overlapping_tracks

if TYPE_CHECKING:
    from pipelines.engine.node import NodeContext


if TYPE_CHECKING:

    class SourceSettings(Struct, frozen=True, kw_only=True):
        """A field `source` that names one of SOURCES, and one for the settings of each."""

        source: str = ""

else:
    SourceSettings = defstruct(
        "SourceSettings",
        [
            ("source", Literal[tuple(SOURCES)], "synthetic"),
            *(
                (name, config := source_settings_class(name), field(default_factory=config))
                for name in SOURCES
            ),
        ],
        frozen=True,
        kw_only=True,
        module=__name__,
    )


LEAKS_REPORTED = "report"


class DataConfig(SourceSettings, frozen=True, kw_only=True):
    """Besides these fields: `source`, the name of one of SOURCES, and under each one's name its own settings,
    of which those of the source in use count."""

    as_before: ClassVar[Mapping[str, object]] = {"leaks": LEAKS_REPORTED}

    test_fraction: float = 0.1
    """Share of the identities held out for evaluation, where the source does not say; at least one if above
    0. 1: all of them, of a corpus that nothing is trained on."""
    clips_per_shard: int = 16
    """Recordings in a shard, at most on average: the count of shards is the power of two that comes near."""
    limit: int | None = None
    """Only so many recordings: an even sample that stays the same as the source grows little."""
    sound: Literal["required", "optional"] = "required"
    """required: a recording without sound is rejected; optional: it gets silence."""
    pin: str | None = None
    """Name of a frozen corpus version to use in place of what the source lists now."""
    leaks: Literal["report", "refuse", "move"] = LEAKS_REPORTED
    """What to do about people of the test split whose faces are those of a training identity under another
    name: show them on the corpus page, refuse to train and evaluate, or move them to the training split."""

    def __post_init__(self) -> None:
        if not 0 <= self.test_fraction <= 1:
            raise ValueError(f"test_fraction {self.test_fraction}: expected a share from 0 to 1")
        if self.clips_per_shard < 1:
            raise ValueError(f"clips_per_shard {self.clips_per_shard}: expected at least 1")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit {self.limit}: expected at least 1, or none")


def digest_external_files(config: DataConfig) -> dict[str, str]:
    """What the source reads outside the store -> {name: digest}, for the key of `recordings`."""
    name = config.source
    found = load_data_source_function(name, "digest_external_files")
    return found(getattr(config, name)) if found else {}


def make_recordings_table(ctx: NodeContext) -> None:
    """Whole node: the source's list, completed, checked and sorted, as Parquet tables in ctx.out."""
    data: DataConfig = ctx.config
    rows, rejects = list_corpus_recordings(data)
    notes = list_overlapping_track_rejects(rows)
    write_recording_tables(ctx.out, rows, rejects, notes)
    identities = {row["identity"]: row["split"] for row in rows}
    lost = f", {len(rejects):,} rows of the source rejected: {rejects[0]['sentence']}" if rejects else ""
    found = load_data_source_function(data.source, "describe_skipped_files")
    if found and (skipped := found(getattr(data, data.source))):
        lost += f"; {skipped}"
    lost += f", {len(notes):,} with tracks that overlap in time" if notes else ""
    ctx.report_progress(len(rows), len(rows), f"{len(rows):,} recordings of {len(identities):,} people{lost}")
    ctx.log_metrics(
        {
            "recordings": len(rows),
            "recordings_test": sum(row["split"] == "test" for row in rows),
            "identities": len(identities),
            "identities_test": sum(split == "test" for split in identities.values()),
            "rejected_rows": len(rejects),
            "tracks": sum(len(row["tracks"]) for row in rows),
            "overlapping_tracks": sum(len(overlapping_tracks(row["tracks"])) for row in rows),
        }
    )


class RecordingTable(NamedTuple):
    """rows: sorted by id. rejects: the rows of the source that are left out."""

    rows: list[Recording]
    rejects: list[RejectRow]


def list_corpus_recordings(data: DataConfig) -> RecordingTable:
    """The configured source -> complete rows, and rejects."""
    listed = load_data_source_function(data.source)(getattr(data, data.source))
    listing = move_unsafe_ids_to_rejects(
        listed if isinstance(listed, RecordingListing) else RecordingListing(listed, [])
    )
    listed_rows: list[ListedRecording]
    listed_rows, rejects = reject_duplicate_files(move_duplicate_ids_to_rejects(listing))
    if not listed_rows:
        raise UserError(
            f"data.NAME.source {data.source} lists no recordings ({len(rejects)} of its rows were rejected"
            + (f", the first: {rejects[0]['sentence']})" if rejects else ")")
        )
    splits = split_identities(listed_rows, data.test_fraction)
    listed_rows = [{**row, "split": splits[row["identity"]]} for row in listed_rows]
    if data.limit is not None:
        listed_rows = _sample(listed_rows, data.limit)
    count = hash_bucket_count(len(listed_rows), data.clips_per_shard)
    rows: list[Recording] = [
        {
            **row,
            "span": row.get("span", find_tracks_time_span(row["tracks"])),
            "source": data.source,
            "bucket": recording_bucket(row["id"], count),
        }
        for row in listed_rows
    ]
    return RecordingTable(sorted(rows, key=lambda row: row["id"]), rejects)


def split_identities(rows: Sequence[ListedRecording], test_fraction: float) -> dict[str, str]:
    """identity -> train or test, from the identity alone, so that it stays as the corpus grows.

    The source's word counts where it has one. Otherwise both splits get at least one of two or more
    identities, unless the fraction is 0 or 1.
    """
    split_of: dict[str, str] = {}
    for row in rows:
        if split_of.get(row["identity"], "") != "test":
            split_of[row["identity"]] = row["split"]
    open_ones = sorted((identity for identity, split in split_of.items() if not split), key=hash_fraction)
    splits = {i: s or ("test" if hash_fraction(i) < test_fraction else "train") for i, s in split_of.items()}
    if len(open_ones) > 1 and len(open_ones) == len(split_of) and 0 < test_fraction < 1:
        splits |= {open_ones[0]: "test", open_ones[-1]: "train"}
    return splits


def hash_bucket_count(recordings: int, per_shard: int) -> int:
    """The power of two nearest above recordings / per_shard: it changes only when the corpus doubles."""
    wanted = max(1, -(-recordings // per_shard))
    return 1 << (wanted - 1).bit_length()


def recording_bucket(id: str, count: int) -> int:
    """Twice the count splits every bucket b in two: b and b + count."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big") & (count - 1)


def hash_fraction(text: str) -> float:
    """A stable number in [0,1) for a name."""
    return int.from_bytes(hashlib.sha256(f"split {text}".encode()).digest()[:6], "big") / 2**48


def move_unsafe_ids_to_rejects(listed: RecordingListing) -> RecordingListing:
    """Rows whose id or identity has no place in the key of a clip become rejects."""
    rows: list[ListedRecording] = []
    rejects = list(listed.rejects)
    for row in listed.rows:
        try:
            check_id("id", row["id"])
            check_id("identity", row["identity"])
            rows.append(row)
        except InvalidLine as error:
            rejects.append(make_reject_row(row["id"], row["uri"], 0, *error.args))
    return RecordingListing(rows, rejects)


def move_duplicate_ids_to_rejects(listed: RecordingListing) -> RecordingListing:
    """Rows of an id that stands before become rejects."""
    rows: dict[str, ListedRecording] = {}
    rejects = list(listed.rejects)
    for row in listed.rows:
        if row["id"] in rows:
            sentence = f"id {row['id']} is listed twice; the first is {rows[row['id']]['uri']!r}"
            rejects.append(make_reject_row(row["id"], row["uri"], 0, "duplicate_id", sentence))
        else:
            rows[row["id"]] = row
    return RecordingListing(list(rows.values()), rejects)


def reject_duplicate_files(listed: RecordingListing) -> RecordingListing:
    """Rows whose local file holds the same bytes as the file of a row before become rejects.

    Only files of equal size are read, once: a mirror may hold terabytes.
    """
    sizes: dict[int, dict[str, str]] = {}
    for row in listed.rows:
        if os.path.isabs(row["uri"]) and os.path.isfile(row["uri"]):
            sizes.setdefault(os.path.getsize(row["uri"]), {}).setdefault(row["uri"], row["id"])
    alike = {uri: id for size, files in sizes.items() if size and len(files) > 1 for uri, id in files.items()}
    first: dict[str, str] = {}
    copies: dict[str, str] = {}
    for path, digest in digest_each_file(Path(uri) for uri in alike).items():
        kept = first.setdefault(digest, str(path))
        if kept != str(path):
            copies[str(path)] = kept
    rejects = [
        make_reject_row(row["id"], row["uri"], 0, "duplicate_content",
               f"{row['id']} is the same file as {alike[copies[row['uri']]]}, byte for byte")
        for row in listed.rows if row["uri"] in copies
    ]  # fmt: skip
    return RecordingListing(
        [row for row in listed.rows if row["uri"] not in copies], [*listed.rejects, *rejects]
    )


def list_overlapping_track_rejects(rows: Sequence[Recording]) -> list[RejectRow]:
    """A note for every recording of which tracks run at the same time, in the columns of rejects."""
    notes = []
    for row in rows:
        if pairs := overlapping_tracks(row["tracks"]):
            ends = " and ".join(f"{track['start']}-{track['end']}" for track in pairs[0])
            clock = f"{pairs[0][0]['fps']:g} fps" if pairs[0][0]["fps"] else "its own frames"
            share = f"{len(pairs)} of {len(row['tracks'])} tracks"
            sentence = f"{share} begin before the one before them ends, the first are {ends} at {clock}"
            notes.append(make_reject_row(row["id"], row["uri"], 0, "overlapping_tracks", sentence))
    return notes


def _sample(rows: Sequence[ListedRecording], limit: int) -> list[ListedRecording]:
    """The first `limit` in the order of a hash; if that leaves a split empty, its first takes the last
    place."""
    order = sorted(rows, key=lambda row: hash_fraction(row["id"]))
    kept, rest = order[:limit], order[limit:]
    for split in ("train", "test"):
        spare = next((row for row in rest if row["split"] == split), None)
        if limit > 1 and spare is not None and all(row["split"] != split for row in kept):
            kept[-1] = spare
    return kept
