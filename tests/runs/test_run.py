"""What a run says when it ends."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from pipelines.cli.main import main, one_line_errors
from pipelines.cluster.jobs import check_store
from pipelines.errors import Transient, UserError
from pipelines.runs.run import catch_up, last_tracking, score_table
from storage import ledger
from storage.errors import StoreError
from storage.files import Store
from storage.uris import store_option

SERVER = "http://127.0.0.1:9"  # nothing answers there


def record(method: str, value: float | None = 1.0, note: str = "", **labels: str) -> dict[str, Any]:
    return {"name": "l1", "method": method, "value": value, "note": note, "labels": labels}


def test_the_closing_table_says_which_weights_are_not_the_published_ones():
    copied = record("copy_source")
    lines = score_table(
        {
            "fsrt": [record("fsrt", vgg19="random", kp_detector="distilled"), copied],
            "headgan": [record("headgan", tokens="none"), copied],
        }
    )
    assert lines[0].split() == ["metric", "fsrt", "(ours)", "headgan", "(ours)", "copy-source"]
    assert lines[2:] == ["  fsrt: kp_detector distilled, vgg19 random", "  headgan: tokens none"]


def test_a_table_of_published_weights_says_nothing():
    assert len(score_table({"fsrt": [record("fsrt")]})) == 2


def test_a_metric_that_lacks_its_net_says_so():
    lines = score_table({"fsrt": [record("fsrt", None, "not computed: needs dlib_sp68")]})
    assert lines[2:] == ["  l1: not computed: needs dlib_sp68"]


def test_a_metric_that_leaves_out_frames_says_how_many():
    some = [record(method) | {"n": 16, "missing": 76} for method in ("fsrt", "copy_source")]
    lines = score_table({"fsrt": some})
    assert lines[2:] == ["  l1: over 16 of 92 frames, the others show no face somewhere"]


def test_a_run_that_a_server_tracks_is_not_delivered_to_a_sqlite_beside_the_store(tmp_path, monkeypatch):
    """As `reenact ui` does, which knows no run file: the run itself says where it is tracked."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = Store(str(tmp_path / "store"))
    run = ledger.Ledger(store, ledger.new_run_id())
    run.emit({"type": "run_started", "name": "x", "config": {"runtime": {"tracking": SERVER}}})
    run.emit({"type": "run_finished", "status": "FINISHED"})
    assert last_tracking(store) == SERVER
    shown = CliRunner().invoke(main, ["ui", "--store", store.uri])
    assert (shown.exit_code, shown.output.count("\n")) == (2, 1)
    assert f"tracked by the server at {SERVER}" in shown.output
    catch_up(store)
    assert not store.exists(f"runs/{run.run_id}/tracked.json")
    assert not store.exists("mlflow")


def test_a_job_elsewhere_is_refused_a_store_in_a_folder_of_this_machine():
    with pytest.raises(UserError, match=r"runtime\.store to a URI such as s3"):
        check_store("http://head:8265", "/home/me/store", "")
    check_store("http://head:8265", "file:///mnt/store", "")
    check_store("http://127.0.0.1:8265", "/home/me/store", "")


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (UserError("no such node"), 2, "error: no such node\n"),
        (StoreError("the disk is full"), 1, "error: the disk is full\n"),
        (Transient("no answer"), 1, "error: no answer\n"),
    ],
    ids=["user", "store", "transient"],
)
def test_an_error_with_a_meaning_is_one_line(error, code, lines):
    done = CliRunner().invoke(command_that(error))
    assert (done.exit_code, done.output) == (code, lines)


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("a bug"), FileNotFoundError("a bug")])
def test_an_error_of_a_builtin_class_is_a_fault_and_keeps_its_traceback(error):
    done = CliRunner().invoke(command_that(error))
    assert done.exception is error
    assert done.exit_code == 1


def command_that(error: Exception) -> click.Command:
    @click.command()
    @one_line_errors
    def fails() -> None:
        raise error

    return fails


def test_a_printed_command_names_the_store_unless_it_is_the_usual_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REENACT_STORE", raising=False)
    assert store_option(Store(".reenact/store").uri) == ""
    assert store_option(Store("other").uri) == " --store other"
    assert store_option("s3://bucket/prefix") == " --store s3://bucket/prefix"
    monkeypatch.setenv("REENACT_STORE", "s3://bucket/prefix")
    assert store_option("s3://bucket/prefix") == ""
