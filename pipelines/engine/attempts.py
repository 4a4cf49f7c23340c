"""Attempts at a unit that ended with no answer: its worker process died, by the unit's fault or its
machine's.

An attempt of a run stands in the store while it is under way. One that the run finds there when it begins
another took its worker down, unless the machine went with it: that is no property of the unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from storage.files import Store


class MachineLiveness(Protocol):
    """What a worker knows of the machines that work for a run."""

    here: str
    """The one that this worker runs on; a machine that starts again is another."""

    def is_alive(self, machine: str) -> bool: ...


class SingleProcessMachines:
    """Of a run in one process: had its machine gone down, so had the run."""

    here = "here"

    def is_alive(self, machine: str) -> bool:
        return True


def list_unfinished_attempt_machines(store: Store, path: str) -> list[str]:
    """The machine of each attempt that ended with no answer."""
    return store.read(path).decode().split() if store.exists(path) else []


def record_attempt(store: Store, path: str, machines: Sequence[str]) -> None:
    """machines: of the attempts before, and of this one."""
    store.write(path, "\n".join(machines).encode())
