"""Where runs are tracked, and the server that shows them."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.tracking import TrackingPlace, find_tracking_place, mlflow_server_command, serve_ui
from pipelines.tracking.replay import MlflowReplayer
from storage.errors import InvalidInput


def test_a_tracking_uri_with_a_password_is_refused_before_it_is_shown_anywhere(monkeypatch):
    with pytest.raises(InvalidInput, match="MLFLOW_TRACKING_PASSWORD") as error:
        find_tracking_place("/store", "https://me:hunter2@mlflow.example.org")
    assert "hunter2" not in str(error.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:hunter2@db/mlflow")
    with pytest.raises(InvalidInput, match="pgpass"):
        find_tracking_place("/store")


def test_a_port_in_use_is_found_before_the_server_starts(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"port {port}: Address already in use; choose another with --port"
        ):
            serve_ui(str(tmp_path), port=port)
    assert not list(tmp_path.iterdir())


def test_a_server_that_dies_says_why_in_a_line_and_is_not_announced(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(
        sys.modules["pipelines.tracking.server"],
        "mlflow_server_command",
        lambda *_: [sys.executable, "-c", "raise OSError('no tables')"],
    )
    up, waits = [], []
    with pytest.raises(UserError, match=r"server ended with 1: OSError: no tables"):
        serve_ui(str(tmp_path), "", free_port(), lambda: up.append(1), waits.append)
    assert waits
    assert not up


def test_the_server_is_announced_when_it_answers(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    port, asked = free_port(), []
    program = f"""
import http.server, time
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
time.sleep(0.5)
server = http.server.HTTPServer(("127.0.0.1", {port}), Health)
server.handle_request(); server.handle_request()
"""
    monkeypatch.setattr(
        sys.modules["pipelines.tracking.server"],
        "mlflow_server_command",
        lambda *_: [sys.executable, "-c", program],
    )
    serve_ui(
        str(tmp_path),
        "",
        port,
        lambda: asked.append(sys.modules["pipelines.tracking.server"].is_server_up(port)),
    )
    assert asked == [True]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_the_ui_serves_the_runs_and_leaves_no_process_behind(replayed, tmp_path):
    import signal
    import time
    import urllib.error
    import urllib.request

    port = free_port()
    code = f"from pipelines.tracking import serve_ui; serve_ui('unused', '{replayed.uri}', {port})"
    ui = subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL
    )
    deadline, answer = time.monotonic() + 60, b""
    while not answer and time.monotonic() < deadline:
        try:
            answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).read()
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.5)
    ui.send_signal(signal.SIGTERM)
    assert ui.wait(20) == 128 + signal.SIGTERM
    assert answer == b"OK"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_runs_are_tracked_beside_a_local_store_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert find_tracking_place(str(tmp_path)).uri == f"sqlite:///{tmp_path}/mlflow/mlflow.db"


def test_a_file_uri_is_a_folder_too(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert find_tracking_place(f"file://{tmp_path}") == find_tracking_place(str(tmp_path))


@pytest.mark.parametrize("name", ["what?x=1", "a 50%25", "#1", "it's \u00e9"])
def test_a_store_whose_name_means_something_in_a_uri_is_tracked_in_itself(
    name, empty_store, tmp_path, monkeypatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    where = find_tracking_place(str(tmp_path / name))
    (tmp_path / name / "mlflow").mkdir(parents=True)
    with (
        sqlite3.connect(empty_store) as source,
        sqlite3.connect(tmp_path / name / "mlflow" / "mlflow.db") as target,
    ):
        source.backup(target)
        target.execute("delete from experiments where name = 'reenact'")
    replayer = MlflowReplayer(where)
    run = replayer.client.create_run(replayer.experiment)
    replayer.client.log_text(run.info.run_id, "a note", "note.txt")
    assert {p.name for p in tmp_path.iterdir()} == {name}
    assert [p.read_text() for p in (tmp_path / name / "mlflow" / "artifacts").rglob("note.txt")] == ["a note"]


def test_a_database_of_runs_is_looked_for_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert find_tracking_place("store", "sqlite:///~/mlflow.db").uri == "sqlite:////home/ann/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "~/mlruns")
    assert find_tracking_place("store").uri == "/home/ann/mlruns"


def test_runs_in_a_bucket_are_never_tracked_in_a_folder_that_goes_away(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match=r"runtime\.tracking, or MLFLOW_TRACKING_URI, to an MLflow"):
        find_tracking_place("s3://bucket/prefix")
    assert find_tracking_place("s3://bucket/prefix", "http://mlflow:5000") == TrackingPlace(
        "http://mlflow:5000"
    )


def test_the_environment_overrides_the_setting(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert find_tracking_place("store", "sqlite:///else.db") == TrackingPlace("http://mlflow:5000")


def test_the_ui_is_one_local_worker(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    argv = mlflow_server_command(str(tmp_path), port=5055)
    assert argv[argv.index("--host") + 1] == "127.0.0.1"
    assert argv[argv.index("--workers") + 1] == "1"
    assert argv[argv.index("--port") + 1] == "5055"


def test_the_ui_of_a_tracking_server_is_that_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="http://host:5000"):
        mlflow_server_command("store", "http://host:5000?x=1")
