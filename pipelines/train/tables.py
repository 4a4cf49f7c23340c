"""Which rows of a table a phase trains on, and which are held out, in an order that nothing else changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.dataset.clips import Clips, open_clip_families
from pipelines.dataset.recording_table import Person, read_recording_people
from pipelines.dataset.sampler import SplitClips
from pipelines.dataset.unit_rows import table_file

if TYPE_CHECKING:
    from storage.families import Artifact


@dataclass(frozen=True, slots=True)
class TableSplit:
    """A table in two. `rows`: "train" and "test", either of which may be empty."""

    stored: Clips
    rows: dict[str, SplitClips]
    people: Mapping[str, Person]
    """By recording, or other unit."""


def split_rows(
    inputs: Mapping[str, Artifact],
    reads: Mapping[str, Sequence[str]],
    units: str = "",
    tables: Collection[str] = (),
) -> TableSplit:
    """The rows that every family of a table has, split and grouped by identity as the table of their units
    says.

    `reads`: node -> the fields read from it. `units`: the input that lists the units; empty = the recordings.
    `tables`: the nodes whose own rows are read.
    """
    stored, keys = open_clip_families(inputs, reads, tables)
    listed = inputs[units or "recordings"]
    people = read_recording_people(listed, table_file(listed)) if units else read_recording_people(listed)
    groups: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for key in keys:
        person = people[stored.clips.recording_of(key)]
        groups[person.split].setdefault(person.identity or key, []).append(key)
    rows = {
        split: SplitClips(
            stored.clips, stored.fields, tuple(tuple(sorted(some)) for _, some in sorted(group.items()))
        )
        for split, group in groups.items()
    }
    return TableSplit(stored, rows, people)
