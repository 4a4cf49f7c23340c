from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.eval.metrics import feature_sample as samples
from pipelines.eval.metrics.feature_sample import feature_sample

NAMES = [f"pair-{i // 7} {i % 7}" for i in range(60)]
VECTORS = np.random.default_rng(0).normal(size=(60, 5))


@pytest.fixture
def at_most_20(monkeypatch):
    monkeypatch.setattr(samples, "MAX_SAMPLE_FRAMES", 20)


def test_fewer_frames_than_the_limit_are_all_kept():
    found = feature_sample(NAMES, VECTORS)
    assert len(found.vectors) == 60
    assert sorted(found.vectors[:, 0]) == sorted(VECTORS[:, 0].astype(np.float32))
    assert (np.diff(found.hashes.astype(object)) > 0).all()


def test_more_are_sampled_by_their_names_and_not_by_what_they_show(at_most_20):
    one, other = feature_sample(NAMES, VECTORS), feature_sample(NAMES, -VECTORS)
    np.testing.assert_array_equal(one.hashes, other.hashes)
    np.testing.assert_array_equal(one.vectors, -other.vectors)
    assert len(one.hashes) == 20


@given(order=st.permutations(range(60)), cuts=st.lists(st.integers(0, 60), max_size=4))
def test_samples_of_any_parts_in_any_order_add_up_to_that_of_the_whole(order, cuts):
    whole = feature_sample(NAMES, VECTORS)
    edges = [0, *sorted(cuts), 60]
    parts = [order[a:b] for a, b in pairwise(edges)]
    total, *rest = (feature_sample([NAMES[i] for i in part], VECTORS[part]) for part in parts)
    for part in rest:
        total = total + part
    np.testing.assert_array_equal(total.hashes, whole.hashes)
    np.testing.assert_array_equal(total.vectors, whole.vectors)


def test_adding_up_keeps_to_the_limit(at_most_20):
    whole = feature_sample(NAMES, VECTORS)
    parts = feature_sample(NAMES[:31], VECTORS[:31]) + feature_sample(NAMES[31:], VECTORS[31:])
    np.testing.assert_array_equal(parts.hashes, whole.hashes)
    np.testing.assert_array_equal(parts.vectors, whole.vectors)
