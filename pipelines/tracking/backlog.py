"""Runs whose events MLflow did not take when they ran: delivered later, from the ledger."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from pipelines.cluster.runtime import RuntimeConfig
from pipelines.tracking.server import find_tracking_place
from pipelines.tracking.tracker import MlflowTracker
from storage import leases, ledger, locations
from storage.files import Store
from storage.ledger import Event

STALE_RUN_SECONDS = 24 * 3600.0
"""Seconds without an event after which a run on another machine counts as dead."""


def _marker(run_id: str) -> str:
    return f"{locations.run_folder(run_id)}/tracked.json"


def mark_run_delivered_to_mlflow(store: Store, run_id: str, note: Mapping[str, object]) -> None:
    """Record that MLflow has all events of a run."""
    store.write_json(_marker(run_id), note)


def deliver_backlog(store: Store) -> None:
    """Deliver to MLflow the events of earlier runs that it lacks, each to the place that the run was tracked
    in."""
    waiting = [run for run in ledger.list_runs(store) if not store.exists(_marker(run))]
    for run_id in waiting:
        events = list(ledger.read_events(store, run_id))
        if not events or not _over(events):
            continue
        tracking, experiment = run_tracking_uri_and_experiment(events)
        tracker = MlflowTracker(find_tracking_place(store.uri, tracking), experiment, store.fetch)
        if not tracker.sync_run(events, over=True):
            return
        mark_run_delivered_to_mlflow(store, run_id, {"late": True})


def run_tracking_uri_and_experiment(events: Sequence[Event]) -> tuple[str, str]:
    """A run's tracking URI ("" = beside the store) and its experiment, from its first event."""
    runtime = events[0].get("config", {}).get("runtime", {}) if events else {}
    tracking = events[0].get("tracking", runtime.get("tracking", "")) if events else ""
    return tracking, runtime.get("experiment", RuntimeConfig().experiment)


def last_tracking_uri(store: Store) -> str:
    """Where the newest run is tracked, "" if beside the store."""
    for run_id in reversed(ledger.list_runs(store)):
        if events := list(ledger.read_events(store, run_id)):
            return run_tracking_uri_and_experiment(events)[0]
    return ""


def _over(events: Sequence[Event]) -> bool:
    """The run ended, or its process is gone, or it has been silent for a day."""
    if events[-1]["type"] == "run_finished":
        return True
    return (
        leases.is_holder_dead(events[0].get("holder", ":0"))
        or time.time() - events[-1]["time"] > STALE_RUN_SECONDS
    )
