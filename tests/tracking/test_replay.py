"""Ledger events against a real MLflow store (sqlite in tmp_path)."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipelines.tracking import MlflowTracker
from tests.tracking.stand_ins import dump, files, killed_events, pipeline_events, runs


def test_a_run_becomes_a_parent_with_a_child_per_executed_node(replayed):
    found = runs(replayed)
    assert sorted(found) == ["(run)", "eval.toy", "train.toy.warmup"]
    parent = found["(run)"].info.run_id
    assert {found[n].data.tags["mlflow.parentRunId"] for n in ("eval.toy", "train.toy.warmup")} == {parent}
    assert {run.info.status for run in found.values()} == {"FINISHED"}


def test_replaying_twice_changes_nothing(replayed, outputs):
    before = dump(replayed), files(replayed)
    assert MlflowTracker(replayed, fetch=outputs).sync_run(pipeline_events())
    assert (dump(replayed), files(replayed)) == before


def test_a_replay_cut_anywhere_and_begun_again_ends_in_the_same_place(where, outputs):
    events = pipeline_events()
    for cut in (2, 6, 10, len(events)):
        assert MlflowTracker(where, fetch=outputs).sync_run(events[:cut])
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


def test_the_licences_of_the_weights_that_a_run_uses_are_tags_of_its_parent(replayed):
    tags = runs(replayed)["(run)"].data.tags
    assert tags["licence.dlib_sp68"] == "no commercial use (noncommercial)"


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
    assert runs(replayed)["(run)"].data.tags["provenance.eval.toy"] == "kp_detector distilled, vgg19 random"


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
    tracker = MlflowTracker(replayed, fetch=outputs)
    assert tracker.sync_run(later)
    assert tracker._replayer is not None
    parent = tracker._replayer._find("r2", "(run)")
    assert parent is not None
    tags = tracker._replayer.client.get_run(parent.id).data.tags
    assert tags["cached.eval.toy"] == made
    assert f"runs/{made}" in tags["mlflow.note.content"]


def test_a_killed_run_is_marked_so_once_known_dead(where):
    assert MlflowTracker(where).sync_run(killed_events(), over=True)
    assert {run.info.status for run in runs(where).values()} == {"KILLED"}


def resumed(where, outputs) -> dict[str, Any]:
    """The killed run, then a second one that repeats steps 1 and 2 from its checkpoint and goes on to 4."""
    assert MlflowTracker(where, fetch=outputs).sync_run(killed_events(), over=True)
    second = [e for e in pipeline_events("r2", 2000.0) if e.get("step") != 0]
    assert MlflowTracker(where, fetch=outputs).sync_run(second)
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
    assert MlflowTracker(where, fetch=outputs).sync_run(killed_events(), over=True)
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
    assert MlflowTracker(where).sync_run(
        [{"run_id": "r1", "time": 1.0 + i, **e} for i, e in enumerate(events)]
    )
    found = runs(where)
    assert "| clips | finished | 8 | 1 |" in found["(run)"].data.tags["mlflow.note.content"]
    assert found["clips"].data.metrics["units/rejected"] == 1
    assert "no_face" in next(Path(where.artifacts).rglob("rejects.json")).read_text()


def test_a_failed_node_shows_its_error(where):
    events = [e for e in pipeline_events() if e["type"] == "run_started" or e.get("node") == "eval.toy"][:2]
    failed = {"type": "node_finished", "run_id": "r1", "time": 1009.0, "node": "eval.toy", "status": "FAILED",
              "error": "boom", "detail": "Traceback: boom"}  # fmt: skip
    ended = {"type": "run_finished", "run_id": "r1", "time": 1010.0, "status": "FAILED"}
    assert MlflowTracker(where).sync_run([*events, failed, ended])
    run = runs(where)["eval.toy"]
    assert (run.info.status, run.data.tags["reenact.error"]) == ("FAILED", "boom")
    assert next(Path(where.artifacts).rglob("error.txt")).read_text() == "Traceback: boom"


def test_importing_tracking_imports_no_mlflow():
    code = "import sys, pipelines.tracking; sys.exit('mlflow' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode
        == 0
    )
