"""The run ledger: events in order, metrics apart, damage reported and left out."""

import pytest

from storage import ledger
from storage.files import Store


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def test_events_come_back_in_the_order_they_were_emitted(store):
    run = ledger.Ledger(store, "r")
    for number in range(3):
        run.emit({"type": "metrics", "values": {}, "step": number})
        run.emit({"type": "warning", "text": str(number)})
    found = [
        (event["type"], event.get("step", event.get("text"))) for event in ledger.read_events(store, "r")
    ]
    assert found == [(kind, value) for n in range(3) for kind, value in (("metrics", n), ("warning", str(n)))]


def test_what_a_run_made_is_read_without_its_metrics(store):
    run = ledger.Ledger(store, "r")
    run.emit({"type": "metrics", "values": {}, "step": 1})
    run.emit({"type": "run_finished", "status": "FINISHED"})
    assert [e["type"] for e in ledger.read_events(store, "r", metrics=False)] == ["run_finished"]


def test_a_line_that_is_no_event_is_reported_with_its_file_and_left_out(store):
    ledger.Ledger(store, "r").emit({"type": "warning", "text": "a"})
    store.write("runs/r/events-000001.jsonl", b'{"type": 3, "time": 0}\n{"type": "x", "time": 0}\n')
    damaged = []
    assert [e["type"] for e in ledger.read_events(store, "r", damaged=damaged.append)] == ["warning", "x"]
    assert damaged == ["runs/r/events-000001.jsonl, line 1, is no event of a run"]


def test_run_ids_are_listed_in_order_of_time(store):
    ids = sorted({ledger.new_run_id() for _ in range(3)})
    for run_id in ids:
        ledger.Ledger(store, run_id).emit({"type": "run_started"})
    assert ledger.list_runs(store) == ids
