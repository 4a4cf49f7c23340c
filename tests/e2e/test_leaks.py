"""One rendered person under two names, in train and in test: found, refused and moved by the nodes of a run,
which are executed in this process."""

import csv

import pytest

from pipelines.corpus.identity_check import read_identity_rows
from pipelines.corpus.leaks import read_checked_splits
from pipelines.engine.packs import claim_and_build_pack
from pipelines.engine.runner import Runner
from pipelines.eval.pairs import read_pairs
from pipelines.nets import load_nets
from pipelines.preprocess.recordings import hash_fraction
from pipelines.runs.session import open_session
from tests.e2e.conftest import MICRO
from tests.e2e.test_incremental import render

PEOPLE, TEST_FRACTION = 8, 0.3


class InProcess:
    """One pack after the other, here."""

    def build_packs(self, call, jobs, store):
        run = call.bind_nets(load_nets(call.node.nets, store) | call.load_checkpoint_nets())
        for job in jobs:
            yield claim_and_build_pack(job, run, store)


def names_of_split(test):
    """Names that fall into a split, by their hash."""
    return (name for name in map("person{}".format, range(1000))
            if (hash_fraction(name) < TEST_FRACTION) == test)  # fmt: skip


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two recordings of each of eight people, two of them in test; the third of the first training person has
    a test name."""
    folder = tmp_path_factory.mktemp("videos")
    train, test = names_of_split(test=False), names_of_split(test=True)
    names = [next(test) if number < 2 else next(train) for number in range(PEOPLE)]
    rows = [
        (f"{name}-{take}.mp4", name, number, take) for number, name in enumerate(names) for take in (0, 1)
    ]
    twin = next(test)
    rows.append((f"{twin}.mp4", twin, 2, 2))
    for file, _, number, take in rows:
        render(folder / file, number, take)
    with (folder / "names.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "identity"), *((file, name) for file, name, _, _ in rows)])
    return folder, twin, names[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REENACT_STORE", str(tmp_path_factory.mktemp("store")))
        yield


def run_nodes(videos, policy, *nodes):
    """-> the outcome, and plans by node."""
    folder, _, _ = videos
    session = open_session(MICRO, [
        "data.main.source=folder", f"data.main.folder.path={folder}",
        f"data.main.folder.identities={folder / 'names.csv'}", f"data.main.test_fraction={TEST_FRACTION}",
        "clips.min_frames=15", "clips.min_size=64", f"data.main.leaks={policy}",
        # nine people of a second each: the person is at -2.4, the next at -1.2
        "identity.threshold=-1.8", "identity.unlike=-1",
    ])  # fmt: skip
    runner = Runner(session.make_planner(), InProcess(), policy, emit=lambda event: None)
    return runner.run(session.selected_nodes(nodes))


@pytest.mark.slow
def test_the_person_with_two_names_is_found(home, videos):
    _, twin, name = videos
    outcome = run_nodes(videos, "report", "identity_check")
    assert not outcome.failed
    rows = read_identity_rows(outcome.plans["identity_check"].artifact)
    assert {row.identity: row.same_as for row in rows if row.same_as} == {twin: name}


@pytest.mark.slow
def test_a_run_that_refuses_leaks_ends_before_pairs_are_made(home, videos):
    _, twin, name = videos
    outcome = run_nodes(videos, "refuse", "pairs.self")
    assert set(outcome.failed) == {"splits"}
    assert f"({twin} is {name})" in str(outcome.failed["splits"])
    assert "pairs.self" not in outcome.plans


@pytest.mark.slow
def test_a_run_that_moves_leaks_evaluates_the_others(home, videos):
    _, twin, _ = videos
    outcome = run_nodes(videos, "move", "pairs.self")
    assert not outcome.failed
    split = read_checked_splits(outcome.plans["splits"].artifact)
    assert split[twin] == "train"
    pairs = read_pairs(outcome.plans["pairs.self"].artifact.path("pairs.parquet"))
    assert pairs
    assert not [pair for pair in pairs if twin in pair.recordings]
