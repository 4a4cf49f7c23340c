import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidSettings
from pipelines.dataset.sampler import (
    SplitClips,
    WorkerShare,
    chunk_sample_indices,
    cross_pair_identities,
    iterate_sample_chunks,
    make_cross_sample,
    make_sample,
    prefetch_chunks,
    stack_samples,
)
from pipelines.errors import UserError


class CountingTask:
    """Draws a frame number; refuses the clips named."""

    def __init__(self, refused=()) -> None:
        self.refused = set(refused)

    def sample(self, rng, tables, training):
        clip = tables["clips"].pick_clip(rng)
        if clip.key in self.refused:
            return None
        clip.read_field("landmarks")
        return {"frame": np.array(rng.integers(clip.length)), "pixels": clip.frames([0])[0, 0, 0]}


@pytest.fixture
def corpus(family):
    groups = [tuple(k for k in family.keys if k.startswith(f"id{i}#")) for i in range(3)]
    return SplitClips(family, {"landmarks": family}, tuple(groups))


def chunks_of(corpus, seed=0, steps=range(1, 4), rank=0, world=1):
    return list(
        iterate_sample_chunks(
            CountingTask(), {"clips": corpus}, seed, steps, WorkerShare(4, 2, rank, world), 2, 4
        )
    )


def drawn_key(task, corpus, index):
    return make_sample(task, {"clips": corpus}, 0, index, True)[0]


def test_a_batch_is_a_function_of_seed_and_step(corpus):
    whole, tail = chunks_of(corpus), chunks_of(corpus, steps=range(3, 4))
    assert [c.keys for c in whole[4:]] == [c.keys for c in tail]
    assert all((a.arrays["frame"] == b.arrays["frame"]).all() for a, b in zip(whole[4:], tail, strict=True))
    other = chunks_of(corpus, seed=1)
    assert [c.arrays["frame"].tolist() for c in whole] != [c.arrays["frame"].tolist() for c in other]


def test_workers_share_the_same_samples(corpus):
    alone = chunks_of(corpus)
    shared = [chunks_of(corpus, rank=rank, world=2) for rank in range(2)]
    dealt = [chunk for pair in zip(*shared, strict=True) for chunk in pair]
    assert [(c.keys, c.arrays["frame"].tolist()) for c in dealt] == [
        (c.keys, c.arrays["frame"].tolist()) for c in alone
    ]


def test_a_batch_that_cannot_be_shared_says_what_to_change():
    assert chunk_sample_indices(2, 8, 2, 1, 2) == [range(10, 12), range(14, 16)]
    with pytest.raises(InvalidSettings, match=r"8 in chunks of 4 cannot be shared by 3 .* divisor of 2"):
        chunk_sample_indices(1, 8, 4, 0, 3)


def test_identities_come_before_clips(corpus):
    """Each pass serves every identity once, however many clips it has."""
    task = CountingTask()
    for turn in range(4):
        served = [drawn_key(task, corpus, turn * 3 + i).split("#")[0] for i in range(3)]
        assert sorted(served) == ["id0", "id1", "id2"]
    clips = {drawn_key(task, corpus, i) for i in range(40)}
    assert clips == set(corpus.clips.keys)


def test_an_unusable_clip_is_replaced_by_another(corpus):
    refused = [key for key in corpus.clips.keys if key.startswith("id1#")]
    task = CountingTask(refused)
    assert {drawn_key(task, corpus, i) for i in range(30)}.isdisjoint(refused)
    with pytest.raises(UserError, match="no usable frames after 100 attempts"):
        make_sample(CountingTask(corpus.clips.keys), {"clips": corpus}, 0, 0, True)


def test_small_fields_are_read_once(corpus):
    for i in range(60):
        make_sample(CountingTask(), {"clips": corpus}, 0, i, True)
    assert corpus.clips.reads == 5  # one per clip


def test_a_corpus_travels_to_workers(corpus):
    copy = pickle.loads(pickle.dumps(corpus))
    assert (
        make_sample(CountingTask(), {"clips": copy}, 0, 7, True)[0]
        == make_sample(CountingTask(), {"clips": corpus}, 0, 7, True)[0]
    )


def test_samples_are_stacked():
    chunk = stack_samples([("a", {"x": np.arange(3)}), ("b", {"x": np.arange(3) + 1})])
    assert chunk.keys == ("a", "b")
    assert chunk.arrays["x"].tolist() == [[0, 1, 2], [1, 2, 3]]


def test_prefetching_keeps_the_order_and_passes_errors_on():
    def make(i):
        if i == 5:
            raise KeyError("broken clip")
        return i

    chunks = prefetch_chunks(make, iter(range(10)), 3, 4)
    assert [next(chunks) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError, match="broken clip"):
        next(chunks)


class Seeds:
    """Reads no table."""

    def sample(self, rng, tables, training):
        return {"z": rng.normal(size=3)}


def test_a_task_that_draws_seeds_needs_no_table():
    name, sample = make_sample(Seeds(), {}, 0, 7, True)
    assert name == "sample 7"
    again, other = (make_sample(Seeds(), {}, 0, i, True)[1]["z"] for i in (7, 8))
    assert np.array_equal(sample["z"], again)
    assert not np.array_equal(again, other)


def test_a_task_reads_several_tables(corpus, family):
    class Pairs:
        def sample(self, rng, tables, training):
            one, other = tables["clips"].pick_clip(rng), tables["bank"][tables["bank"].keys[3]]
            return {"sum": one.frames([0]).sum() + other.frames([0]).sum()}

    name, _ = make_sample(Pairs(), {"clips": corpus, "bank": corpus}, 0, 0, True)
    assert name.split("+")[1] == [key for keys in corpus.identities for key in keys][3]


# --- pairs of two people ------------------------------------------------------------------------------------
class PairingTask:
    """Draws a driving frame; refuses the sources named."""

    def __init__(self, refused=()) -> None:
        self.refused = set(refused)

    def sample_cross(self, rng, source, driving):
        return None if source.key in self.refused else {"frame": np.array(rng.integers(driving.length))}


def pairs_of(corpus, task=None, seed=0, count=8):
    return [make_cross_sample(task or PairingTask(), corpus, seed, i) for i in range(count)]


def people(pair):
    return [key.partition("#")[0] for key in pair[0].split("+")]


def test_pairs_are_of_two_people_and_always_the_same(corpus):
    pairs, again = pairs_of(corpus), pairs_of(corpus)
    assert pairs == again
    assert all(source != driving for source, driving in map(people, pairs))
    assert pairs != pairs_of(corpus, seed=1)
    assert pairs_of(corpus, count=3) == pairs[:3]  # whatever their number


@given(seed=st.integers(0, 9), count=st.integers(2, 7))
def test_all_pairs_of_people_come_before_one_comes_again(seed, count):
    pairs = [cross_pair_identities(seed, count, i) for i in range(2 * count * (count - 1))]
    assert len(set(pairs[: count * (count - 1)])) == count * (count - 1)
    assert pairs[count * (count - 1) :] == pairs[: count * (count - 1)]
    assert sorted(source for source, _ in pairs[:count]) == list(range(count))
    assert not any(source == driving for source, driving in pairs)


def test_a_pair_that_cannot_serve_is_replaced_by_the_next(corpus):
    lone = corpus.identities[2]
    pairs = pairs_of(corpus, PairingTask(refused=lone))
    assert not any(pair[0].startswith(lone[0]) for pair in pairs)
    assert pairs_of(corpus, PairingTask(refused=corpus.keys)) == [None] * 8
