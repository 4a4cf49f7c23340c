"""Trials of the check of who is who: mistakes are put into clips of people who are known, and looked for.

A person is a list of recordings, a recording a list of clips.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipelines.corpus.identity_check import (
    WRONG_NAME,
    FaceClips,
    check_clip_names,
    compare_splits,
    find_people,
)
from pipelines.corpus.near_duplicates import find_near_duplicates
from pipelines.preprocess.identity import IdentityConfig


class Clip(NamedTuple):
    key: str
    embeddings: np.ndarray
    """(K,D)"""
    landmarks: np.ndarray
    """(T,68,2)"""


class Trial(NamedTuple):
    found: bool
    false_names: int
    pairs: int
    """Compared."""


Recording = list[Clip]
People = Mapping[str, list[Recording]]


def rename_clips(clips, identity, recording=""):
    """The same clips under another name, and of another recording."""
    found = []
    for clip in clips:
        _, old, start, end = clip.key.split("#")
        found.append(clip._replace(key=f"{identity}#{recording or old}#{start}#{end}"))
    return found


def face_clips(clips, test=()):
    """As the node reads them; test: identities of that split."""
    clips = [clip for clip in clips if len(clip.embeddings)]
    keys = [clip.key for clip in clips]
    return FaceClips(
        keys=keys, recordings=[key.split("#")[1] for key in keys],
        splits=["test" if key.split("#")[0] in test else "train" for key in keys],
        corpora=[""] * len(keys), frames=[clip.embeddings for clip in clips],
    )  # fmt: skip


def clips_with_two_names(people: People, twin: str, recordings: int, other_name: str) -> list[Clip]:
    """So many recordings of each person; as many more of `twin`, the last ones, have another name."""
    clips = [clip for name, own in people.items() if name != twin for one in own[:recordings] for clip in one]
    clips += [clip for one in people[twin][:-recordings][:recordings] for clip in one]
    return clips + [clip for one in people[twin][-recordings:] for clip in rename_clips(one, other_name)]


def list_with_recordings(people: People, least: int) -> list[str]:
    return sorted(name for name in people if len(people[name]) >= least)


def try_two_names(people: People, recordings: int, config: IdentityConfig, rng) -> Trial:
    """A person of train has another name in test, with a quarter of the others."""
    twin = str(rng.choice(list_with_recordings(people, recordings + 1)))
    others = rng.permutation([name for name in sorted(people) if name != twin])
    test = {str(name) for name in others[: max(1, len(people) // 4)]} | {"twin"}
    read = face_clips(clips_with_two_names(people, twin, recordings, "twin"), test)
    rows, pairs = compare_splits(find_people(read), read, config.threshold)
    leaks = {row.identity: row.same_as for row in rows if row.same_as}
    return Trial(leaks.get("twin") == twin, sum(name != "twin" for name in leaks), pairs)


def try_wrong_name(people: People, config: IdentityConfig, rng) -> Trial:
    """A clip of one person lies under the name of another."""
    owner, other = (str(name) for name in rng.choice(list_with_recordings(people, 2), 2, replace=False))
    moved = rename_clips(people[owner][-1][:1], other)
    clips = [clip for name, own in people.items() for one in (own[:-1] if name == owner else own)
             for clip in one]  # fmt: skip
    read = face_clips([*clips, *moved])
    known = find_people(read)
    issues = {row.clip: row for row in check_clip_names(known, read, config) if row.issue}
    row = issues.pop(moved[0].key, None)
    found = row is not None and row.issue == WRONG_NAME and row.nearest == owner
    return Trial(found, len(issues), len(read.keys) * len(known.people))


def try_clip_twice(people: People, copies: Mapping[str, Recording], rng) -> Trial:
    """A recording is there again under another name, encoded anew. copies: recording -> its clips encoded
    anew; of a video in parts (VIDEO.0, VIDEO.1) those of the whole video."""
    recording = str(rng.choice(sorted(name for name in copies if copies[name])))
    clips = [clip for own in people.values() for one in own for clip in one]
    clips += rename_clips(copies[recording], "another", "another")
    read = face_clips(clips)
    landmarks = {clip.key: clip.landmarks for clip in clips}
    number = {name: at for at, name in enumerate(sorted(set(read.recordings)))}
    pairs = find_near_duplicates(
        find_people(read).clips, np.array([number[name] for name in read.recordings]),
        lambda at: landmarks[read.keys[at]],
    )  # fmt: skip
    named = [{read.recordings[at].partition(".")[0] for at in (one.first, one.second)} for one in pairs]
    right = named.count({"another", recording.partition(".")[0]})
    return Trial(right > 0, len(named) - right, len(read.keys) * (len(read.keys) - 1) // 2)


def sum_trials(trials: Sequence[Trial]) -> tuple[int, int, int]:
    """-> in how many of them it was found, false names, pairs compared."""
    return (
        sum(one.found for one in trials),
        sum(one.false_names for one in trials),
        sum(one.pairs for one in trials),
    )
