"""Properties every metric of the table shares: its state may be cut and merged in any way."""

import functools
import operator
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.eval.metrics import METRICS, Metric


def _states(metric: Metric, frames: int, seed: int) -> list:
    """One state a frame of a made-up clip."""
    rng = np.random.default_rng(seed)
    if metric.reads == "frames":
        a, b = rng.random((2, frames, 12, 12, 3))
        return [metric.update(a[i : i + 1], b[i : i + 1]) for i in range(frames)]
    a, b = rng.random((2, frames, 68, 2)) * 256
    keep = rng.random(frames) > 0.3
    return [metric.update(a[i : i + 1], b[i : i + 1], keep[i : i + 1]) for i in range(frames)]


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=15, deadline=None)
@given(frames=st.integers(1, 6), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_states_merge_alike_in_any_order_and_grouping(name, frames, seed, data):
    metric = METRICS[name]
    states = _states(metric, frames, seed)
    whole = functools.reduce(operator.add, states, metric.state())
    shuffled = data.draw(st.permutations(states))
    cut = data.draw(st.integers(0, frames))
    parts = [
        functools.reduce(operator.add, part, metric.state()) for part in (shuffled[:cut], shuffled[cut:])
    ]
    assert metric.compute(parts[0] + parts[1]) == pytest.approx(metric.compute(whole), rel=1e-12, nan_ok=True)
    assert (parts[0] + parts[1]).n == whole.n


@pytest.mark.parametrize("name", METRICS)
def test_the_zero_state_changes_nothing(name):
    metric = METRICS[name]
    state = _states(metric, 1, 7)[0]
    assert state + metric.state() == state


@pytest.mark.parametrize("name", METRICS)
def test_a_state_survives_the_trip_through_an_array(name):
    metric = METRICS[name]
    state = _states(metric, 1, 3)[0]
    assert metric.state.from_array(np.array(astuple(state))) == state


def test_states_of_two_metrics_do_not_add():
    with pytest.raises(TypeError, match="one metric only"):
        METRICS["l1"].state() + METRICS["ssim"].state()
