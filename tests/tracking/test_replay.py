"""Ledger events against a real MLflow store (sqlite in tmp_path)."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import UserError
from pipelines.tracking import Place, Tracker, place, serve, ui_command
from pipelines.tracking.replay import Replayer
from pipelines.tracking.text import flatten, public
from storage.errors import InvalidInput

CONFIG = {
    "data": {"source": "synthetic", "seeds": [1, 2]},
    "runtime": {"store": "s3://key:secret@bucket/x?token=abc"},
}


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A database with its tables made once: that takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    Replayer(Place(f"sqlite:///{folder}/mlflow.db", str(folder / "artifacts")))
    return folder / "mlflow.db"


@pytest.fixture
def where(empty_store, tmp_path) -> Place:
    """A copy of the empty database, so tests do not see each other's runs."""
    with sqlite3.connect(empty_store) as source, sqlite3.connect(tmp_path / "mlflow.db") as target:
        source.backup(target)
        target.execute(
            "update experiments set artifact_location = ? where name = 'reenact'", (str(tmp_path / "files"),)
        )
    return Place(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "files"))


@pytest.fixture
def outputs(tmp_path):
    """Files a node published; returns the fetch function."""
    from PIL import Image

    folder = tmp_path / "store" / "whole"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(folder / "grid.png")
    (folder / "metrics.json").write_text("[]")
    (folder / "model.safetensors").write_bytes(b"weights")
    return lambda path: tmp_path / "store" / path


def pipeline_events(run: str = "r1", start: float = 1000.0) -> list[dict[str, Any]]:
    """A run that trains (five live points), scores, and takes clips from the cache."""
    inputs = {"clips": {"key": "c" * 32, "digest": "d" * 64}}
    events: list[dict[str, Any]] = [
        {"type": "run_started", "name": "demo", "config": CONFIG, "git": {"commit": "abc", "dirty": True},
         "store": "/tmp/store", "plan": "clips cached", "argv": ["reenact", "run", "demo.yaml"]},
        {"type": "node_cached", "node": "clips", "key": "c" * 32},
        {"type": "node_started", "node": "train.toy.warmup", "key": "t1", "kind": "whole", "inputs": inputs,
         "params": {"toy.lr": 0.1}, "weights": {"dlib_sp68": "f" * 64}, "reasons": ["never run"]},
        {"type": "progress", "node": "train.toy.warmup", "done": 1, "total": 5},
        *({"type": "metrics", "node": "train.toy.warmup", "values": {"loss/pixel": 1 / (s + 1)}, "step": s}
          for s in range(5)),
        {"type": "node_finished", "node": "train.toy.warmup", "status": "FINISHED", "key": "t1",
         "digest": "t" * 64, "seconds": 3.5, "folder": "whole", "files": ["model.safetensors"], "steps": 5},
        {"type": "node_started", "node": "eval.toy", "key": "e1",
         "inputs": {"train.toy.warmup": {"key": "t1", "digest": "t" * 64}}},
        {"type": "params", "node": "eval.toy",
         "values": {"weights.kp_detector": "distilled", "labels": "kp_detector distilled, vgg19 random"}},
        {"type": "metrics", "node": "eval.toy", "values": {"eval/psnr_frame": 21.5}, "step": None},
        {"type": "node_finished", "node": "eval.toy", "status": "FINISHED", "key": "e1", "digest": "e" * 64,
         "seconds": 1.0, "folder": "whole", "files": ["grid.png", "metrics.json"]},
        {"type": "run_finished", "status": "FINISHED"},
    ]  # fmt: skip
    return [{"run_id": run, "time": start + i, **event} for i, event in enumerate(events)]


def runs(where: Place) -> dict[str, Any]:
    """node -> its MLflow run; fails if there are two of one node."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=where.uri)
    experiment = client.get_experiment_by_name("reenact")
    found = client.search_runs([experiment.experiment_id])
    named = {run.data.tags["reenact.node"]: run for run in found}
    assert len(named) == len(found), "two MLflow runs of one node"
    return named


def dump(where: Place) -> dict[str, list]:
    """Every row MLflow holds about runs, to compare two states of the store."""
    tables = ("runs", "metrics", "params", "tags", "inputs", "datasets", "logged_models", "logged_model_tags")
    with sqlite3.connect(where.uri.removeprefix("sqlite:///")) as db:
        rows = {table: db.execute(f"select * from {table}").fetchall() for table in tables}
    return {name: sorted(map(repr, table)) for name, table in rows.items()}


def files(where: Place) -> list[str]:
    return sorted(
        str(p.relative_to(where.artifacts)) for p in Path(where.artifacts).rglob("*") if p.is_file()
    )


def test_a_tracking_uri_with_a_password_is_refused_before_it_is_shown_anywhere(monkeypatch):
    with pytest.raises(InvalidInput, match="MLFLOW_TRACKING_PASSWORD") as error:
        place("/store", "https://me:hunter2@mlflow.example.org")
    assert "hunter2" not in str(error.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:hunter2@db/mlflow")
    with pytest.raises(InvalidInput, match="pgpass"):
        place("/store")


@pytest.fixture
def replayed(where, outputs) -> Place:
    assert Tracker(where, fetch=outputs).sync(pipeline_events())
    return where


def test_a_run_becomes_a_parent_with_a_child_per_executed_node(replayed):
    found = runs(replayed)
    assert sorted(found) == ["(run)", "eval.toy", "train.toy.warmup"]
    parent = found["(run)"].info.run_id
    assert {found[n].data.tags["mlflow.parentRunId"] for n in ("eval.toy", "train.toy.warmup")} == {parent}
    assert {run.info.status for run in found.values()} == {"FINISHED"}


def test_replaying_twice_changes_nothing(replayed, outputs):
    before = dump(replayed), files(replayed)
    assert Tracker(replayed, fetch=outputs).sync(pipeline_events())
    assert (dump(replayed), files(replayed)) == before


def test_a_replay_cut_anywhere_and_begun_again_ends_in_the_same_place(where, outputs):
    events = pipeline_events()
    for cut in (2, 6, 10, len(events)):
        assert Tracker(where, fetch=outputs).sync(events[:cut])
    train = runs(where)["train.toy.warmup"]
    with sqlite3.connect(where.uri.removeprefix("sqlite:///")) as db:
        steps = db.execute("select step from metrics where key = 'loss/pixel' order by step").fetchall()
    assert steps == [(s,) for s in range(5)]
    assert train.data.metrics["seconds"] == 3.5


def test_parameters_are_the_resolved_config_without_secrets(replayed):
    parent = runs(replayed)["(run)"]
    assert parent.data.params["data.source"] == "synthetic"
    assert parent.data.params["runtime.store"] == "s3://bucket/x"
    assert "secret" not in json.dumps(dump(replayed))
    config = next(Path(replayed.artifacts).rglob("config.yaml")).read_text()
    assert "bucket/x" in config
    assert "secret" not in config


def test_every_metrics_run_reaches_its_inputs_keys_through_tags(replayed):
    found = runs(replayed)
    upstream = found["eval.toy"].data.tags["input.train.toy.warmup"]
    assert found["train.toy.warmup"].data.tags["reenact.key"] == upstream
    assert found["train.toy.warmup"].data.tags["input.clips"] == "c" * 32


def test_inputs_are_logged_as_datasets(replayed):
    (given,) = runs(replayed)["train.toy.warmup"].inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("clips", "d" * 32)
    assert json.loads(given.dataset.source)["key"] == "c" * 32


def test_final_figures_stand_on_the_parent_too(replayed):
    found = runs(replayed)
    assert found["eval.toy"].data.metrics["eval/psnr_frame"] == 21.5
    assert found["(run)"].data.metrics["eval.toy/psnr_frame"] == 21.5
    assert "loss/pixel" not in found["(run)"].data.metrics


def test_labels_stand_beside_the_final_figures_of_the_parent(replayed):
    assert runs(replayed)["(run)"].data.tags["labels.eval.toy"] == "kp_detector distilled, vgg19 random"


def test_labels_and_weight_digests_are_recorded(replayed):
    found = runs(replayed)
    assert found["eval.toy"].data.params["weights.kp_detector"] == "distilled"
    assert found["train.toy.warmup"].data.tags["weights.dlib_sp68"] == "f" * 64


def test_a_checkpoint_is_a_logged_model_that_points_to_the_store(replayed):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=replayed.uri)
    (model,) = client.search_logged_models(["1"])
    assert model.tags["reenact.uri"] == "/tmp/store/whole/model.safetensors"
    assert model.source_run_id == runs(replayed)["train.toy.warmup"].info.run_id
    assert not [f for f in files(replayed) if "safetensors" in f]


def test_pictures_and_tables_are_copied(replayed):
    eval_run = runs(replayed)["eval.toy"].info.run_id
    mine = [f for f in files(replayed) if f.startswith(eval_run)]
    assert any(f.endswith("artifacts/grid.png") for f in mine)
    assert any("images/grid+step+0" in f for f in mine)


def test_a_cached_node_points_to_the_run_that_made_it(replayed, outputs):
    made = runs(replayed)["eval.toy"].info.run_id
    later = [
        {"type": "run_started", "run_id": "r2", "time": 2000.0},
        {"type": "node_cached", "run_id": "r2", "time": 2001.0, "node": "eval.toy", "key": "e1"},
        {"type": "run_finished", "run_id": "r2", "time": 2002.0, "status": "FINISHED"},
    ]
    tracker = Tracker(replayed, fetch=outputs)
    assert tracker.sync(later)
    assert tracker._replayer is not None
    parent = tracker._replayer._find("r2", "(run)")
    assert parent is not None
    tags = tracker._replayer.client.get_run(parent.id).data.tags
    assert tags["cached.eval.toy"] == made
    assert f"runs/{made}" in tags["mlflow.note.content"]


def killed_events() -> list[dict[str, Any]]:
    """The same run, killed after the third live point."""
    return [e for e in pipeline_events() if e["type"] != "node_finished"][:7]


def test_a_killed_run_is_marked_so_once_known_dead(where):
    assert Tracker(where).sync(killed_events(), over=True)
    assert {run.info.status for run in runs(where).values()} == {"KILLED"}


def resumed(where, outputs) -> dict[str, Any]:
    """The killed run, then a second one that repeats steps 1 and 2 from its checkpoint and goes on to 4."""
    assert Tracker(where, fetch=outputs).sync(killed_events(), over=True)
    second = [e for e in pipeline_events("r2", 2000.0) if e.get("step") != 0]
    assert Tracker(where, fetch=outputs).sync(second)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=where.uri)
    found = client.search_runs(["1"], "tags.`reenact.node` = 'train.toy.warmup'")
    assert len(found) == 1, "the resumed phase began a second curve"
    history = client.get_metric_history(found[0].info.run_id, "loss/pixel")
    parents = client.search_runs(
        ["1"], "tags.`reenact.node` = '(run)'", order_by=["attributes.start_time ASC"]
    )
    return {"run": found[0], "steps": [point.step for point in history], "parents": parents}


def test_a_resumed_phase_keeps_one_curve_without_zigzag(where, outputs):
    after = resumed(where, outputs)
    assert sorted(after["steps"]) == [0, 1, 2, 3, 4]
    assert after["run"].info.status == "FINISHED"


def test_a_resumed_phase_moves_under_the_later_parent(where, outputs):
    after = resumed(where, outputs)
    first, second = after["parents"]
    assert after["run"].data.tags["mlflow.parentRunId"] == second.info.run_id
    assert first.data.tags["continued.train.toy.warmup"] == after["run"].info.run_id


def test_replaying_the_killed_run_later_does_not_undo_the_resumed_one(where, outputs):
    resumed(where, outputs)
    before = dump(where)
    assert Tracker(where, fetch=outputs).sync(killed_events(), over=True)
    assert dump(where) == before


def test_the_parents_note_shows_the_funnel(where):
    rejects = [{"unit": "rec7", "code": "no_face", "reason": "no face in 40 frames"}]
    events = [
        {"type": "run_started"},
        {"type": "node_started", "node": "clips", "key": "c", "kind": "keyed", "counts": {"units": 8}},
        {
            "type": "node_finished",
            "node": "clips",
            "status": "FINISHED",
            "rejects": rejects,
            "counts": {"units": 8, "rejected": 1},
        },
        {"type": "run_finished", "status": "FINISHED"},
    ]
    assert Tracker(where).sync([{"run_id": "r1", "time": 1.0 + i, **e} for i, e in enumerate(events)])
    found = runs(where)
    assert "| clips | finished | 8 | 1 |" in found["(run)"].data.tags["mlflow.note.content"]
    assert found["clips"].data.metrics["units/rejected"] == 1
    assert "no_face" in next(Path(where.artifacts).rglob("rejects.json")).read_text()


def test_a_failed_node_shows_its_error(where):
    events = [e for e in pipeline_events() if e["type"] == "run_started" or e.get("node") == "eval.toy"][:2]
    failed = {"type": "node_finished", "run_id": "r1", "time": 1009.0, "node": "eval.toy", "status": "FAILED",
              "error": "boom", "detail": "Traceback: boom"}  # fmt: skip
    ended = {"type": "run_finished", "run_id": "r1", "time": 1010.0, "status": "FAILED"}
    assert Tracker(where).sync([*events, failed, ended])
    run = runs(where)["eval.toy"]
    assert (run.info.status, run.data.tags["reenact.error"]) == ("FAILED", "boom")
    assert next(Path(where.artifacts).rglob("error.txt")).read_text() == "Traceback: boom"


def test_a_refused_event_does_not_dam_up_those_behind_it(where):
    events = pipeline_events()
    events.insert(3, {"type": "node_started", "run_id": "r1", "time": 1.0, "node": "odd", "key": "k",
                      "inputs": {"clips": {"key": "k", "digest": ""}}})  # fmt: skip
    assert Tracker(where).sync(events)
    assert runs(where)["train.toy.warmup"].info.status == "FINISHED"


def test_a_garbled_event_is_left_out(where, caplog):
    events = pipeline_events()
    events.insert(3, {"type": "node_started", "run_id": "r1", "time": 1.0})
    assert Tracker(where).sync(events)
    assert "left out of MLflow, KeyError" in caplog.text
    assert runs(where)["train.toy.warmup"].info.status == "FINISHED"


def test_an_ordinary_run_is_taken_without_a_warning(where, outputs, caplog):
    assert Tracker(where, fetch=outputs).sync(pipeline_events())
    assert not [record for record in caplog.records if record.name.startswith("pipelines")]


def test_a_live_run_is_tracked_from_its_thread(where, outputs):
    tracker = Tracker(where, fetch=outputs)
    for event in pipeline_events():
        tracker.emit(event)
    assert tracker.close(timeout=60)
    assert runs(where)["eval.toy"].info.status == "FINISHED"


def test_an_unreachable_server_raises_nothing_and_a_later_sync_completes(where, outputs):
    tracker = Tracker(Place("http://127.0.0.1:9"), fetch=outputs)
    for event in pipeline_events():
        tracker.emit(event)
    assert not tracker.close(timeout=60)
    assert tracker.trouble
    assert Tracker(where, fetch=outputs).sync(pipeline_events())
    assert runs(where)["eval.toy"].info.status == "FINISHED"


def test_an_mlflow_that_takes_too_long_is_named_as_the_reason(where):
    tracker = Tracker(where)
    tracker.emit({"type": "run_started", "time": 0.0, "run_id": "r"})
    assert not tracker.close(timeout=0)
    assert "it has not taken them within 0 s" in tracker.trouble


def test_an_output_that_is_gone_is_left_out(where):
    assert Tracker(where, fetch=lambda path: Path("/nowhere") / path).sync(pipeline_events())
    assert runs(where)["eval.toy"].info.status == "FINISHED"


def test_a_port_in_use_is_found_before_the_server_starts(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"port {port}: Address already in use; choose another with --port"
        ):
            serve(str(tmp_path), port=port)
    assert not list(tmp_path.iterdir())


def test_a_server_that_dies_says_why_in_a_line_and_is_not_announced(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(
        sys.modules["pipelines.tracking.server"],
        "ui_command",
        lambda *_: [sys.executable, "-c", "raise OSError('no tables')"],
    )
    up, waits = [], []
    with pytest.raises(UserError, match=r"server ended with 1: OSError: no tables"):
        serve(str(tmp_path), "", free_port(), lambda: up.append(1), waits.append)
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
        sys.modules["pipelines.tracking.server"], "ui_command", lambda *_: [sys.executable, "-c", program]
    )
    serve(
        str(tmp_path), "", port, lambda: asked.append(sys.modules["pipelines.tracking.server"].answers(port))
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
    code = f"from pipelines.tracking import serve; serve('unused', '{replayed.uri}', {port})"
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


# --- where, and what ----------------------------------------------------------------------------------------
def test_runs_are_tracked_beside_a_local_store_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert place(str(tmp_path)).uri == f"sqlite:///{tmp_path}/mlflow/mlflow.db"


def test_a_file_uri_is_a_folder_too(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert place(f"file://{tmp_path}") == place(str(tmp_path))


@pytest.mark.parametrize("name", ["what?x=1", "a 50%25", "#1", "it's \u00e9"])
def test_a_store_whose_name_means_something_in_a_uri_is_tracked_in_itself(
    name, empty_store, tmp_path, monkeypatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    where = place(str(tmp_path / name))
    (tmp_path / name / "mlflow").mkdir(parents=True)
    with (
        sqlite3.connect(empty_store) as source,
        sqlite3.connect(tmp_path / name / "mlflow" / "mlflow.db") as target,
    ):
        source.backup(target)
        target.execute("delete from experiments where name = 'reenact'")
    replayer = Replayer(where)
    run = replayer.client.create_run(replayer.experiment)
    replayer.client.log_text(run.info.run_id, "a note", "note.txt")
    assert {p.name for p in tmp_path.iterdir()} == {name}
    assert [p.read_text() for p in (tmp_path / name / "mlflow" / "artifacts").rglob("note.txt")] == ["a note"]


def test_a_database_of_runs_is_looked_for_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert place("store", "sqlite:///~/mlflow.db").uri == "sqlite:////home/ann/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "~/mlruns")
    assert place("store").uri == "/home/ann/mlruns"


def test_runs_in_a_bucket_are_never_tracked_in_a_folder_that_goes_away(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match=r"runtime\.tracking, or MLFLOW_TRACKING_URI, to an MLflow"):
        place("s3://bucket/prefix")
    assert place("s3://bucket/prefix", "http://mlflow:5000") == Place("http://mlflow:5000")


def test_the_environment_overrides_the_setting(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert place("store", "sqlite:///else.db") == Place("http://mlflow:5000")


def test_the_ui_is_one_local_worker(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    argv = ui_command(str(tmp_path), port=5055)
    assert argv[argv.index("--host") + 1] == "127.0.0.1"
    assert argv[argv.index("--workers") + 1] == "1"
    assert argv[argv.index("--port") + 1] == "5055"


def test_the_ui_of_a_tracking_server_is_that_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="http://host:5000"):
        ui_command("store", "http://host:5000?x=1")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:secret@bucket/a/b?token=1#f", "s3://bucket/a/b"),
        ("see https://user@host:8443/x and gs://b/c", "see https://host:8443/x and gs://b/c"),
        ("sqlite:////tmp/store/mlflow.db", "sqlite:////tmp/store/mlflow.db"),
        ("no address at all", "no address at all"),
    ],
)
def test_addresses_lose_what_may_be_secret(text, shown):
    assert public(text) == shown


def test_long_values_are_cut_to_what_mlflow_keeps():
    assert len(flatten({"a": "x" * 10_000})["a"]) == 6000


def test_importing_tracking_imports_no_mlflow():
    code = "import sys, pipelines.tracking; sys.exit('mlflow' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode
        == 0
    )
