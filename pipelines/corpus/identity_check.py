"""Node `identity_check`: who is who by face, not by name.

A published split, or a folder's names, may give one person two names, on both sides of the split; a clip may
lie under a wrong name, or twice. Artifact: `identities.parquet` (a row a person: nearest person of the other
split), `clips.parquet` (a row a clip: distance from the person's other clips), `near_duplicates.parquet`, and
`summary.json`. Legend: M test identities, N others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct, convert
from msgspec.structs import asdict

from pipelines.corpus.identity_distance import (
    MIN_IDENTITIES,
    IdentityModel,
    fit_identity_model,
    mean_by_group,
)
from pipelines.corpus.near_duplicates import NearDuplicate, find_near_duplicates
from pipelines.dataset.clip_pairs import clip_identity
from pipelines.dataset.recording_table import read_recording_people, read_recordings

if TYPE_CHECKING:
    from pipelines.engine.node import NodeContext
    from pipelines.preprocess.identity import IdentityConfig
    from storage.families import Artifact, Family

IDENTITIES_FILE, CLIPS_FILE, DUPLICATES_FILE = (
    "identities.parquet",
    "clips.parquet",
    "near_duplicates.parquet",
)
SUMMARY_FILE = "summary.json"
OTHER_CORPUS_ROLE_PREFIX = "trained_"
"""In front of a number, a dot and `recordings` or `identity`: those of a corpus that a model of the run is
trained on and this one evaluates."""
WRONG_NAME, UNLIKE_OTHERS = "wrong name", "unlike its others"
READ_THREADS = 16


class PersonRow(Struct, frozen=True, kw_only=True):
    """A row of identities.parquet."""

    identity: str
    """As the clips' keys name it."""
    split: str
    clips: int
    recordings: list[str]
    sample_clip: str
    """The clip nearest to the mean of the person's."""
    nearest: str
    """The nearest identity of the other split; of a test identity, those of other corpora that a model is
    trained on too. Empty where there is none."""
    nearest_corpus: str
    """The source of that corpus, if it is another one."""
    nearest_clip: str
    """Its sample clip; empty if it is of another corpus."""
    distance: float | None
    """In standard deviations from the usual pair of two people (corpus/identity_distance.py)."""
    same_as: str
    """Of a test identity that is a training identity too: that one, or another test identity that is."""


class ClipRow(Struct, frozen=True, kw_only=True):
    """A row of clips.parquet."""

    clip: str
    own_distance: float | None
    """From the person's other clips, but for those with a worse issue; None of an only clip."""
    nearest: str
    """The nearest other identity, of clips with an issue."""
    nearest_distance: float | None
    issue: str
    """WRONG_NAME, UNLIKE_OTHERS, or empty."""


class DuplicateRow(Struct, frozen=True, kw_only=True):
    """A row of near_duplicates.parquet."""

    first: str
    second: str
    difference: float
    shift: int
    """Frame of the first that the second begins with."""


class CheckSummary(Struct, frozen=True, kw_only=True):
    """summary.json"""

    net: str
    threshold: float
    unlike: float
    identities: int
    """With a face."""
    enough: bool
    """Whether these are MIN_IDENTITIES; otherwise nobody is compared."""
    compared_pairs: int
    """Of a test identity and a training identity."""

    @property
    def expected_false_names(self) -> float:
        """So many of these pairs, if all are two people, are nearer than the threshold by chance: distances
        are standard deviations, and taken as Gaussian."""
        return self.compared_pairs * NormalDist().cdf(self.threshold)


class FaceClips(Struct, frozen=True, kw_only=True):
    """Clips with a face, of one corpus or of several."""

    keys: list[str]
    recordings: list[str]
    splits: list[str]
    corpora: list[str]
    """Source of the corpus of each, empty for that of the node."""
    frames: list[np.ndarray]
    """Embeddings (K,D) of each."""

    @property
    def people(self) -> list[tuple[str, str]]:
        """Corpus and identity of each clip."""
        return [(corpus, clip_identity(key)) for corpus, key in zip(self.corpora, self.keys, strict=True)]

    def merged_with(self, other: FaceClips) -> FaceClips:
        both = {name: [*getattr(self, name), *getattr(other, name)] for name in self.__struct_fields__}
        return FaceClips(**both)


class PeopleMeans(Struct, frozen=True):
    """The people of some clips, in the model's space."""

    people: list[tuple[str, str]]
    """Corpus and identity, sorted."""
    number: np.ndarray
    """(C,) of each clip's person among them."""
    clips: np.ndarray
    """(C,D) means of clips."""
    means: np.ndarray
    """(N,D) means of people."""
    counts: np.ndarray
    """(N,) clips of each."""
    model: IdentityModel


def check_identities(ctx: NodeContext) -> None:
    """The whole node. Inputs: `recordings`, `identity` and `keypoints` of the corpus, and `trained_K.`
    recordings and identity of others."""
    config: IdentityConfig = ctx.config.identity
    own = read_face_clips(ctx.inputs["recordings"], ctx.inputs["identity"])
    every = own
    for role in sorted(ctx.inputs):
        if role.startswith(OTHER_CORPUS_ROLE_PREFIX) and role.endswith(".recordings"):
            identity = ctx.inputs[f"{role.removesuffix('recordings')}identity"]
            every = every.merged_with(read_face_clips(ctx.inputs[role], identity, "train"))
    identities, clips, duplicates = [], [], []
    enough = len(set(every.people)) >= MIN_IDENTITIES
    pairs = 0
    if enough:
        known = find_people(every)
        identities, pairs = compare_splits(known, every, config.threshold)
        clips = check_clip_names(known, every, config)
        duplicates = list_near_duplicates(known, own, ctx.inputs["keypoints"].open_family())
    summary = CheckSummary(
        net=config.net, threshold=config.threshold, unlike=config.unlike, enough=enough,
        identities=len(set(own.people)), compared_pairs=pairs,
    )  # fmt: skip
    write_check(ctx.out, identities, clips, duplicates, summary)
    leaks = sum(bool(row.same_as) for row in identities)
    issues = sum(bool(row.issue) for row in clips)
    ctx.report_progress(
        len(own.keys), len(own.keys),
        f"{leaks:,} test identities are training identities, {issues:,} clips may lie under a wrong name, "
        f"{len(duplicates):,} are there twice" if enough else f"fewer than {MIN_IDENTITIES} identities",
    )  # fmt: skip
    ctx.log_metrics(
        {
            "identity/leaks": leaks,
            "identity/clips_unlike_own_identity": issues,
            "identity/near_duplicates": len(duplicates),
        }
    )


# --- reading ------------------------------------------------------------------------------------------------
def read_face_clips(recordings: Artifact, identity: Artifact, only_split: str = "") -> FaceClips:
    """The clips of a corpus that show a face. only_split: of another corpus, those of this split alone."""
    people, family = read_recording_people(recordings), identity.open_family()
    source = read_recordings(recordings)[0]["source"] if only_split else ""
    keys = [key for key in family.keys
            if not only_split or people[family.recording_of(key)].split == only_split]  # fmt: skip
    with ThreadPoolExecutor(READ_THREADS) as pool:
        frames = list(pool.map(lambda key: family.read(key, ["embeddings"])["embeddings"], keys))
    seen = [at for at, some in enumerate(frames) if len(some)]
    units = [family.recording_of(keys[at]) for at in seen]
    return FaceClips(
        keys=[keys[at] for at in seen],
        recordings=units,
        splits=[people[unit].split for unit in units],
        corpora=[source] * len(seen),
        frames=[frames[at] for at in seen],
    )


def find_people(clips: FaceClips) -> PeopleMeans:
    people = sorted(set(clips.people))
    numbers = {person: at for at, person in enumerate(people)}
    number = np.array([numbers[person] for person in clips.people])
    model = fit_identity_model(clips.frames, number)
    projected = model.project(np.stack([some.mean(0, dtype=np.float64) for some in clips.frames]))
    means, counts = mean_by_group(projected, number)
    return PeopleMeans(people, number, projected, means, counts, model)


# --- people -------------------------------------------------------------------------------------------------
def compare_splits(known: PeopleMeans, clips: FaceClips, threshold: float) -> tuple[list[PersonRow], int]:
    """A row for each identity of the node's corpus, and how many pairs were compared."""
    split = _split_of_people(known, clips)
    test = np.array([at for at, (corpus, _) in enumerate(known.people) if not corpus and split[at] == "test"])
    train = np.array([at for at in range(len(known.people)) if split[at] == "train"])
    nearest: dict[int, tuple[int, float]] = {}
    same: dict[int, int] = {}
    if len(test) and len(train):
        distance = _distances(known, test, train)  # (M,N)
        best = distance.argmin(1)
        nearest = {int(one): (int(train[at]), float(distance[row, at]))
                   for row, (one, at) in enumerate(zip(test, best, strict=True))}  # fmt: skip
        back = distance.argmin(0)
        nearest |= {int(one): (int(test[at]), float(distance[at, column]))
                    for column, (one, at) in enumerate(zip(train, back, strict=True))}  # fmt: skip
        same = find_same_people(known, test, nearest, threshold)
    sample = _sample_clips(known, clips)
    recordings: dict[int, set[str]] = {}
    for at, recording in zip(known.number.tolist(), clips.recordings, strict=True):
        recordings.setdefault(at, set()).add(recording)
    rows = []
    for at, (corpus, identity) in enumerate(known.people):
        if corpus:
            continue
        other, distance_there = nearest.get(at, (None, None))
        other_corpus, name = known.people[other] if other is not None else ("", "")
        rows.append(PersonRow(
            identity=identity, split=split[at], clips=int(known.counts[at]),
            recordings=sorted(recordings[at]), sample_clip=sample[at], nearest=name,
            nearest_corpus=other_corpus,
            nearest_clip=sample[other] if other is not None and not other_corpus else "",
            distance=distance_there, same_as=known.people[same[at]][1] if at in same else "",
        ))  # fmt: skip
    return rows, len(test) * len(train)


def find_same_people(
    known: PeopleMeans, test: np.ndarray, nearest: Mapping[int, tuple[int, float]], threshold: float
) -> dict[int, int]:
    """Test identity -> the training identity that it is, or another test identity that is one: one person may
    have three names."""
    same = {int(one): nearest[one][0] for one in test if nearest[one][1] <= threshold}
    found = list(same)
    while found:
        rest = np.array([one for one in test if one not in same])
        if not len(rest):
            break
        distance = _distances(known, rest, np.array(found))
        best = distance.argmin(1)
        added = {int(one): found[at] for row, (one, at) in enumerate(zip(rest, best, strict=True))
                 if distance[row, at] <= threshold}  # fmt: skip
        same |= added
        found = list(added)
    return same


def _split_of_people(known: PeopleMeans, clips: FaceClips) -> list[str]:
    """test, if one of the person's clips is."""
    split = ["train"] * len(known.people)
    for at, name in zip(known.number.tolist(), clips.splits, strict=True):
        if name == "test":
            split[at] = "test"
    return split


def _distances(known: PeopleMeans, one: np.ndarray, others: np.ndarray) -> np.ndarray:
    return known.model.distances(
        known.means[one], known.counts[one], known.means[others], known.counts[others]
    )


def _sample_clips(known: PeopleMeans, clips: FaceClips) -> dict[int, str]:
    away = ((known.clips - known.means[known.number]) ** 2).sum(1)
    found: dict[int, str] = {}
    for at in np.argsort(away, kind="stable"):
        found.setdefault(int(known.number[at]), clips.keys[at])
    return found


# --- clips --------------------------------------------------------------------------------------------------
def check_clip_names(known: PeopleMeans, clips: FaceClips, config: IdentityConfig) -> list[ClipRow]:
    """A row for each clip of the node's corpus, in their order."""
    members: dict[int, list[int]] = {}
    for at, corpus in enumerate(clips.corpora):
        if not corpus:
            members.setdefault(int(known.number[at]), []).append(at)
    rows: dict[int, ClipRow] = {}
    for some in members.values():
        rows |= _check_clips_of_person(known, clips, some, config)
    return [rows[at] for at in sorted(rows)]


def _check_clips_of_person(
    known: PeopleMeans, clips: FaceClips, members: list[int], config: IdentityConfig
) -> dict[int, ClipRow]:
    """Clip -> its row. The worst clip is taken out first, and the rest compared again without it: a clip
    under a wrong name would make the others look unlike each other."""
    rows: dict[int, ClipRow] = {}
    left = list(members)
    while len(left) > 1:
        distance = _distances_to_other_clips(known, left)
        worst = np.argsort(-distance, kind="stable")[: 2 if len(left) == 2 else 1]
        found = [(left[at], _clip_issue(known, clips, left[at], float(distance[at]), config)) for at in worst]
        issues = sorted((one for one in found if one[1].issue), key=lambda one: one[1].issue != WRONG_NAME)
        if not issues:
            break
        worst_clip, rows[worst_clip] = issues[0]
        left.remove(worst_clip)
    distance = _distances_to_other_clips(known, left) if len(left) > 1 else [None]
    rows |= {at: ClipRow(clip=clips.keys[at], own_distance=None if own is None else float(own), nearest="",
                         nearest_distance=None, issue="")
             for at, own in zip(left, distance, strict=True)}  # fmt: skip
    return rows


def _distances_to_other_clips(known: PeopleMeans, clips: Sequence[int]) -> np.ndarray:
    """Numbers of a person's clips, two or more -> how far each is from the mean of the others."""
    values, others = known.clips[clips], len(clips) - 1
    rest = (values.sum(0) - values) / others
    ones = np.ones(len(clips))
    return known.model.paired_distances(values, ones, rest, others * ones)


def _clip_issue(
    known: PeopleMeans, clips: FaceClips, clip: int, own: float, config: IdentityConfig
) -> ClipRow:
    """The row of a clip that far from its person's other clips."""
    nearest, there = "", None
    if own > config.threshold:
        every = known.model.distances(known.clips[[clip]], np.ones(1), known.means, known.counts)[0]
        every[known.number[clip]] = np.inf
        best = int(every.argmin())
        nearest, there = known.people[best][1], float(every[best])
    wrong = there is not None and there <= config.threshold and there < own
    issue = WRONG_NAME if wrong else UNLIKE_OTHERS if own > config.unlike else ""
    return ClipRow(clip=clips.keys[clip], own_distance=own, nearest=nearest, nearest_distance=there,
                   issue=issue)  # fmt: skip


def list_near_duplicates(known: PeopleMeans, own: FaceClips, keypoints: Family) -> list[DuplicateRow]:
    """Clips of the node's corpus that are there twice; these stand first among the known ones."""
    units = {unit: at for at, unit in enumerate(sorted(set(own.recordings)))}
    recording = np.array([units[unit] for unit in own.recordings])

    def landmarks(at: int) -> np.ndarray:
        return keypoints.read(own.keys[at], ["landmarks"])["landmarks"]

    found: Sequence[NearDuplicate] = find_near_duplicates(known.clips[: len(own.keys)], recording, landmarks)
    return [
        DuplicateRow(
            first=own.keys[one.first], second=own.keys[one.second], difference=one.difference, shift=one.shift
        )
        for one in found
    ]


# --- files --------------------------------------------------------------------------------------------------
def write_check(
    folder: Path,
    identities: Sequence[PersonRow],
    clips: Sequence[ClipRow],
    duplicates: Sequence[DuplicateRow],
    summary: CheckSummary,
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"clips": pa.int64(), "shift": pa.int64(), "recordings": pa.list_(pa.string())}
    kinds |= dict.fromkeys(("distance", "own_distance", "nearest_distance", "difference"), pa.float64())
    for name, rows, kind in (
        (IDENTITIES_FILE, identities, PersonRow),
        (CLIPS_FILE, clips, ClipRow),
        (DUPLICATES_FILE, duplicates, DuplicateRow),
    ):
        schema = pa.schema([(field, kinds.get(field, pa.string())) for field in kind.__struct_fields__])
        table = pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)
        pq.write_table(table, folder / name, compression="zstd")
    (folder / SUMMARY_FILE).write_text(json.dumps(asdict(summary), indent=1, sort_keys=True) + "\n")


def read_identity_rows(artifact: Artifact) -> list[PersonRow]:
    return convert(_read(artifact, IDENTITIES_FILE), list[PersonRow])


def read_clip_rows(artifact: Artifact) -> list[ClipRow]:
    """Those of clips with an issue."""
    return convert([row for row in _read(artifact, CLIPS_FILE) if row["issue"]], list[ClipRow])


def read_duplicate_rows(artifact: Artifact) -> list[DuplicateRow]:
    return convert(_read(artifact, DUPLICATES_FILE), list[DuplicateRow])


def read_summary(artifact: Artifact) -> CheckSummary:
    return convert(json.loads(artifact.path(SUMMARY_FILE).read_text()), CheckSummary)


def _read(artifact: Artifact, name: str) -> list[dict[str, object]]:
    import pyarrow.parquet as pq

    return pq.read_table(artifact.path(name)).to_pylist()
