"""A polite stop: at the end of a step, with a checkpoint of it; the run waits for that."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from models.errors import InvalidSettings
from pipelines.train import stop_file
from pipelines.train.monitor import follow_training, worker_error
from pipelines.train.worker import run_training
from storage.checkpoints import StepCheckpoints
from storage.files import Store
from tests.train import toy
from tests.train.conftest import FakeContext

ROOT = Path(__file__).resolve().parents[2]
LONG = replace(toy.PHASE, steps=1_000_000, validate_every=1_000_000)
SELDOM = {"log_every": 1_000_000, "checkpoint_every": 1_000_000}


def test_a_stop_between_two_log_lines_saves_the_step_reached(tmp_path, monkeypatch):
    monkeypatch.setattr(stop_file, "STOP_FILE_POLL_SECONDS", 0.05)
    context = FakeContext("train.painter.toy", None, {}, tmp_path, str(tmp_path))
    began = threading.Event()
    context.cancelled = began.is_set  # pyright: ignore[reportAttributeAccessIssue]
    threading.Timer(1.0, began.set).start()
    job = toy.job(tmp_path, LONG, **SELDOM)
    assert not follow_training(context, job, lambda: run_training(job, torch.device("cpu")))  # pyright: ignore
    reached = StepCheckpoints(str(tmp_path)).latest_step_up_to(LONG.steps)
    assert reached
    notes = [note for _, _, note in context.seen["progress"]]
    assert any(note.startswith("stopping at the end of a step") for note in notes)
    assert notes[-1].startswith(f"stopped at the end of step {reached}; a rerun goes on")


def test_a_stop_is_looked_for_at_most_once_a_second(tmp_path):
    Store(str(tmp_path)).write(stop_file.STOP_FILE, b"")
    file = stop_file.StopFile(Store(str(tmp_path)))
    assert file.is_asked()
    file.store = None  # pyright: ignore[reportAttributeAccessIssue]
    assert file.is_asked()
    other = stop_file.StopFile(Store(str(tmp_path / "elsewhere")))
    assert not other.is_asked()
    other.store = None  # pyright: ignore[reportAttributeAccessIssue]
    assert not other.is_asked()


PROGRAM = """
import sys
import torch.distributed as dist
from tests.train.test_stop_file import alone

dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=int(sys.argv[2]), world_size=2)
print(alone(sys.argv[3]))
"""


def alone(folder: str) -> int:
    """One of several workers -> the step it stopped at."""
    from pipelines.train import loop, worker

    reached, real = [], loop.train_step
    loop.train_step = lambda *given: (real(*given), reached.append(given[4]))
    worker.run_training(toy.job(Path(folder), replace(LONG, chunk=1), **SELDOM), torch.device("cpu"))
    return reached[-1]


@pytest.mark.slow
def test_all_workers_stop_at_one_step_though_one_alone_sees_the_wish(tmp_path):
    argv = [sys.executable, "-c", PROGRAM, str(tmp_path / "meet")]
    work = tmp_path / "work"
    Store(str(work)).write(stop_file.STOP_FILE, b"")
    both = [
        subprocess.Popen([*argv, str(rank), str(work)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    told = [int(one.communicate(timeout=120)[0]) for one in both]
    assert told[0] == told[1] == StepCheckpoints(str(work)).latest_step_up_to(LONG.steps)


# --- what goes wrong in a worker ----------------------------------------------------------------------------
class GroupError(Exception):
    """As Ray Train's: the failures of its workers by rank, each with the traceback as text."""

    def __init__(self, **failures: Exception) -> None:
        self.worker_failures = {int(rank[1:]): FromWorker(error) for rank, error in failures.items()}


class FromWorker(Exception):
    def __init__(self, error: Exception) -> None:
        super().__init__("Traceback (most recent call last): in the worker")
        self._base_exc = error


def test_a_workers_error_keeps_its_class_and_brings_its_traceback():
    own = worker_error("train.m.p", GroupError(_1=KeyError("lost")))
    assert isinstance(own, KeyError)
    assert own.__notes__ == ["train.m.p, worker 1:\nTraceback (most recent call last): in the worker"]


def test_of_several_workers_the_one_whose_error_means_something_is_heard():
    own = worker_error(
        "train.m.p", GroupError(_0=RuntimeError("peer is gone"), _1=InvalidSettings("no bf16"))
    )
    assert isinstance(own, InvalidSettings)
