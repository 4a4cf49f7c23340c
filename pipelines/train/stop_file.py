"""How a training is stopped politely: a file in its work folder, which workers agree on."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from storage.errors import StoreUnreachable
from storage.files import Store

STOP_FILE = "stop"
STOP_FILE_POLL_SECONDS = 1.0  # seconds between two looks for the file


@dataclass
class StopState:
    """asked: this worker knows of the wish. agreed: all workers do, at the same step."""

    asked: bool = False
    agreed: bool = False


class StopFile:
    """Looked for after every step, but in the store only every POLL seconds."""

    def __init__(self, store: Store) -> None:
        self.store, self.checked, self.found = store, 0.0, False

    def is_asked(self) -> bool:
        if not self.found and time.monotonic() - self.checked >= STOP_FILE_POLL_SECONDS:
            with suppress(StoreUnreachable):  # then at the next look
                self.found = self.store.exists(STOP_FILE)
            self.checked = time.monotonic()
        return self.found
