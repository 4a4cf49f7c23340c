"""One micro run of the whole road, shared by the tests that look at it; those that change it get a copy."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MICRO = ROOT / "tests/e2e/micro.yaml"


@dataclass
class Checkout:
    """A place to run the command line in: source, store, cache and MLflow, all of its own."""

    home: Path
    source: Path = ROOT
    env: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return self.home / "store"

    def environment(self) -> dict[str, str]:
        """Compiled modules are kept for the checkout, whose hundred processes would compile each anew; of a
        source that is edited within a second, Python would take the old ones.
        """
        mine = {"REENACT_STORE": str(self.store), "REENACT_CACHE": str(self.home / "cache")}
        left_out = ("RAY_", "MLFLOW_", "REENACT_", "PYTHONDONTWRITEBYTECODE")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
        edited = {} if self.source == ROOT else {"PYTHONDONTWRITEBYTECODE": "1"}
        return kept | mine | edited | self.env

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "pipelines.cli.main", *args]

    def call(self, *args: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.argv(*args), cwd=self.source, env=self.environment(),
                              capture_output=True, text=True, timeout=timeout, check=False)  # fmt: skip

    def start(self, *args: str) -> subprocess.Popen[str]:
        """In a session of its own, and listening to Ctrl-C even if this test run does not."""
        return subprocess.Popen(
            self.argv(*args), cwd=self.source, env=self.environment(), text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    @staticmethod
    def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str] | None, seconds: float = 240):
        """Until the condition holds; the process, if one is given, must not end before."""
        limit = time.monotonic() + seconds
        while not condition():
            assert process is None or process.poll() is None, process.stdout.read()
            assert time.monotonic() < limit, "never got there"
            time.sleep(0.05)

    def states(self, *sets: str) -> dict[str, str]:
        """Node -> state, as `plan` prints it."""
        done = self.call("plan", str(MICRO), *(a for s in sets for a in ("--set", s)))
        assert done.returncode == 0, done.stderr
        rows = [line.split() for line in done.stdout.splitlines()[1:] if line and not line.startswith(" ")]
        known = ("cached", "stale", "pending", "pinned")
        return {row[0]: row[1] for row in rows if len(row) > 1 and row[1] in known}

    def own_source(self) -> None:
        """A copy of the code, to edit."""
        self.source = self.home / "source"
        for name in ("pipelines", "models", "storage", "configs", "pyproject.toml"):
            source, target = ROOT / name, self.source / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.source / file
        text = path.read_text()
        assert text.count(old) >= 1, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new, 1))


def published(store: Path) -> dict[str, bytes]:
    """What must not differ between two runs: shards and files, but not the records, which hold seconds."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for top, pattern in (("packs", "*.tar"), ("whole", "*"))
        for path in (store / top).rglob(pattern)
        if path.is_file()
    }


@pytest.fixture(scope="session")
def micro(tmp_path_factory) -> Checkout:
    """The micro run, finished. Read only."""
    checkout = Checkout(tmp_path_factory.mktemp("micro"))
    done = checkout.call("run", str(MICRO))
    assert done.returncode == 0, done.stdout + done.stderr
    (checkout.home / "out.txt").write_text(done.stdout)
    return checkout


@pytest.fixture
def copy(micro, tmp_path) -> Checkout:
    """The finished micro run in a store of one's own."""
    shutil.copytree(micro.store, tmp_path / "store", copy_function=shutil.copy2)
    return Checkout(tmp_path)
