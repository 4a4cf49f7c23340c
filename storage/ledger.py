"""The run ledger: what ran, why, and how it ended, as JSON lines in small segments (no store can append)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from storage import locations
from storage.files import Store

FLUSH_SECONDS = 2.0


def new_run_id() -> str:
    """Sorts by time; the last part keeps two runs of one second apart."""
    now = datetime.now(UTC)
    return f"{now:%Y%m%d-%H%M%S}-{time.time_ns() % 0xFFFF:04x}"


class Ledger:
    """Append-only events of one run. `emit` is cheap and safe from any thread; `close` flushes."""

    def __init__(self, store: Store, run_id: str):
        self.store, self.run_id = store, run_id
        self._pending: list[dict[str, Any]] = []
        self._segment = 0
        self._lock = threading.Lock()
        self._flushed = time.monotonic()

    def emit(self, event: dict[str, Any]) -> dict[str, Any]:
        event = {"time": time.time(), "run_id": self.run_id, **event}
        with self._lock:
            self._pending.append(event)
            due = time.monotonic() - self._flushed > FLUSH_SECONDS
        if due or event["type"] not in ("metrics", "progress"):
            self.flush()
        return event

    def flush(self) -> None:
        with self._lock:
            events, self._pending = self._pending, []
            self._flushed = time.monotonic()
            if not events:
                return
            path = f"{locations.run(self.run_id)}/events-{self._segment:06d}.jsonl"
            self._segment += 1
            self.store.write(path, "".join(json.dumps(e, sort_keys=True) + "\n" for e in events).encode())


def read_events(store: Store, run_id: str) -> Iterator[dict[str, Any]]:
    """A run's events in the order they were emitted."""
    folder = locations.run(run_id)
    for entry in store.list(folder):
        if entry.name.startswith("events-"):
            for line in store.read(f"{folder}/{entry.name}").decode().splitlines():
                yield json.loads(line)


def runs(store: Store) -> list[str]:
    """Run ids, oldest first."""
    return store.folders("runs")
