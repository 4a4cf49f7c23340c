"""How far `reenact animate` is: one line that is overwritten in a terminal, now and then a line in a log."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from pipelines.runs.progress import PROGRESS_LOG_INTERVAL_SECONDS, REDRAW_INTERVAL, format_duration


class ProgressLine:
    """Called with the frames written and their total."""

    def __init__(self, stream: TextIO | None = None, live: bool | None = None):
        self._stream = stream or sys.stderr
        self.live = self._stream.isatty() if live is None else live
        self._first: tuple[float, int] | None = None
        self._written = time.monotonic() if not self.live else 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)  # what came before is start-up
        if now - self._written < (REDRAW_INTERVAL if self.live else PROGRESS_LOG_INTERVAL_SECONDS) and not (
            self.live and done == total
        ):
            return
        self._written = now
        began, at_first = self._first
        rate = (done - at_first) / max(1e-6, now - began)
        left = f"  {rate:.1f} frames/s  ETA {format_duration((total - done) / rate)}" if rate else ""
        line = f"{done:,}/{total:,} frames{left}"
        self._stream.write(f"\r\x1b[K{line}" if self.live else f"{line}\n")
        self._stream.flush()

    def log(self, text: str) -> None:
        """Write a message on a line of its own."""
        self.clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Erase the line in a terminal."""
        if self.live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
