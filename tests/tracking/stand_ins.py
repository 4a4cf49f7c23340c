"""Events of made-up runs, and what MLflow then holds."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from pipelines.tracking import TrackingPlace

CONFIG = {
    "data": {"source": "synthetic", "seeds": [1, 2]},
    "runtime": {"store": "s3://key:secret@bucket/x?token=abc"},
}


def pipeline_events(run: str = "r1", start: float = 1000.0) -> list[dict[str, Any]]:
    """A run that trains (five live points), scores, and takes clips from the cache."""
    inputs = {"clips": {"key": "c" * 32, "digest": "d" * 64}}
    events: list[dict[str, Any]] = [
        {"type": "run_started", "name": "demo", "config": CONFIG, "git": {"commit": "abc", "dirty": True},
         "store": "/tmp/store", "licences": {"dlib_sp68": "no commercial use (noncommercial)"},
         "plan": "clips cached", "argv": ["reenact", "run", "demo.yaml"]},
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
         "values": {"weights.kp_detector": "distilled", "provenance": "kp_detector distilled, vgg19 random"}},
        {"type": "metrics", "node": "eval.toy", "values": {"eval/psnr_frame": 21.5}, "step": None},
        {"type": "node_finished", "node": "eval.toy", "status": "FINISHED", "key": "e1", "digest": "e" * 64,
         "seconds": 1.0, "folder": "whole", "files": ["grid.png", "metrics.json"]},
        {"type": "run_finished", "status": "FINISHED"},
    ]  # fmt: skip
    return [{"run_id": run, "time": start + i, **event} for i, event in enumerate(events)]


def runs(where: TrackingPlace) -> dict[str, Any]:
    """node -> its MLflow run; fails if there are two of one node."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=where.uri)
    experiment = client.get_experiment_by_name("reenact")
    found = client.search_runs([experiment.experiment_id])
    named = {run.data.tags["reenact.node"]: run for run in found}
    assert len(named) == len(found), "two MLflow runs of one node"
    return named


def dump(where: TrackingPlace) -> dict[str, list]:
    """Every row MLflow holds about runs, to compare two states of the store."""
    tables = ("runs", "metrics", "params", "tags", "inputs", "datasets", "logged_models", "logged_model_tags")
    with sqlite3.connect(where.uri.removeprefix("sqlite:///")) as db:
        rows = {table: db.execute(f"select * from {table}").fetchall() for table in tables}
    return {name: sorted(map(repr, table)) for name, table in rows.items()}


def files(where: TrackingPlace) -> list[str]:
    return sorted(
        str(p.relative_to(where.artifacts)) for p in Path(where.artifacts).rglob("*") if p.is_file()
    )


def killed_events() -> list[dict[str, Any]]:
    """The same run, killed after the third live point."""
    return [e for e in pipeline_events() if e["type"] != "node_finished"][:7]
