"""Pairs of clips that a model trains on."""

from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.dataset.clip_pairs import clip_pairs, identity_of, list_clip_pairs
from pipelines.dataset.recording_table import Person
from pipelines.errors import UserError

RECORDINGS = {f"id{i}#rec{i}{c}#000000#000006": f"rec{i}{c}" for i in range(8) for c in "ab"}
PEOPLE = {
    recording: Person(identity_of(key), "test" if key < "id2" else "train")
    for key, recording in RECORDINGS.items()
}


def sides(rows):
    return {(row["source_clip"], row["driving_clip"]) for row in rows}


def test_a_pair_shows_two_people_of_one_split():
    rows = clip_pairs(RECORDINGS, PEOPLE, 0, 1)
    assert {row["split"] for row in rows} == {"train", "test"}
    for row in rows:
        people = [PEOPLE[recording] for recording in (row["source_recording"], row["driving_recording"])]
        assert people[0].identity != people[1].identity
        assert {row["split"]} == {one.split for one in people}
        assert row["identity"] == people[0].identity == identity_of(row["source_clip"])
        assert row["recordings"] == sorted([row["source_recording"], row["driving_recording"]])


def test_each_round_adds_pairs_and_keeps_those_before():
    once, twice = (sides(clip_pairs(RECORDINGS, PEOPLE, 0, rounds)) for rounds in (1, 2))
    assert once < twice


def test_another_seed_pairs_others():
    assert sides(clip_pairs(RECORDINGS, PEOPLE, 0, 1)) != sides(clip_pairs(RECORDINGS, PEOPLE, 5, 1))


def test_one_more_clip_changes_two_pairs_of_a_round_at_most():
    whole = sides(clip_pairs(RECORDINGS, PEOPLE, 0, 1))
    for key in RECORDINGS:
        fewer = {other: recording for other, recording in RECORDINGS.items() if other != key}
        without = sides(clip_pairs(fewer, PEOPLE, 0, 1))
        assert len(whole - without) <= 2
        assert len(without - whole) <= 1


@pytest.fixture
def context(family, tmp_path):
    """Clips of three people, one of them in the test split; landmarks of all but the first clip."""
    rows = [
        {"id": family.recording_of(key), "identity": identity_of(key),
         "split": "test" if key.startswith("id2") else "train"}
        for key in family.keys
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "recordings.parquet")
    some = type(family)({key: family.samples[key] for key in family.keys[1:]})
    inputs = {
        "recordings": SimpleNamespace(path=lambda name: tmp_path / name),
        "clips": SimpleNamespace(family=lambda: family), "keypoints": SimpleNamespace(family=lambda: some),
    }  # fmt: skip
    return SimpleNamespace(
        node="clip_pairs.toy", config=SimpleNamespace(seed=0, rounds=3), inputs=inputs, out=tmp_path,
        progress=lambda done, total, note: None,
    )  # fmt: skip


def test_clips_that_a_family_lacks_are_in_no_pair(context, family):
    list_clip_pairs(context)
    rows = pq.read_table(context.out / "clip_pairs.parquet").to_pylist()
    used = {row[f"{side}_clip"] for row in rows for side in ("source", "driving")}
    assert used == set(family.keys[1:4])


def test_a_corpus_of_one_person_in_each_split_is_refused(context, family):
    alone = [key for key in family.keys if not key.startswith("id1")]
    context.inputs["keypoints"].family = lambda: type(family)({key: family.samples[key] for key in alone})
    with pytest.raises(
        UserError,
        match=r"clip_pairs.toy: no pair among 3 clips that clips, keypoints have: a pair takes clip",
    ):
        list_clip_pairs(context)
