import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.eval import pair_sampling


@pytest.mark.parametrize(
    ("frames", "stride", "most", "expected"),
    [(5, 1, None, [1, 2, 3, 4]), (9, 3, None, [1, 4, 7]), (9, 1, 2, [1, 2])],
)
def test_the_source_frame_is_never_driven(frames, stride, most, expected):
    assert pair_sampling.driving_indices(frames, stride, most, [0]) == expected


def test_the_stride_counts_the_frames_that_are_left():
    assert pair_sampling.driving_indices(7, 2, None, [0, 1, 6]) == [2, 4]


@pytest.mark.parametrize(("sources", "expected"), [(1, [0]), (2, [0, 8]), (3, [0, 4, 8])])
def test_sources_are_the_first_the_last_and_the_middle_frame(sources, expected):
    assert pair_sampling.source_indices(9, sources) == expected


# --- two corpora --------------------------------------------------------------------------------------------
def joined(sources, drivings, seed=0, most=None):
    faces = [f"face{i}#picture{i}#000000#000001" for i in range(sources)]
    talks = [f"id{i % 7}#rec{i}#000000#000009" for i in range(drivings)]
    return faces, talks, pair_sampling.sample_cross_corpus_pairs(faces, talks, seed, most)


@given(
    sources=st.integers(0, 250),
    drivings=st.integers(0, 250),
    seed=st.integers(0, 9),
    most=st.sampled_from([1, 50, 200, None]),
    a_source=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_one_more_clip_of_either_corpus_moves_at_most_two_pairs(sources, drivings, seed, most, a_source):
    before = set(joined(sources, drivings, seed, most)[2])
    after = set(joined(sources + a_source, drivings + (not a_source), seed, most)[2])
    assert len(before - after) <= 2
    assert len(after - before) <= 2


def test_sources_are_of_one_corpus_and_drivings_of_the_other_and_few_are_left_out():
    faces, talks, found = joined(10, 100)
    assert {source for source, _ in found} == set(faces)
    assert {driving for _, driving in found} < set(talks)
    assert 10 <= len(found) <= 20


def test_a_person_in_both_corpora_is_not_paired_with_himself():
    keys = ["ann#a#000000#000009"]
    assert pair_sampling.sample_cross_corpus_pairs(keys, ["ann#b#000000#000009"], 0, None) == []


def test_a_list_without_the_columns_names_them(tmp_path):
    (tmp_path / "list.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="expected rows under the columns source and driving, found a, b"):
        pair_sampling.read_pair_list(tmp_path / "list.csv", [], [])


def test_a_list_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"pair_list .*none\.csv cannot be read"):
        pair_sampling.read_pair_list(tmp_path / "none.csv", [], [])
