"""Events to MLflow beside a run, from a thread that may fall behind, and afterwards, from the ledger."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable

from pipelines.tracking.mlflow_text import redact_uris
from pipelines.tracking.replay import DEFAULT_EXPERIMENT, FetchFile, MlflowReplayer, silence_mlflow
from pipelines.tracking.server import TrackingPlace
from storage.ledger import Event

FLUSH_SECONDS = 2.0
MLFLOW_RETRY_SECONDS = 20.0

log = logging.getLogger(__name__)


class MlflowTracker:
    """Feeds events to MLflow from a thread. Nothing here waits for MLflow or raises because of it: what
    cannot be delivered is retried while the run lasts, and stays in the ledger for `sync_run`."""

    def __init__(
        self,
        where: TrackingPlace,
        experiment: str = DEFAULT_EXPERIMENT,
        fetch: FetchFile | None = None,
    ):
        self._where, self._experiment, self._fetch = where, experiment, fetch
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._replayer: MlflowReplayer | None = None
        self._thread: threading.Thread | None = None
        self._delivered = True
        self.trouble = ""
        """Why MLflow does not take events at present; empty when it does."""

    def queue_event(self, event: Event) -> None:
        """Queue an event (a dict as the ledger gives it back, with time and run_id). Cheap, from any
        thread."""
        if (
            self._thread is None
        ):  # importing mlflow takes seconds: in the thread, and only if there is an event
            self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
            self._thread.start()
        self._queue.put(event)

    def close(self, timeout: float = 30.0) -> bool:
        """Deliver what is queued, for at most so long. True: MLflow has everything; False: `sync_run` it
        later."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout)
            if self._thread.is_alive():
                self.trouble = self.trouble or f"it has not taken them within {timeout:g} s"
                return False
            return self._delivered
        return True

    def sync_run(self, events: Iterable[Event], over: bool = False) -> bool:
        """Replay a run's events, in order, here and now; what MLflow has already is not repeated. `over`: the
        run is known to be dead, so if its events do not end, it was killed. False: MLflow cannot be
        reached."""
        last: Event | None = None
        ended = False
        backlog: deque[Event] = deque()
        for event in events:
            backlog.append(event)
            last, ended = event, event["type"] == "run_finished"
        if over and last is not None and not ended:
            backlog.append(
                {"type": "run_finished", "time": last["time"], "run_id": last["run_id"], "status": "KILLED"}
            )
        return self._deliver(backlog)

    def _work(self) -> None:
        backlog: deque[Event] = deque()
        closing, retry_at = False, 0.0
        while not closing:
            closing = self._take(backlog)
            if backlog and (closing or time.monotonic() >= retry_at):
                self._delivered = self._deliver(backlog)
                retry_at = 0.0 if self._delivered else time.monotonic() + MLFLOW_RETRY_SECONDS

    def _take(self, backlog: deque[Event]) -> bool:
        """Move queued events to the backlog, waiting a little for the first; True once the end mark is
        seen."""
        try:
            event = self._queue.get(timeout=FLUSH_SECONDS)
            while event is not None:
                backlog.append(event)
                event = self._queue.get_nowait()
            return True
        except queue.Empty:
            return False

    def _deliver(self, backlog: deque[Event]) -> bool:
        """Apply events from the front until done, or until MLflow does not answer."""
        silence_mlflow()
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            self._replayer = self._replayer or MlflowReplayer(self._where, self._experiment, self._fetch)
            while backlog:
                self._apply(self._replayer, backlog[0])
                backlog.popleft()
            self._replayer.flush()
        except (MlflowException, SQLAlchemyError, OSError) as error:
            self.trouble = redact_uris(f"{type(error).__name__}: {error}")[:500]
            log.warning(
                "MLflow at %s does not answer; runs stay in the ledger: %s",
                redact_uris(self._where.uri),
                self.trouble,
            )
            return False
        self.trouble = ""
        return True

    def _apply(self, replayer: MlflowReplayer, event: Event) -> None:
        """An event MLflow refuses for good, or one that a damaged ledger garbled, must not dam up the
        others."""
        from mlflow.exceptions import MlflowException

        try:
            replayer.apply_event(event)
        except MlflowException as error:
            if error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST"):
                raise
            log.warning(
                "MLflow refused a %s event of %s: %s", event["type"], event.get("node", "the run"), error
            )
        except (KeyError, TypeError, ValueError) as error:
            log.warning("an event was left out of MLflow, %s: %s", type(error).__name__, error, exc_info=True)
