"""Properties every metric of the table shares: what is known of some frames may be cut and merged in any
way."""

import functools
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.eval.features import FRAMES_FEATURE
from pipelines.eval.metrics import METRICS, FrameSums, Metric, sum_frame_values

FIELD_SHAPES = {
    "frames": (12, 12, 3), "landmarks": (68, 2), "openness": (2,), "angles": (3,), "embedding": (128,),
    "head_features": (8,), "block_features": (4,), "map_distance": (),
    "pool_features": (8,), "lpips": (), "sync_lips": (8,), "logits": (8,),
    "exp_coeffs": (12,), "action_units": (18,),
}  # fmt: skip


def _values(metric: Metric, frames: int, seed: int) -> np.ndarray:
    """Of a made-up clip; some frames of metrics that compare faces have none."""
    rng = np.random.default_rng(seed)
    shape = FIELD_SHAPES[metric.field]
    if metric.min_frame_size:
        shape = (metric.min_frame_size, metric.min_frame_size, 3)
    a, b = rng.random((2, frames, *shape))
    if metric.feature != FRAMES_FEATURE:
        a[rng.random(frames) < 0.3] = np.nan
    return metric.per_frame(a, b)


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=15, deadline=None)
@given(frames=st.integers(1, 6), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_states_merge_alike_in_any_order_and_grouping(name, frames, seed, data):
    metric = METRICS[name]
    values = _values(metric, frames, seed)
    states = [sum_frame_values(values[i : i + 1]) for i in range(frames)]
    shuffled = data.draw(st.permutations(states))
    cut = data.draw(st.integers(0, frames))
    parts = [functools.reduce(operator.add, part, FrameSums()) for part in (shuffled[:cut], shuffled[cut:])]
    everything = sum_frame_values(values)
    assert metric.compute(parts[0] + parts[1]) == pytest.approx(
        metric.compute(everything), rel=1e-12, nan_ok=True
    )
    assert (parts[0] + parts[1]).n == everything.n


@pytest.mark.parametrize("name", METRICS)
def test_every_frame_has_one_value(name):
    assert _values(METRICS[name], 5, 3).shape == (5,)


def test_frames_left_out_are_counted_and_do_not_move_the_mean():
    sums = sum_frame_values(np.array([1.0, np.nan, 3.0]))
    assert sums == FrameSums(n=2, missing=1, total=4.0)


def test_only_the_frames_to_keep_are_counted():
    sums = sum_frame_values(np.array([1.0, 2.0, 4.0]), np.array([True, False, True]))
    assert sums == FrameSums(n=2, missing=1, total=5.0)


def test_keeping_a_frame_without_a_value_is_an_error():
    with pytest.raises(ValueError, match="frames without a value"):
        sum_frame_values(np.array([1.0, np.nan]), np.array([True, True]))
