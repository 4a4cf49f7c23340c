"""Shared by the benches: the command line in a store of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Reenact = Callable[..., str]


@pytest.fixture
def reenact(tmp_path) -> Reenact:
    """Call `reenact ARGS` with a fresh store; returns what it printed."""
    mine = {"REENACT_STORE": str(tmp_path / "store"), "REENACT_CACHE": str(tmp_path / "cache")}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "REENACT_"))}

    def call(*args: str) -> str:
        argv = [sys.executable, "-m", "pipelines.cli.main", *args]
        done = subprocess.run(argv, cwd=ROOT, env=kept | mine, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call
