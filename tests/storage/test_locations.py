"""Paths in a store: made of validated parts alone."""

import pytest

from storage import locations
from storage.errors import InvalidInput


@pytest.mark.parametrize("name", ["", "..", "a/b", "a..b", "-a", "a b", "a" * 201, "ü"])
def test_a_name_that_could_lead_elsewhere_is_refused(name):
    with pytest.raises(InvalidInput, match="cannot be part of a path"):
        locations.pack_path(name, "key")


def test_a_trainings_step_count_sorts_as_text():
    paths = [locations.artifact_path("train.a.b", "k", steps) for steps in (9, 10, 200_000)]
    assert paths == sorted(paths)
    assert locations.artifact_path("train.a.b", "k") == "whole/train.a.b/k"


def test_a_shard_and_its_record_lie_side_by_side():
    shard, record = locations.pack_path("clips", "k"), locations.pack_record_path("clips", "k")
    assert (shard, record) == ("packs/clips/k.tar", "packs/clips/k.parquet")
