"""Metric lines in the work folder: workers write them, the driver reads along, a resumed run goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

from storage.files import Store

METRICS, STOP = "metrics.jsonl", "stop"
FLUSH = 1.0  # seconds between two writes of the metric lines


class MetricLog:
    """Metric lines in the work folder, rewritten whole so that any store can hold them; the driver reads
    along.
    """

    def __init__(self, scratch: str, after: int) -> None:
        self.store, self.written = Store(scratch), 0.0
        self.lines = [
            line for line in read_metrics(self.store) if line["step"] <= after
        ]  # a resumed run repeats steps

    def add(self, step: int, values: dict[str, float], speed: dict[str, float]) -> None:
        self.lines.append({"step": step, "values": values, "speed": speed})
        if time.monotonic() - self.written >= FLUSH:
            self.flush()

    def flush(self) -> None:
        self.store.write(METRICS, log_text(self.lines))
        self.written = time.monotonic()

    def stop_asked(self) -> bool:
        return self.store.exists(STOP)


def log_text(lines: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode()


def read_metrics(store: Store) -> list[dict[str, Any]]:
    if not store.exists(METRICS):
        return []
    return [json.loads(line) for line in store.read(METRICS).decode().splitlines()]
