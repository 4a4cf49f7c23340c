"""Rate limits of hosts, kept by all processes of this machine together: a host counts by address, and that is
the machine's.

A host is a folder named by a hash. Its slots are files held with flock, which a dying process lets go of; its
clock says when the next start may be, which the settings put a little ahead and a host's own response (429, a
check for robots) far ahead.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipelines.errors import Transient

_POLL = 0.05
_DAY = 86_400.0


def user_cache_folder(otherwise: Path) -> Path:
    """One for all jobs of this user on this machine, whatever checkouts they run in. A home may be shared by
    machines, hence the name; where there is none, a container say: `otherwise`."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(cache) / "reenact" / "hosts" / platform.node()
    try:
        if not folder.is_absolute():  # no home is known, or XDG_CACHE_HOME is one that does not count
            return otherwise
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return otherwise
    return folder if os.access(folder, os.W_OK) else otherwise


class DownloadHostBusy(Transient):
    """A host asks for a longer wait than the settings allow: a later run fetches the recording."""

    def __init__(self, message: str, soon: bool = False):
        super().__init__(message, soon)  # as pickle calls it again, in the driver


class HostRateLimits:
    """folder: shared by all processes. per_host: transfers from one host at once. longest_wait: seconds."""

    def __init__(self, folder: Path, per_host: int, longest_wait: float):
        self._folder = folder
        self._per_host = per_host
        self._longest_wait = longest_wait

    @contextmanager
    def use_slot(self, host: str, seconds_between: float) -> Iterator[None]:
        """Hold one of the host's slots, no sooner than its clock allows. Raises DownloadHostBusy.

        The queue for a slot has no end of its own: who holds one is watched for being stuck.
        """
        file = self._acquire_slot(host)
        deadline = time.time() + self._longest_wait
        try:
            start = self._next_start(host, seconds_between, deadline)
            # In short sleeps: meanwhile another process may be told to wait longer.
            while (left := max(start, self._not_before(host)) - time.time()) > 0:
                if time.time() + left > deadline:
                    raise self._busy(host, left)
                time.sleep(min(left, 1.0))
            yield
        finally:
            file.close()

    def back_off(self, host: str, seconds: float) -> None:
        """No process of this machine starts on this host for so long, a day at most."""
        with self._clock(host) as clock:
            clock["not_before"] = max(clock["not_before"], time.time() + min(seconds, _DAY))

    def _acquire_slot(self, host: str) -> IO[bytes]:
        folder = self._of(host)
        files = [(folder / f"slot{i}").open("ab") for i in range(self._per_host)]
        try:
            while True:
                for file in files:
                    if _try_lock(file):
                        files.remove(file)
                        return file
                time.sleep(_POLL)
        finally:
            for file in files:
                file.close()

    def _next_start(self, host: str, seconds_between: float, deadline: float) -> float:
        """Reserve the next free start; raises DownloadHostBusy if it lies behind the deadline."""
        with self._clock(host) as clock:
            start = max(time.time(), clock["next_start"], clock["not_before"])
            if start > deadline:
                raise self._busy(host, start - time.time())
            clock["next_start"] = start + seconds_between
            return start

    def _not_before(self, host: str) -> float:
        with self._clock(host) as clock:
            return clock["not_before"]

    def _busy(self, host: str, seconds: float) -> DownloadHostBusy:
        return DownloadHostBusy(
            f"{host} accepts no requests for another {seconds:.0f} s; run again after that"
        )

    @contextmanager
    def _clock(self, host: str) -> Iterator[dict[str, float]]:
        """Read, change and write back under a lock."""
        with (self._of(host) / "clock").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            clock = {"next_start": 0.0, "not_before": 0.0} | _numbers(file.read())
            before = dict(clock)
            yield clock
            if clock != before:
                file.seek(0)
                file.truncate()
                file.write(json.dumps(clock))
                file.flush()

    def _of(self, host: str) -> Path:
        """A name from a list of videos never becomes a file name."""
        folder = self._folder / hashlib.sha256(host.encode()).hexdigest()[:32]
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _numbers(text: str) -> dict[str, float]:
    """A clock that a dying process left half-written, or of another form, counts as none."""
    try:
        return {str(name): float(value) for name, value in json.loads(text or "{}").items()}
    except (ValueError, TypeError, AttributeError):
        return {}


@contextmanager
def exclusive_lock(path: Path, patience: float) -> Iterator[None]:
    """Hold the lock file `path`, which is gone afterwards. DownloadHostBusy after `patience` seconds."""
    deadline = time.time() + patience
    while True:
        file = path.open("ab")
        # Whoever held it before has unlinked it, and this lock is on no file any more: once again.
        if _try_lock(file) and _same_file(file, path):
            break
        file.close()
        if time.time() > deadline:
            raise DownloadHostBusy("another process has been fetching the same recording for too long")
        time.sleep(_POLL)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _same_file(file: IO[bytes], path: Path) -> bool:
    try:
        return os.stat(path).st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
