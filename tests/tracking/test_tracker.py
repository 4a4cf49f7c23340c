"""Events reach MLflow beside a run, and what MLflow does not take stops nothing."""

from __future__ import annotations

from pathlib import Path

from pipelines.tracking import MlflowTracker, TrackingPlace
from tests.tracking.stand_ins import pipeline_events, runs


def test_a_refused_event_does_not_dam_up_those_behind_it(where):
    events = pipeline_events()
    events.insert(3, {"type": "node_started", "run_id": "r1", "time": 1.0, "node": "odd", "key": "k",
                      "inputs": {"clips": {"key": "k", "digest": ""}}})  # fmt: skip
    assert MlflowTracker(where).sync_run(events)
    assert runs(where)["train.toy.warmup"].info.status == "FINISHED"


def test_a_garbled_event_is_left_out(where, caplog):
    events = pipeline_events()
    events.insert(3, {"type": "node_started", "run_id": "r1", "time": 1.0})
    assert MlflowTracker(where).sync_run(events)
    assert "left out of MLflow, KeyError" in caplog.text
    assert runs(where)["train.toy.warmup"].info.status == "FINISHED"


def test_an_ordinary_run_is_taken_without_a_warning(where, outputs, caplog):
    assert MlflowTracker(where, fetch=outputs).sync_run(pipeline_events())
    assert not [record for record in caplog.records if record.name.startswith("pipelines")]


def test_a_live_run_is_tracked_from_its_thread(where, outputs):
    tracker = MlflowTracker(where, fetch=outputs)
    for event in pipeline_events():
        tracker.queue_event(event)
    assert tracker.close(timeout=60)
    assert runs(where)["eval.toy"].info.status == "FINISHED"


def test_an_unreachable_server_raises_nothing_and_a_later_sync_completes(where, outputs):
    tracker = MlflowTracker(TrackingPlace("http://127.0.0.1:9"), fetch=outputs)
    for event in pipeline_events():
        tracker.queue_event(event)
    assert not tracker.close(timeout=60)
    assert tracker.trouble
    assert MlflowTracker(where, fetch=outputs).sync_run(pipeline_events())
    assert runs(where)["eval.toy"].info.status == "FINISHED"


def test_an_mlflow_that_takes_too_long_is_named_as_the_reason(where):
    tracker = MlflowTracker(where)
    tracker.queue_event({"type": "run_started", "time": 0.0, "run_id": "r"})
    assert not tracker.close(timeout=0)
    assert "it has not taken them within 0 s" in tracker.trouble


def test_an_output_that_is_gone_is_left_out(where):
    assert MlflowTracker(where, fetch=lambda path: Path("/nowhere") / path).sync_run(pipeline_events())
    assert runs(where)["eval.toy"].info.status == "FINISHED"
