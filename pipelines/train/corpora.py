"""Which clips a phase trains on and which are held out, in an order that depends on nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.dataset.clips import Clips, open_clips
from pipelines.dataset.recording_table import read_people
from pipelines.dataset.sampler import Corpus

if TYPE_CHECKING:
    from storage.families import Artifact


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
    inputs: Mapping[str, Artifact], reads: Mapping[str, Sequence[str]], frames_from: str = "clips"
) -> Split:
    """Clips that every family has, split as the recordings table says.

    `reads`: node -> the fields read from it. `frames_from`: the family whose frames the clips show.
    """
    stored, keys = open_clips(inputs, reads, frames_from)
    people = read_people(inputs["recordings"])
    groups: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for key in keys:
        person = people[stored.clips.recording_of(key)]
        groups[person.split].setdefault(person.identity, []).append(key)
    corpora = {
        split: Corpus(
            stored.clips, stored.fields, tuple(tuple(sorted(some)) for _, some in sorted(group.items()))
        )
        for split, group in groups.items()
    }
    return Split(stored, corpora, {name: person.split for name, person in people.items()})
