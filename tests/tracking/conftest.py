"""A real MLflow store (sqlite in tmp_path), empty or with one run."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from pipelines.tracking import MlflowTracker, TrackingPlace
from pipelines.tracking.replay import MlflowReplayer
from tests.tracking.stand_ins import pipeline_events


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A database with its tables made once: that takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    MlflowReplayer(TrackingPlace(f"sqlite:///{folder}/mlflow.db", str(folder / "artifacts")))
    return folder / "mlflow.db"


@pytest.fixture
def where(empty_store, tmp_path) -> TrackingPlace:
    """A copy of the empty database, so tests do not see each other's runs."""
    with sqlite3.connect(empty_store) as source, sqlite3.connect(tmp_path / "mlflow.db") as target:
        source.backup(target)
        target.execute(
            "update experiments set artifact_location = ? where name = 'reenact'", (str(tmp_path / "files"),)
        )
    return TrackingPlace(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "files"))


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


@pytest.fixture
def replayed(where, outputs) -> TrackingPlace:
    assert MlflowTracker(where, fetch=outputs).sync_run(pipeline_events())
    return where
