"""Which clips a phase trains on and which are held out, in an order that depends on nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.dataset.clips import Clips, open_clips
from pipelines.dataset.sampler import Corpus


@dataclass(frozen=True, slots=True)
class Split:
    """`corpora`: "train" and "test", either of which may be empty."""

    stored: Clips
    corpora: dict[str, Corpus]
    splits: Mapping[str, str]
    """Of every recording."""

    def of(self, key: str) -> str:
        """The split that a clip belongs to, whether or not every family has it."""
        return self.splits[self.stored.clips.recording_of(key)]


def split_clips(
    inputs: Mapping[str, Any], reads: Mapping[str, Sequence[str]], frames_from: str = "clips"
) -> Split:
    """Clips that every family has, split as the recordings table says.

    `reads`: node -> the fields read from it. `frames_from`: the family whose frames the clips show.
    """
    import pyarrow.parquet as pq

    stored, keys = open_clips(inputs, reads, frames_from)
    table = pq.read_table(
        inputs["recordings"].path("recordings.parquet"), columns=["id", "identity", "split"]
    )
    known = {row["id"]: row for row in table.to_pylist()}
    groups: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for key in keys:
        row = known[stored.clips.recording_of(key)]
        groups[row["split"]].setdefault(row["identity"], []).append(key)
    corpora = {
        split: Corpus(
            stored.clips, stored.fields, tuple(tuple(sorted(some)) for _, some in sorted(group.items()))
        )
        for split, group in groups.items()
    }
    return Split(stored, corpora, {name: row["split"] for name, row in known.items()})
