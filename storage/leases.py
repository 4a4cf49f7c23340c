"""Leases: two drivers should not train the same phase twice. They save work; correctness never rests on them.

A claim is a small file with a heartbeat. The oldest claim that still beats holds the lease; the others wait.
Works on any store that lists what was written and needs no conditional write. A dead holder's claim expires.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from storage import locations
from storage.files import Store


@dataclass(frozen=True, slots=True)
class Lease:
    """How long a silent holder is believed alive, and how often it says so."""

    ttl: float = 60.0
    beat: float = 15.0
    poll: float = 2.0


@contextmanager
def held(
    store: Store,
    node: str,
    key: str,
    *,
    terms: Lease = Lease(),
    waiting: Callable[[str], None] = lambda _holder: None,
    give_up: Callable[[], bool] = lambda: False,
) -> Iterator[bool]:
    """Hold the lease of (node, key); yields whether we waited for a driver who may have done the work."""
    folder = locations.lease(node, key)
    mine = uuid.uuid4().hex
    claimed = time.time()
    stop = threading.Event()

    def beat() -> None:
        claim = {
            "holder": f"{socket.gethostname()}:{os.getpid()}",
            "claimed": claimed,
            "until": time.time() + terms.ttl,
        }
        store.write_json(f"{folder}/{mine}.json", claim)

    def keep_beating() -> None:
        while not stop.wait(terms.beat):
            beat()

    beat()
    waited = False
    try:
        while (first := _first(store, folder, mine)) is not None and not give_up():
            if not waited:
                waiting(first["holder"])
            waited = True
            time.sleep(terms.poll)
            beat()
        thread = threading.Thread(target=keep_beating, daemon=True, name=f"lease {node}")
        thread.start()
        yield waited
    finally:
        stop.set()
        store.delete(f"{folder}/{mine}.json")


def _first(store: Store, folder: str, mine: str) -> dict[str, Any] | None:
    """The live claim ahead of ours, if any."""
    claims: dict[str, dict[str, Any]] = {}
    for entry in store.list(folder):
        try:
            claims[entry.name.removesuffix(".json")] = json.loads(store.read(f"{folder}/{entry.name}"))
        except FileNotFoundError:
            continue  # released between the listing and the read
    live = {name: c for name, c in claims.items() if c["until"] > time.time() and not dead(c["holder"])}
    order = sorted(live, key=lambda name: (live[name]["claimed"], name))
    return None if not order or order[0] == mine else live[order[0]]


def dead(holder: str) -> bool:
    """A holder on this machine whose process is gone need not be waited for."""
    host, _, pid = holder.rpartition(":")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
