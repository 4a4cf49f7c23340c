"""Metric lines in segments: what is written grows with the lines, whoever reads along sees each once."""

from __future__ import annotations

import pytest

from pipelines.train import metric_log
from pipelines.train.metric_log import (
    MetricLog,
    MetricReader,
    list_metric_segments,
    log_segment_name,
    read_metrics,
    truncate_metric_log,
)
from storage.files import FileEntry, Store

LOSSES = {f"loss/term_{i}": 0.123456789012345 * i for i in range(10)}


class InMemory:
    """What the log uses of a store, and how many bytes were written to it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.written = 0

    def exists(self, path: str) -> bool:
        return path in self.files

    def list(self, path: str) -> list[FileEntry]:
        return [FileEntry(name, len(data), 0.0) for name, data in sorted(self.files.items())]

    def read(self, path: str) -> bytes:
        return self.files[path]

    def write(self, path: str, data: bytes) -> None:
        self.files[path] = data
        self.written += len(data)

    def delete(self, path: str) -> None:
        del self.files[path]


@pytest.fixture(autouse=True)
def every_line_is_written_at_once(monkeypatch):
    monkeypatch.setattr(metric_log, "FLUSH_SECONDS", 0.0)


@pytest.fixture
def short_segments(monkeypatch):
    monkeypatch.setattr(metric_log, "METRIC_LOG_SEGMENT_BYTES", 200)


def written(count: int) -> int:
    log = MetricLog(store := InMemory())  # pyright: ignore[reportArgumentType]
    for step in range(1, count + 1):
        log.add(step, LOSSES, {})
    assert sum(1 for _ in read_metrics(store)) == count  # pyright: ignore[reportArgumentType]
    return store.written


def test_bytes_written_grow_with_the_lines_alone():
    """Rewritten whole, twice the lines were four times the bytes: 20,000 lines 80 GB."""
    half, whole = written(10_000), written(20_000)
    assert whole < 2.1 * half
    assert whole < 20_000 * metric_log.METRIC_LOG_SEGMENT_BYTES


def test_a_reader_sees_each_line_once(tmp_path, short_segments):
    store = Store(str(tmp_path))
    log, reader, seen = MetricLog(store), MetricReader(store), []
    for step in range(1, 60):
        log.add(step, {"loss": 0.5}, {})
        if step % 7 == 0:
            seen += reader.read_new_lines()
    assert len(list_metric_segments(store)) > 5
    assert [line["step"] for line in [*seen, *reader.read_new_lines()]] == list(range(1, 60))
    assert reader.read_new_lines() == []


def test_a_reader_fetches_only_what_is_new(short_segments):
    store = InMemory()
    log, reader = MetricLog(store), MetricReader(store)  # pyright: ignore[reportArgumentType]
    for step in range(1, 60):
        log.add(step, {"loss": 0.5}, {})
    reader.read_new_lines()
    for number in list_metric_segments(store)[:-1]:  # pyright: ignore[reportArgumentType]
        del store.files[log_segment_name(number)]
    log.add(60, {"loss": 0.5}, {})
    assert [line["step"] for line in reader.read_new_lines()] == [60]


@pytest.mark.parametrize("after", [0, 1, 17, 58, 59])
def test_a_resumed_run_drops_the_lines_that_it_repeats(tmp_path, short_segments, after):
    store = Store(str(tmp_path))
    log = MetricLog(store)
    for step in range(1, 60):
        log.add(step, {"loss": 0.5}, {})
    log.flush()
    truncate_metric_log(store, after)
    again = MetricLog(store)
    for step in range(after + 1, 60):
        again.add(step, {"loss": 0.25}, {})
    again.flush()
    lines = list(read_metrics(store))
    assert [line["step"] for line in lines] == list(range(1, 60))
    assert [line["values"]["loss"] for line in lines] == [0.5] * after + [0.25] * (59 - after)
