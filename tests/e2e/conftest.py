"""One micro run of the whole road, shared by the tests that look at it; those that change it get a copy."""

import itertools
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
from click.testing import CliRunner

from pipelines.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
MICRO = ROOT / "tests/e2e/micro.yaml"


TICKS = itertools.count(1)
"""Seconds that each edit is younger than the one before."""


@dataclass
class Checkout:
    """A place to run the command line in: source, store and MLflow, all of its own. The cache is that of all
    tests: parsed sources, and the copies that runs execute, with their compiled modules."""

    home: Path
    source: Path = ROOT
    env: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return self.home / "store"

    def environment(self) -> dict[str, str]:
        """Compiled modules are kept: a hundred processes would compile each anew."""
        mine = {"REENACT_STORE": str(self.store), "REENACT_CACHE": os.environ["REENACT_CACHE"]}
        left_out = ("RAY_", "MLFLOW_", "REENACT_", "OMP_NUM_THREADS", "PYTHONDONTWRITEBYTECODE")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
        return kept | mine | self.env

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

    def ask(self, *args: str, code: int = 0) -> str:
        """The output of a command that runs no node. Of the unedited source it is called in this process,
        which has its imports behind it."""
        if self.source != ROOT:
            done = self.call(*args)
            assert done.returncode == code, done.stdout + done.stderr
            return done.stdout
        unset = {name: None for name in os.environ if name.startswith(("RAY_", "MLFLOW_", "REENACT_"))}
        result = CliRunner().invoke(main, args, env=unset | self.environment())
        assert result.exit_code == code, result.output
        return result.stdout

    def states(self, *sets: str) -> dict[str, str]:
        """Node -> state, as `plan` prints it."""
        plan = self.ask("plan", str(MICRO), *(a for s in sets for a in ("--set", s)))
        rows = [line.split() for line in plan.splitlines()[1:] if line and not line.startswith(" ")]
        known = ("cached", "stale", "pending", "pinned")
        return {row[0]: row[1] for row in rows if len(row) > 1 and row[1] in known}

    def own_source(self) -> None:
        """A copy of the code, to edit."""
        self.source = self.home / "source"
        for name in ("pipelines", "models", "storage", "configs", "pyproject.toml"):
            source, target = ROOT / name, self.source / name
            if source.is_dir():
                shutil.copytree(source, target)  # with the compiled modules, which go by the files' times
            else:
                shutil.copy(source, target)

    def edit(self, file: str, old: str, new: str) -> None:
        text = (self.source / file).read_text()
        assert text.count(old) >= 1, f"{file} has no {old!r}"
        self.write(file, text.replace(old, new, 1))

    def write(self, file: str, text: str) -> None:
        """Of a file that is edited twice within a second, Python would take the old compiled module."""
        (self.source / file).write_text(text)
        second = int(time.time()) + next(TICKS)
        os.utime(self.source / file, (second, second))


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
