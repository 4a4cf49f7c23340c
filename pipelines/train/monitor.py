"""Watching a training run: metric lines passed on as they appear, a stop when asked, the worker's own errors.

Nothing here can change a result, so it is in no key (pipelines/runs/session.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pipelines.errors import error_meaning
from pipelines.train.metric_log import MetricReader
from pipelines.train.stop_file import STOP_FILE
from storage.files import Store

if TYPE_CHECKING:
    from pipelines.engine.node import NodeContext
    from pipelines.train.job import TrainJobSpec

METRIC_LOG_POLL_SECONDS = 0.5  # seconds between two looks at the metric lines
COUNT_SUFFIXES = ("_frames", "_missing")
"""Of figures that only say how many samples another one is of."""
WORKER_STOP_TIMEOUT_SECONDS = 300.0  # seconds that workers get to end their step and to save it


def follow_training(ctx: NodeContext, job: TrainJobSpec, run: Callable[[], None]) -> bool:
    """Run in a thread and pass metric lines on as they appear -> False if cancelled: then the workers have
    stopped at the end of a step, and its checkpoint is saved.
    """
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 (handed to the caller's thread)
            failures.append(error)

    store, steps = Store(ctx.scratch), job.phase.steps
    lines = MetricForwarder(ctx, job, store)
    thread = threading.Thread(target=guarded, name=job.node, daemon=True)
    thread.start()
    until: float | None = None
    while thread.is_alive() and (until is None or time.monotonic() < until):
        thread.join(METRIC_LOG_POLL_SECONDS)
        lines.forward_new_metrics()
        if until is None and ctx.cancelled():
            until = time.monotonic() + WORKER_STOP_TIMEOUT_SECONDS
            store.write(STOP_FILE, b"")
            ctx.report_progress(
                lines.step, steps, f"stopping at the end of a step (logged last: {lines.step})"
            )
    lines.forward_new_metrics()
    if failures:
        raise worker_error(job.node, failures[0])
    if until is not None:
        state = "still not stopped" if thread.is_alive() else f"stopped at the end of step {lines.step}"
        ctx.report_progress(lines.step, steps, f"{state}; a rerun goes on from its last checkpoint")
    return until is None


def worker_error(node: str, error: BaseException) -> BaseException:
    """What went wrong in a worker, of the class that it had there, with the worker's traceback as a note."""
    failures = getattr(error, "worker_failures", None)
    if not failures:
        return error
    own = {rank: getattr(one, "_base_exc", one) for rank, one in sorted(failures.items())}
    rank = next((rank for rank, one in own.items() if error_meaning(one) != "fault"), min(own))
    own[rank].add_note(f"{node}, worker {rank}:\n{failures[rank]}")
    return own[rank]


class MetricForwarder:
    """Metric lines forwarded to the run, each once."""

    def __init__(self, ctx: NodeContext, job: TrainJobSpec, store: Store) -> None:
        self.ctx, self.job, self.reader = ctx, job, MetricReader(store)
        self.step, self.latest = 0, dict[str, float]()

    def forward_new_metrics(self) -> None:
        found = self.reader.read_new_lines()
        for line in found:
            values = line["values"] | {f"speed/{name}": value for name, value in line["speed"].items()}
            self.ctx.log_metrics(values, step=line["step"])
            self.step = line["step"]
            self.latest |= line["values"] | line["speed"]
        if found:
            self.ctx.report_progress(self.step, self.job.phase.steps, progress_note(self.latest))


def progress_note(latest: Mapping[str, float]) -> str:
    """The figures of a progress line: the last total loss, speed and held-out score of self-reenactment."""
    chosen = [n for n in latest if n in ("loss/total", "samples_per_second") or n.startswith("held_out/")]
    names = [n for n in chosen if n.count("/") < 2 and "/copy_" not in n and not n.endswith(COUNT_SUFFIXES)]
    return ", ".join(f"{name} {latest[name]:.4g}" for name in names)
