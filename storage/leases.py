"""Leases: two drivers should not do the same work twice. They save work; correctness never rests on them.

A claim is a small file, `leases/<node>/<key>@<claim>.json`, that its holder writes again and again with a
counter. Who watches one believes its holder alive as long as the file changed within `ttl` seconds of the
watcher's own clock: clocks of different machines are never compared. The claims of one key have an order: a
holder first, then by tickets drawn as in a bakery (one more than the highest that was there), then by name.
Works on any store that lists what was written and needs no conditional write.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from msgspec import Struct

from storage import locations
from storage.errors import StoreError, StoreUnreachable
from storage.files import Store

CLAIM_RACE_SECONDS = 0.5
"""How long two claims made at the same time may take to see each other."""


class LeaseTimings(Struct, frozen=True):
    """How long a silent holder is believed alive, how often it says so, and how often others look."""

    ttl: float = 60.0
    beat: float = 15.0
    poll: float = 2.0


class Claim(Struct, frozen=True):
    """A claim's file as it was read."""

    name: str
    """Of the file: <key>@<claim>.json"""
    text: bytes
    holder: str
    run: str
    ticket: int
    holding: bool

    @property
    def key(self) -> str:
        return self.name.partition("@")[0]

    @property
    def sort_key(self) -> tuple[bool, int, str]:
        return (not self.holding, self.ticket, self.name)


def list_claims(store: Store, node: str, key: str | None = None) -> list[Claim]:
    """The claims on a node's work, or on one key of it, first in order first. A file that is no claim, or is
    released before it is read, counts as none."""
    folder, found = locations.leases_folder(node), []
    for entry in store.list(folder):
        if key is not None and not entry.name.startswith(f"{key}@"):
            continue
        with suppress(FileNotFoundError, ValueError, TypeError, LookupError, AttributeError):
            text = store.read(f"{folder}/{entry.name}")
            facts = json.loads(text)
            found.append(Claim(entry.name, text, str(facts["holder"]), str(facts.get("run", "")),
                               int(facts.get("ticket", 0)), bool(facts.get("holding"))))  # fmt: skip
    return sorted(found, key=lambda claim: claim.sort_key)


class ClaimWatcher:
    """Which claims are alive, by what this process has seen of them."""

    def __init__(self, store: Store, node: str, terms: LeaseTimings = LeaseTimings()):
        self.store, self.node, self.terms = store, node, terms
        self._seen: dict[str, tuple[bytes, float]] = {}

    def live_claims(self, key: str | None = None) -> list[Claim]:
        """Claims in order. Those of dead holders are taken away: their work is free."""
        living = []
        for claim in list_claims(self.store, self.node, key):
            now = time.monotonic()
            if self._seen.get(claim.name, (b"", 0.0))[0] != claim.text:
                self._seen[claim.name] = (claim.text, now)
            if is_holder_dead(claim.holder) or now - self._seen[claim.name][1] > self.terms.ttl:
                self.store.delete(f"{locations.leases_folder(self.node)}/{claim.name}")
            else:
                living.append(claim)
        return living


class _Mine:
    """A claim of this process, and the thread that keeps it alive."""

    def __init__(self, store: Store, node: str, key: str, run: str, terms: LeaseTimings, holding: bool):
        ahead = [claim.ticket for claim in list_claims(store, node, key)]
        self.store, self.terms = store, terms
        self.name = f"{key}@{uuid.uuid4().hex}.json"
        self._path = f"{locations.leases_folder(node)}/{self.name}"
        self._facts = {"holder": f"{socket.gethostname()}:{os.getpid()}", "run": run,
                       "ticket": max(ahead, default=0) + 1, "holding": holding, "beat": 0}  # fmt: skip
        self._lock, self._released = threading.Lock(), threading.Event()
        self.write()
        threading.Thread(target=self._keep_beating, daemon=True, name=f"lease {node}").start()

    @property
    def order(self) -> tuple[bool, int, str]:
        return (not self._facts["holding"], self._facts["ticket"], self.name)

    def write(self, **changed: object) -> None:
        with self._lock:  # a heartbeat under way must not bring a released claim back
            if not self._released.is_set():
                self._facts |= changed
                self._facts["beat"] += 1
                self.store.write_json(self._path, self._facts)

    def _keep_beating(self) -> None:
        pause = self.terms.beat
        while not self._released.wait(pause):
            try:
                self.write()
                pause = self.terms.beat
            except (StoreUnreachable, StoreError):  # others believe us dead only after `ttl`: try again soon
                pause = min(self.terms.poll, self.terms.beat)

    def release(self) -> None:
        self._released.set()
        with self._lock, suppress(StoreUnreachable, StoreError):  # then it expires
            self.store.delete(self._path)


@contextmanager
def acquire_lease(
    store: Store,
    node: str,
    key: str,
    *,
    run: str = "",
    terms: LeaseTimings = LeaseTimings(),
    waiting: Callable[[str], None] = lambda _holder: None,
    give_up: Callable[[], bool] = lambda: False,
) -> Iterator[bool]:
    """Hold the lease of (node, key), waiting for it; yields whether we waited for a driver who may have done
    the work."""
    mine, watch, waited = (
        _Mine(store, node, key, run, terms, holding=False),
        ClaimWatcher(store, node, terms),
        False,
    )
    try:
        while (ahead := _ahead(watch, key, mine, patient=waited)) and not give_up():
            if not waited:
                waiting(ahead)
            waited = True
            time.sleep(terms.poll)
        mine.write(holding=True)
        yield waited
    finally:
        mine.release()


def _ahead(watch: ClaimWatcher, key: str, mine: _Mine, patient: bool) -> str:
    """Who holds a claim ahead of ours; "" where nobody does. Patient: a store out of reach is asked again."""
    try:
        alive = watch.live_claims(key)
    except StoreUnreachable:
        if not patient:
            raise
        return "a store that does not answer"
    first = alive[0] if alive else None  # ours too may be gone: taken away by one who saw no heartbeat
    return first.holder if first and first.name != mine.name else ""


@contextmanager
def try_acquire_lease(
    store: Store, node: str, key: str, *, run: str, terms: LeaseTimings = LeaseTimings()
) -> Iterator[bool]:
    """Claim (node, key) without waiting; yields False where another run holds it. A claim of the same run is
    that of a worker which died at this work."""
    mine: _Mine | None = None
    try:
        if not (busy := bool(_others(store, node, key, run, ""))):
            mine = _Mine(store, node, key, run, terms, holding=True)
            busy = _gives_way(store, node, key, run, mine)
    except StoreUnreachable:
        busy = False  # only work is at stake; whether the store can take the result is seen soon enough
    try:
        yield not busy
    finally:
        if mine is not None:
            mine.release()


def _gives_way(store: Store, node: str, key: str, run: str, mine: _Mine) -> bool:
    """Whether to give way to a claim made at the same time. Who is behind in order does at once; who is ahead
    looks whether the other one does: it may have looked before our claim was there, and be at work."""
    until = time.monotonic() + CLAIM_RACE_SECONDS
    while others := _others(store, node, key, run, mine.name):
        if any(other.sort_key < mine.order for other in others) or time.monotonic() > until:
            return True
        time.sleep(CLAIM_RACE_SECONDS / 50)
    return False


def _others(store: Store, node: str, key: str, run: str, mine: str) -> list[Claim]:
    """Other runs' claims. Those of dead workers, as far as that is known at once, are taken away."""
    found = []
    for claim in list_claims(store, node, key):
        if claim.run != run and not is_holder_dead(claim.holder):
            found.append(claim)
        elif claim.name != mine:
            store.delete(f"{locations.leases_folder(node)}/{claim.name}")
    return found


def is_holder_dead(holder: str) -> bool:
    """A holder on this machine whose process is gone need not be waited for."""
    host, _, pid = holder.rpartition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
