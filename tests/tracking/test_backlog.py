"""Runs that MLflow did not take when they ran."""

from __future__ import annotations

from click.testing import CliRunner

from pipelines.cli.main import main
from pipelines.tracking.backlog import deliver_backlog, last_tracking_uri
from storage import ledger
from storage.files import Store

SERVER = "http://127.0.0.1:9"  # nothing answers there


def test_a_run_that_a_server_tracks_is_not_delivered_to_a_sqlite_beside_the_store(tmp_path, monkeypatch):
    """As `reenact ui` does, which knows no run file: the run itself says where it is tracked."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = Store(str(tmp_path / "store"))
    run = ledger.Ledger(store, ledger.new_run_id())
    run.emit({"type": "run_started", "name": "x", "config": {"runtime": {"tracking": SERVER}}})
    run.emit({"type": "run_finished", "status": "FINISHED"})
    assert last_tracking_uri(store) == SERVER
    shown = CliRunner().invoke(main, ["ui", "--store", store.uri])
    assert (shown.exit_code, shown.output.count("\n")) == (2, 1)
    assert f"tracked by the server at {SERVER}" in shown.output
    deliver_backlog(store)
    assert not store.exists(f"runs/{run.run_id}/tracked.json")
    assert not store.exists("mlflow")
