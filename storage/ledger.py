"""The run ledger: what ran, why, and how it ended, as JSON lines in small segments (no store can append).

Metrics and progress have segments of their own, so that what a run made and used is read without them.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from storage import locations
from storage.errors import DamagedFile
from storage.files import Store

Event = Mapping[str, Any]
"""What happened in a run: `type`, `time` (seconds since the epoch), `run_id`, and fields by type
(pipelines/tracking/__init__.py lists them)."""

FLUSH_SECONDS = 2.0
EVENT_SEGMENTS, METRIC_SEGMENTS = "events", "metrics"
"""Kinds of segments: <kind>-<number>.jsonl, numbered together in the order they were written."""


def new_run_id() -> str:
    """Sorts by time; the last part keeps two runs of one second apart."""
    now = datetime.now(UTC)
    return f"{now:%Y%m%d-%H%M%S}-{time.time_ns() % 0xFFFF:04x}"


def _kind(event: Event) -> str:
    return METRIC_SEGMENTS if event["type"] in ("metrics", "progress") else EVENT_SEGMENTS


class Ledger:
    """Append-only events of one run. `emit` is cheap and safe from any thread; `close` flushes."""

    def __init__(self, store: Store, run_id: str):
        self.store, self.run_id = store, run_id
        self._pending: list[Event] = []
        self._segment = 0
        self._lock = threading.Lock()
        self._flushed = time.monotonic()

    def emit(self, event: Mapping[str, object]) -> Event:
        """Add the time and the run -> the event as it is kept."""
        stamped = {"time": time.time(), "run_id": self.run_id, **event}
        with self._lock:
            self._pending.append(stamped)
            due = time.monotonic() - self._flushed > FLUSH_SECONDS
        if due or _kind(stamped) == EVENT_SEGMENTS:
            self.flush()
        return stamped

    def flush(self) -> None:
        with self._lock:
            events, self._pending = self._pending, []
            self._flushed = time.monotonic()
            for kind, some in groupby(events, key=_kind):
                path = f"{locations.run_folder(self.run_id)}/{kind}-{self._segment:06d}.jsonl"
                self._segment += 1
                lines = "".join(json.dumps(dict(event), sort_keys=True) + "\n" for event in some)
                self.store.write(path, lines.encode())


def read_events(
    store: Store, run_id: str, *, metrics: bool = True, damaged: Callable[[str], object] = lambda _text: None
) -> Iterator[Event]:
    """A run's events in the order they were emitted; without `metrics`, only what it made and used. Lines
    that are no events are left out, each reported to `damaged` with its file."""
    folder = locations.run_folder(run_id)
    kinds = (EVENT_SEGMENTS, METRIC_SEGMENTS) if metrics else (EVENT_SEGMENTS,)
    names = [e.name for e in store.list(folder) if e.name.partition("-")[0] in kinds]
    for name in sorted(names, key=lambda name: name.partition("-")[2]):
        for number, line in enumerate(store.read(f"{folder}/{name}").splitlines(), 1):
            try:
                event = json.loads(line)
                if not isinstance(event["type"], str) or not isinstance(event["time"], (int, float)):
                    raise TypeError(event)
            except (ValueError, TypeError, LookupError):
                damaged(f"{folder}/{name}, line {number}, is no event of a run")
                continue
            yield event


def list_runs(store: Store) -> list[str]:
    """Run ids, oldest first."""
    return store.list_folders("runs")


# --- runs with nothing to do --------------------------------------------------------------------------------
def record_reuse(store: Store, name: str, artifacts: Iterable[tuple[str, str]]) -> None:
    """That a run called `name` found these artifacts (stage, key) as it wants them: they are in use. One
    small file for the same artifacts, however often."""
    found = sorted(map(list, set(artifacts)))
    which = json.dumps([name, found])
    path = locations.reuse_path(hashlib.sha256(which.encode()).hexdigest()[:32])
    store.write_json(path, {"name": name, "artifacts": found, "time": time.time()})


def read_fully_cached_runs(
    store: Store, damaged: Callable[[str], object] = lambda _text: None
) -> Iterator[dict[str, Any]]:
    """What runs with nothing to do left behind."""
    for entry in store.list(locations.REUSES_FOLDER):
        try:
            found = store.read_json(f"{locations.REUSES_FOLDER}/{entry.name}", "name", "artifacts", "time")
            yield {
                "name": str(found["name"]),
                "artifacts": [(str(stage), str(key)) for stage, key in found["artifacts"]],
                "time": float(found["time"]),
            }
        except (TypeError, ValueError):
            damaged(f"{locations.REUSES_FOLDER}/{entry.name} is of another form")
        except DamagedFile as error:
            damaged(str(error))
