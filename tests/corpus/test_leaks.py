from types import SimpleNamespace

import pytest

from pipelines.corpus.leaks import make_checked_splits, read_checked_splits, read_moved_identities
from pipelines.errors import UserError
from pipelines.eval.pairs import find_usable_test_clips
from pipelines.train.tables import split_rows
from tests.corpus.people import People
from tests.eval.conftest import Folder, KeptContext


def leaky_people():
    """twin and p03 are one person, in test and in train."""
    people = People()
    for recording in range(2):
        people.add("twin", f"twin{recording}", "test", face="p03")
    return people


def splits_of(people, folder, policy):
    check, context = people.check(folder)
    out = folder / "splits"
    out.mkdir()
    inputs = {"recordings": context.inputs["recordings"], "identity_check": check}
    made = KeptContext("splits", SimpleNamespace(data=SimpleNamespace(leaks=policy)), inputs, out)
    make_checked_splits(made)
    return Folder(out), context.inputs


def test_a_leak_is_refused_with_both_names_and_what_to_set(tmp_path):
    message = (
        r"by their faces: 1 \(twin is p03\), where some 0\.0 of 60 pairs are as near by chance; .* set "
        r"data\.NAME\.leaks to"
    )
    with pytest.raises(UserError, match=message):
        splits_of(leaky_people(), tmp_path, "refuse")


def test_a_leak_that_is_moved_trains_and_is_not_tested(tmp_path):
    people = leaky_people()
    artifact, inputs = splits_of(people, tmp_path, "move")
    assert read_moved_identities(artifact) == ["twin"]
    split = read_checked_splits(artifact)
    assert {name: split[name] for name in ("twin0", "p03r0", "p15r0")} == {
        "twin0": "train", "p03r0": "train", "p15r0": "test",
    }  # fmt: skip
    family = inputs["identity"].open_family()
    tested, _ = find_usable_test_clips({"clips": family}, split, 1)
    assert not [key for key in tested if key.startswith("twin")]
    tables = split_rows(
        {"recordings": artifact, "identity": inputs["identity"]}, {"identity": ("embeddings",)}
    )
    twin = {key for key in family.keys if key.startswith("twin")}
    assert twin <= set(tables.rows["train"].keys)
    assert not twin & set(tables.rows["test"].keys)


def test_without_a_leak_every_split_is_the_listed_one(tmp_path):
    people = People()
    for policy in ("refuse", "move"):
        artifact, _ = splits_of(people, tmp_path / policy, policy)
        assert read_checked_splits(artifact) == {name: row["split"] for name, row in people.rows.items()}
        assert read_moved_identities(artifact) == []


def test_a_test_split_of_leaks_alone_is_not_emptied(tmp_path):
    people = People(test=0)
    people.add("twin", "twin0", "test", face="p03")
    with pytest.raises(UserError, match="nobody is left to test on"):
        splits_of(people, tmp_path, "move")


def test_too_few_people_to_compare_are_no_proof(tmp_path):
    with pytest.raises(UserError, match="faces of 4 identities were found, 5 are needed"):
        splits_of(People(train=3, test=1), tmp_path, "refuse")
