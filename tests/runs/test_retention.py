"""What is in use: made from what is in use, or needed by a run that counts."""

import pytest

from pipelines.runs import retention
from storage import ledger
from storage.files import Store


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def finished_run(store, run_id, name, **keys):
    """A run that found these artifacts in place."""
    run = ledger.Ledger(store, run_id)
    run.emit({"type": "run_started", "name": name})
    for node, key in keys.items():
        run.emit({"type": "node_cached", "node": node, "key": key, "inputs": {}})
    run.emit({"type": "run_finished", "status": "FINISHED"})


def test_a_closure_holds_all_that_something_was_made_from():
    inputs = {("c", "3"): {("b", "2")}, ("b", "2"): {("a", "1")}, ("x", "9"): {("a", "1")}}
    assert retention.artifact_input_closure([("c", "3")], inputs) == {("c", "3"), ("b", "2"), ("a", "1")}


def test_of_each_name_the_latest_runs_count(store):
    finished_run(store, "1", "demo", clips="old")
    finished_run(store, "2", "demo", clips="new")
    finished_run(store, "3", "other", clips="others")
    found = retention.find_kept_artifacts(store, 1, lambda text: None)
    assert found.keys == {("clips", "new"), ("clips", "others")}


def test_a_dropped_name_keeps_nothing_of_its_past_runs(store):
    finished_run(store, "1", "demo", clips="a")
    retention.drop_runs_from_retention(store, ["demo"])
    assert retention.find_kept_artifacts(store, 1, lambda text: None).keys == set()


def test_a_pin_keeps_its_artifact_and_a_damaged_one_is_reported(store):
    store.write_json("refs/good.json", {"stage": "recordings", "artifacts": {"main": "k"}})
    store.write_json("refs/bad.json", {"stage": "recordings", "artifacts": ["k"]})
    damaged = []
    assert retention.find_kept_artifacts(store, 1, damaged.append).keys == {("recordings", "k")}
    assert damaged == ["refs/bad.json: its artifacts are no keys by corpus"]
