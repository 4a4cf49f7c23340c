import numpy as np
import pytest

from pipelines.eval import set_states
from pipelines.eval.metrics.moments import feature_moments
from pipelines.eval.set_states import SetStateBuilder, add_set_states

METRIC = "fd_efflite0"


@pytest.fixture
def pairs():
    """Six pairs: ten vectors of a method and three of another clip each."""
    rng = np.random.default_rng(0)
    return {f"p{i}": (rng.normal(size=(10, 4)), rng.normal(size=(3, 4))) for i in range(6)}


def added(pairs):
    builder = SetStateBuilder()
    for pair, sides in pairs.items():
        builder.add(METRIC, pair, sides, tuple(np.ones(len(side), bool) for side in sides))
    return builder.finish()


@pytest.mark.parametrize("gathered", [1, 25, 1024])
def test_states_are_of_all_vectors_however_many_are_gathered(pairs, monkeypatch, gathered):
    monkeypatch.setattr(set_states, "FRAMES_PER_STATE", gathered)
    for side, found in enumerate(added(pairs)[METRIC]):
        expected = feature_moments(np.concatenate([sides[side] for sides in pairs.values()]))
        assert found.n == expected.n
        assert found.outer == pytest.approx(expected.outer, rel=1e-12)


def test_frames_that_do_not_count_stay_out(pairs):
    builder, (first, _) = SetStateBuilder(), pairs["p0"]
    keep = np.arange(10) < 4
    builder.add(METRIC, "p0", (first, first), (keep, ~keep))
    ours, theirs = builder.finish()[METRIC]
    assert (ours.n, theirs.n) == (4, 6)
    assert ours.total == pytest.approx(first[:4].sum(0), rel=1e-12)


def test_states_of_tasks_add_up(pairs):
    parts = [{name: pairs[name] for name in names} for names in (("p0", "p1"), ("p2", "p3", "p4", "p5"))]
    found = add_set_states(add_set_states({}, added(parts[0])), added(parts[1]))
    for one, whole in zip(found[METRIC], added(pairs)[METRIC], strict=True):
        assert one.n == whole.n
        assert one.outer == pytest.approx(whole.outer, rel=1e-12)


def test_nothing_added_is_no_state():
    assert SetStateBuilder().finish() == {}
