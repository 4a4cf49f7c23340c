"""A run's events as a person reads them: a live line a node in a terminal, now and then a line in a log."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TextIO

from storage.ledger import Event

PROGRESS_LOG_INTERVAL_SECONDS = 10.0  # seconds between progress lines of a node in a log file
REDRAW_INTERVAL = 0.2
NAME_WIDTH = 25  # characters of a node's name
PROGRESS_NOTE_WIDTH = 60  # characters of a node's own note on a progress line; its last line has all of it


@dataclass
class _Node:
    started: float = field(default_factory=time.monotonic)
    done: int = 0
    total: int = 0
    rejected: int = 0
    note: str = ""
    logged: float = 0.0
    frames: int = 0
    first: tuple[float, int, int] | None = None
    """When the first unit was done, how many, and their frames: start-up is not part of the rate."""

    def line(self, name: str) -> str:
        seconds = time.monotonic() - self.started
        parts = [f"{name:<{NAME_WIDTH}}"]
        if self.total:
            parts.append(f"{self.done:>6,}/{self.total:,}")
            if rate := self.rate():
                left = (self.total - self.done) / rate
                parts.append(f"{rate:8.2f}/s{self.frame_rate()}  ETA {format_duration(left)}")
        parts.append(format_duration(seconds))
        if self.rejected:
            parts.append(f"{self.rejected} rejected")
        if self.note:
            parts.append(
                self.note
                if len(self.note) <= PROGRESS_NOTE_WIDTH
                else f"{self.note[: PROGRESS_NOTE_WIDTH - 3]}..."
            )
        return "  ".join(parts)

    def rate(self) -> float:
        if self.first is None or self.done <= self.first[1]:
            return 0.0
        return (self.done - self.first[1]) / max(1e-6, time.monotonic() - self.first[0])

    def frame_rate(self) -> str:
        if self.first is None or self.frames <= self.first[2]:
            return ""
        return f" {(self.frames - self.first[2]) / max(1e-6, time.monotonic() - self.first[0]):,.0f} frames/s"


def format_duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressPrinter:
    """Prints events as they come. Thread-safe; nothing depends on it."""

    def __init__(self, stream: TextIO | None = None, live: bool | None = None):
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty() if live is None else live
        self._nodes: dict[str, _Node] = {}
        self._lines = 0
        self._last = 0.0
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            handler = getattr(self, f"_on_{event['type']}", None)
            if handler is not None:
                handler(event)

    def _on_node_started(self, event: Event) -> None:
        self._nodes[event["node"]] = _Node()
        reasons = event.get("reasons") or ["stale"]
        more = f" (+{len(reasons) - 1} more)" if len(reasons) > 1 else ""
        self._print(f"> {event['node']:<{NAME_WIDTH}}  {reasons[0]}{more}")

    def _on_node_cached(self, event: Event) -> None:
        self._print(f"= {event['node']:<{NAME_WIDTH}}  {event['state']}")

    def _on_progress(self, event: Event) -> None:
        node = self._nodes.setdefault(event["node"], _Node())
        node.done, node.total = event["done"], event["total"]
        node.rejected, node.note = event.get("rejected", 0), event.get("note", "")
        node.frames = event.get("frames", 0)
        now = time.monotonic()
        if node.first is None and node.done > 0:
            node.first = (now, node.done, node.frames)
        if self.live:
            self._redraw()
        elif now - node.logged > PROGRESS_LOG_INTERVAL_SECONDS and node.done:
            node.logged = now
            self._print(f"  {node.line(event['node'])}")

    def _on_warning(self, event: Event) -> None:
        self._print(f"! {event.get('node', ''):<{NAME_WIDTH}}  {event['text']}")

    def _on_shards_dropped(self, event: Event) -> None:
        self._print(f"- {event['stage']:<{NAME_WIDTH}}  dropped, frees {event['bytes'] / 1e6:,.1f} MB")

    def _on_node_finished(self, event: Event) -> None:
        node = self._nodes.pop(event["node"], _Node())
        if event["status"] != "FINISHED":
            self._print(f"x {event['node']:<{NAME_WIDTH}}  {event['status'].lower()}: {event['error']}")
            return
        counts = event.get("counts") or {}
        cached = counts.get("cached", 0)
        units = f"{cached:,} unit{'s' * (cached != 1)}" if counts.get("units") else ""
        rejected = f"{counts['rejected']} rejected" if counts.get("rejected") else ""
        parts = [format_duration(event["seconds"]), *(part for part in (units, rejected, node.note) if part)]
        self._print(f"v {event['node']:<{NAME_WIDTH}}  {', '.join(parts)}")
        for reject in event.get("rejects", [])[:5]:
            self._print(f"    rejected {reject['unit']}: {reject['code']}: {reject['reason']}")
        if len(event.get("rejects", [])) > 5:
            self._print(f"    ... and {len(event['rejects']) - 5} more; see the manifest or the report")

    def _print(self, text: str) -> None:
        self._erase()
        self.stream.write(text + "\n")
        self.stream.flush()
        if self.live:
            self._redraw(force=True)

    def _erase(self) -> None:
        if self._lines:
            self.stream.write(f"\x1b[{self._lines}A\x1b[J")
            self._lines = 0

    def _redraw(self, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._last < REDRAW_INTERVAL:
            return
        self._last = now
        self._erase()
        lines = [f"  {node.line(name)}"[:160] for name, node in self._nodes.items()]
        self.stream.write("".join(line + "\n" for line in lines))
        self.stream.flush()
        self._lines = len(lines)
