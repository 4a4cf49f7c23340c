"""Watching a training run: metric lines passed on as they appear, a stop when asked, errors in plain words.

Nothing here can change a result, so it is in no key (pipelines/session.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipelines.train.metric_log import METRICS, STOP, read_metrics
from storage.files import Store

if TYPE_CHECKING:
    from pipelines.engine.node import Context
    from pipelines.train.job import Job

POLL = 0.5  # seconds between two looks at the metric lines
PATIENCE = 20.0  # seconds that workers get to stop at a step's end


def follow(ctx: Context, job: Job, run: Callable[[], None]) -> bool:
    """Run in a thread and pass metric lines on as they appear -> False if cancelled, at the end of a step."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 (handed to the caller's thread)
            failures.append(error)

    store = Store(ctx.scratch)
    lines = Lines(ctx, job, store)
    thread = threading.Thread(target=guarded, name=job.node, daemon=True)
    thread.start()
    cancelled = getattr(ctx, "cancelled", lambda: False)
    while thread.is_alive():
        thread.join(POLL)
        lines.forward()
        if cancelled():
            store.write(STOP, b"")
            thread.join(PATIENCE)
            return False
    lines.forward()
    if failures:
        raise _plain(job, failures[0]) from failures[0]
    return True


def _plain(job: Job, error: BaseException) -> BaseException:
    """The worker's own words in place of a pickled traceback in a traceback."""
    workers = getattr(error, "worker_failures", None)
    if workers:
        rank, first = sorted(workers.items())[0]
        cause = getattr(first, "cause", None) or first
        return RuntimeError(f"{job.node}, worker {rank}: {type(cause).__name__}: {cause}")
    return RuntimeError(f"{job.node}: {type(error).__name__}: {error}")


class Lines:
    """Metric lines forwarded to the run, each once."""

    def __init__(self, ctx: Context, job: Job, store: Store) -> None:
        self.ctx, self.job, self.store = ctx, job, store
        self.size, self.step, self.seen = -1, 0, 0

    def forward(self) -> None:
        entries = {entry.name: entry.size for entry in self.store.list("")}
        if entries.get(METRICS, -1) == self.size:
            return
        self.size = entries.get(METRICS, -1)
        lines = read_metrics(self.store)
        for line in lines[self.seen :]:
            values = line["values"] | {f"speed/{name}": value for name, value in line["speed"].items()}
            self.ctx.metrics(values, step=line["step"])
            self.step = line["step"]
        if len(lines) > self.seen:
            self.ctx.progress(self.step, self.job.phase.steps, note(lines))
        self.seen = len(lines)


def note(lines: list[dict[str, Any]]) -> str:
    """The figures of a progress line: the last total loss, speed and held-out score."""
    latest: dict[str, float] = {}
    for line in lines:
        latest |= line["values"] | line["speed"]
    chosen = [n for n in latest if n in ("loss/total", "samples_per_second") or n.startswith("held_out/")]
    told = [n for n in chosen if "/copy_" not in n and not n.endswith("_frames")]
    return ", ".join(f"{name} {latest[name]:.4g}" for name in told)
