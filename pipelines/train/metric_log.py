"""Metric lines in the work folder: workers write them, the driver reads along, a resumed run goes on.

They lie in segments, `metrics-000000.jsonl` and so on, so that any store can hold them (an object has no
append) and yet what is written grows with the lines alone: only the last segment is rewritten, up to SEGMENT
bytes. Segments are read in order, each to its end once the next one is there.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

from storage.files import Store

METRICS_FILE = "metrics.jsonl"
"""Of the artifact: all segments as one file, without what depends on the time of day."""
FLUSH_SECONDS = 1.0  # seconds between two writes of the metric lines
METRIC_LOG_SEGMENT_BYTES = 1 << 16
"""Bytes from which on a segment is closed: about 130 lines of ten losses."""
_NAME = re.compile(r"metrics-(\d{6,})\.jsonl")

MetricLine = dict[str, Any]


def log_segment_name(number: int) -> str:
    return f"metrics-{number:06d}.jsonl"


def list_metric_segments(store: Store) -> list[int]:
    matches = (_NAME.fullmatch(entry.name) for entry in store.list(""))
    return sorted(int(match[1]) for match in matches if match)


def encode_metric_lines(lines: Iterable[MetricLine]) -> bytes:
    return "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode()


def read_metric_segment(store: Store, number: int) -> list[MetricLine]:
    return [json.loads(line) for line in store.read(log_segment_name(number)).decode().splitlines()]


def read_metrics(store: Store) -> Iterator[MetricLine]:
    """All lines, in order."""
    for number in list_metric_segments(store):
        yield from read_metric_segment(store, number)


def truncate_metric_log(store: Store, after: int) -> None:
    """Drop the lines of steps that a resumed run repeats."""
    for number in reversed(list_metric_segments(store)):
        lines = read_metric_segment(store, number)
        kept = [line for line in lines if line["step"] <= after]
        if kept and len(kept) < len(lines):
            store.write(log_segment_name(number), encode_metric_lines(kept))
        if kept:
            return
        store.delete(log_segment_name(number))


class MetricLog:
    """The writing end."""

    def __init__(self, store: Store) -> None:
        self.store, self.written = store, 0.0
        self.number = max(list_metric_segments(store), default=0)
        self.text = (
            store.read(log_segment_name(self.number)) if store.exists(log_segment_name(self.number)) else b""
        )

    def add(self, step: int, values: dict[str, float], speed: dict[str, float]) -> None:
        self.text += encode_metric_lines([{"step": step, "values": values, "speed": speed}])
        if time.monotonic() - self.written >= FLUSH_SECONDS or len(self.text) >= METRIC_LOG_SEGMENT_BYTES:
            self.flush()

    def flush(self) -> None:
        if self.text:
            self.store.write(log_segment_name(self.number), self.text)
        if len(self.text) >= METRIC_LOG_SEGMENT_BYTES:
            self.number, self.text = self.number + 1, b""
        self.written = time.monotonic()


class MetricReader:
    """The reading end: what is new since the last call. Reads one segment again, and those after it."""

    def __init__(self, store: Store) -> None:
        self.store, self.number, self.seen = store, 0, 0

    def read_new_lines(self) -> list[MetricLine]:
        found: list[MetricLine] = []
        for number in count(self.number):
            closed = self.store.exists(
                log_segment_name(number + 1)
            )  # asked first: then this one is read to its end
            if not self.store.exists(log_segment_name(number)):
                break
            lines = read_metric_segment(self.store, number)
            found += lines[self.seen :]
            self.number, self.seen = number, len(lines)
            if not closed:
                break
            self.number, self.seen = number + 1, 0
        return found
