import numpy as np
import pytest

from pipelines.corpus import identity_check
from pipelines.corpus.identity_check import (
    UNLIKE_OTHERS,
    WRONG_NAME,
    read_clip_rows,
    read_duplicate_rows,
    read_identity_rows,
    read_summary,
)
from tests.corpus.people import People
from tests.corpus.test_near_duplicates import cut_anew


@pytest.fixture
def people():
    return People()


def same_as(artifact):
    return {row.identity: row.same_as for row in read_identity_rows(artifact) if row.same_as}


def test_people_of_two_splits_who_are_different_are_told_apart(people, tmp_path):
    artifact, context = people.check(tmp_path)
    rows = {row.identity: row for row in read_identity_rows(artifact)}
    assert len(rows) == 16
    assert same_as(artifact) == {}
    assert rows["p15"].nearest in {f"p{n:02d}" for n in range(12)}
    assert rows["p00"].nearest in {f"p{n}" for n in range(12, 16)}
    assert rows["p15"].recordings == ["p15r0", "p15r1", "p15r2"]
    assert read_summary(artifact).compared_pairs == 48
    assert (read_clip_rows(artifact), read_duplicate_rows(artifact)) == ([], [])
    assert context.figures == {
        "identity/leaks": 0,
        "identity/clips_unlike_own_identity": 0,
        "identity/near_duplicates": 0,
    }


def test_one_person_under_two_names_in_two_splits_is_named(people, tmp_path):
    for recording in range(2):
        people.add("twin", f"twin{recording}", "test", face="p03")
    artifact, _ = people.check(tmp_path)
    assert same_as(artifact) == {"twin": "p03"}
    row = next(row for row in read_identity_rows(artifact) if row.identity == "twin")
    assert (row.nearest, row.split, row.clips) == ("p03", "test", 2)
    assert row.nearest_clip.startswith("p03#")
    assert row.distance < 0


def test_a_third_name_is_found_by_way_of_the_second(people, tmp_path, monkeypatch):
    """The second test name is too far from the training name, but near the first test name."""
    for name in ("twin", "other"):
        people.add(name, name, "test", face="p03")
    distances = identity_check._distances

    def far_from_train(known, one, others):
        found = distances(known, one, others)
        number = known.people.index(("", "other")), known.people.index(("", "p03"))
        if number[0] in one and number[1] in others:
            found[list(one).index(number[0]), list(others).index(number[1])] = 9.0
        return found

    monkeypatch.setattr(identity_check, "_distances", far_from_train)
    assert same_as(people.check(tmp_path)[0]) == {"other": "twin", "twin": "p03"}


def test_a_clip_under_a_wrong_name_is_named_with_whose_it_is(people, tmp_path):
    key = people.add("p01", "p01r9", "train", face="p05")
    (row,) = read_clip_rows(people.check(tmp_path)[0])
    assert (row.clip, row.issue, row.nearest) == (key, WRONG_NAME, "p05")
    assert row.nearest_distance < 0 < row.own_distance


def test_a_clip_of_somebody_unknown_is_unlike_the_others(people, tmp_path):
    key = people.add("p01", "p01r9", "train", face="stranger")
    (row,) = read_clip_rows(people.check(tmp_path)[0])
    assert (row.clip, row.issue) == (key, UNLIKE_OTHERS)


def test_a_clip_that_is_there_twice_is_named_under_any_names(people, tmp_path):
    first = "p02#p02r0#000000#000060"
    second = people.add("copy", "copy0", "test", face="p02")
    people.embeddings[second] = people.embeddings[first] + 0.1
    people.landmarks[second] = cut_anew(people.rng, people.landmarks[first], 9)
    (row,) = read_duplicate_rows(people.check(tmp_path)[0])
    assert {row.first, row.second} == {first, second}
    assert abs(row.shift) == 9


def test_a_corpus_that_is_only_evaluated_is_compared_with_those_that_are_trained_on(people, tmp_path):
    trained = People(seed=1)
    people.place["p14"] = trained.place["p04"]
    for recording in range(3):
        people.add("p14", f"p14r{recording}", "test")
    others = trained.inputs(tmp_path / "trained")
    others = {f"trained_0.{role}": others[role] for role in ("recordings", "identity")}
    artifact, _ = people.check(tmp_path, others)
    row = next(row for row in read_identity_rows(artifact) if row.identity == "p14")
    assert (row.same_as, row.nearest, row.nearest_corpus, row.nearest_clip) == ("p04", "p04", "folder", "")
    assert len(read_identity_rows(artifact)) == 16


def test_clips_without_a_face_are_left_out(people, tmp_path):
    people.embeddings["p00#p00r0#000000#000060"] = np.empty((0, 0), np.float32)
    artifact, _ = people.check(tmp_path)
    assert next(row.clips for row in read_identity_rows(artifact) if row.identity == "p00") == 2


def test_with_too_few_people_nobody_is_compared(tmp_path):
    artifact, _ = People(train=3, test=1).check(tmp_path)
    summary = read_summary(artifact)
    assert (summary.enough, summary.identities) == (False, 4)
    assert read_identity_rows(artifact) == []


def test_the_same_corpus_gives_the_same_bytes(people, tmp_path):
    one, _ = people.check(tmp_path / "one")
    other, _ = people.check(tmp_path / "other")
    assert [one.path(name).read_bytes() for name in one.files] == [
        other.path(name).read_bytes() for name in other.files
    ]
