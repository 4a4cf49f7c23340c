"""One run from the command line: plan, execute, record, and say what came of it."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from models.provenance import told
from pipelines.cluster.runtime import RuntimeConfig
from pipelines.config import Config
from pipelines.dataset.splits import check_splits
from pipelines.engine.fingerprint import resolve, section
from pipelines.engine.keys import canonical
from pipelines.engine.node import Node
from pipelines.engine.plan import NodePlan, describe
from pipelines.errors import first_line, meaning, traceback_of
from pipelines.runs import snapshot
from pipelines.runs.progress import Progress
from pipelines.runs.session import Session, open_session
from pipelines.tracking import configured, place
from storage import format, ledger, locations, weight_files
from storage.errors import StoreError, StoreUnreachable
from storage.fetched import working_folder
from storage.files import Store
from storage.uris import public_uri, store_option

if TYPE_CHECKING:
    from pipelines.cluster.executor import RayExecutor
    from pipelines.engine.runner import Outcome

Records = dict[str, list[dict[str, Any]]]
"""Model -> the records of its evaluation."""
STALE_AFTER = 24 * 3600.0  # seconds without an event after which a run elsewhere is taken for dead


def run_pipeline(
    run_file: Path,
    sets: Sequence[str],
    *,
    only: Sequence[str] = (),
    force: Sequence[str] = (),
    keep_going: bool = False,
    retry_rejected: bool = False,
) -> int:
    """Run what changed; returns the exit code."""
    session = open_session(run_file, sets)
    planner = session.planner(force, retry_rejected)
    targets = session.targets(only)
    plans = planner.plan(targets)
    session.cache.save()
    done = all(plan.settled for plan in plans.values())
    if not done:  # refused before any work: runs of a remote store are tracked where the settings say
        place(session.store.uri, session.config.runtime.tracking)
        check_splits(plans, session.config.data)
    if not done and not snapshot.inside():
        snapshot.enter(working_folder("code"), sys.argv[1:])  # where all of this is planned again
    describe(plans, click.echo, planner.readable.damaged)
    for note in session.notes():
        click.echo(note)
    if done:
        click.echo("\nnothing to do")
        _record_reuse(session, plans)
        summary(session, plans)
        return 0
    snapshot.hold()
    click.echo("")
    session.store.check_writable()
    format.mark(session.store)
    for plan in plans.values():  # now, and not when a worker starts after hours of other nodes
        if plan.node.check and not plan.settled:
            _check(plan.node, session.config)
        for needed in plan.node.weights if plan.node.missing_weights == "error" and not plan.settled else ():
            weight_files.require(session.store, needed)
    return _execute(session, planner, plans, targets, keep_going)


def _check(node: Node, config: Config) -> None:
    assert node.check is not None
    resolve(node.check)(section(node, config), config.runtime, node.name, **node.arguments)


def _record_reuse(session: Session, plans: Mapping[str, NodePlan]) -> None:
    """So that gc keeps what this run found in place. A store that takes nothing can still be looked at."""
    artifacts = [(plan.node.stage, plan.key) for plan in plans.values()]
    try:
        ledger.record_reuse(session.store, session.config.name, artifacts)
    except (StoreError, StoreUnreachable) as error:
        click.echo(f"gc will not know that this was used: {error}", err=True)


def _execute(
    session: Session, planner: Any, plans: Mapping[str, NodePlan], targets: Any, keep_going: bool
) -> int:
    from pipelines.cluster.executor import RayExecutor
    from pipelines.engine.runner import Outcome, Runner
    from pipelines.tracking import Tracker

    runtime = session.config.runtime
    record = ledger.Ledger(session.store, ledger.new_run_id())
    where = place(session.store.uri, runtime.tracking)
    tracker = Tracker(where, runtime.experiment, session.store.fetch)
    progress = Progress()

    def emit(event: Mapping[str, Any]) -> None:
        stamped = record.emit(dict(event))
        progress(stamped)
        tracker.emit(stamped)

    executor = RayExecutor(runtime)
    emit(_started(session, plans))
    try:
        if any(p.node.resources for p in plans.values() if not p.settled):
            executor.start()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - recorded, and shown below as of a node
        outcome = Outcome(failed={"start of Ray": error})
    else:
        runner = Runner(planner, executor, record.run_id, emit, keep_going, runtime.max_rejected)
        outcome = runner.run(targets)
    status = {0: "FINISHED", 130: "KILLED"}.get(outcome.exit_code, "FAILED")
    errors = {node: first_line(error) for node, error in outcome.failed.items()}
    emit({"type": "run_finished", "status": status,
          "error": "; ".join(f"{node}: {told}" for node, told in errors.items())})  # fmt: skip
    for line in failures(outcome) if outcome.exit_code != 130 else ():  # before MLflow is waited for
        click.echo(line, err=True)
    if tracker.close():
        session.store.write_json(_tracked(record.run_id), {"uri": public_uri(where.uri)})
        catch_up(session.store)
    else:
        ui = f"reenact ui{store_option(session.store.uri)}"
        click.echo(f"MLflow did not take all ({tracker.trouble}); the next run or `{ui}` delivers it")
    session.cache.save()
    if edited := snapshot.edited():
        names = ", ".join([*edited[:3], *([f"{len(edited) - 3} more"] if edited[3:] else [])])
        click.echo(
            f"note: edited meanwhile: {names}; this ran the code of its start, the next run takes the edit"
        )
    if outcome.exit_code == 130:
        click.echo("interrupted; what was published stays, and a rerun takes up the rest", err=True)
    if not outcome.failed:
        summary(session, outcome.plans)
    leave(executor, outcome.exit_code)


def leave(executor: RayExecutor, code: int) -> NoReturn:
    """End with this code whatever Ray does: its shutdown raced its own threads and ended a good run with a
    silent 1, and a node's thread may sit in a call into workers that are gone. All is said: what Ray prints
    of the end of its own parts goes nowhere."""
    sys.stdout.flush()
    sys.stderr.flush()
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    executor.abandon()
    os._exit(code)


def _started(session: Session, plans: Mapping[str, NodePlan]) -> dict[str, Any]:
    from pipelines.cluster.jobs import git_state
    from pipelines.runs.graph_drawing import svg, text

    lines: list[str] = []
    describe(plans, lines.append)
    commit, _, dirty = git_state().partition("+")
    return {
        "type": "run_started", "name": session.config.name, "config": canonical(session.config),
        "git": {"commit": commit, "dirty": bool(dirty)}, "code": snapshot.ROOT.name,
        "store": public_uri(session.store.uri), "tracking": configured(session.config.runtime.tracking),
        "argv": sys.argv[1:], "plan": "\n".join(lines),
        "graph": text(session.graph), "svg": svg(session.graph),
        "holder": f"{socket.gethostname()}:{os.getpid()}", "ray_job": os.environ.get("RAY_JOB_ID", ""),
    }  # fmt: skip


def failures(outcome: Outcome) -> Iterator[str]:
    """What failed, each with the traceback of a fault of the code; what was stopped by that; what did not
    begin."""
    for node, error in outcome.failed.items():
        if isinstance(error, KeyboardInterrupt):
            continue
        yield f"\n{node} failed: {first_line(error)}"
        if meaning(error) == "fault":
            yield f"\n{traceback_of(error)}\n"
    if outcome.cancelled:
        yield f"cancelled because {outcome.reason}: {', '.join(outcome.cancelled)}"
    if outcome.skipped:
        yield f"not run because {outcome.reason}: {', '.join(outcome.skipped)}"


# --- MLflow, later ----------------------------------------------------------------------------------------
def _tracked(run_id: str) -> str:
    return f"{locations.run(run_id)}/tracked.json"


def catch_up(store: Store) -> None:
    """Deliver to MLflow what earlier runs could not, each to where it was to be tracked."""
    from pipelines.tracking import Tracker

    waiting = [run for run in ledger.runs(store) if not store.exists(_tracked(run))]
    for run_id in waiting:
        events = list(ledger.read_events(store, run_id))
        if not events or not _over(events):
            continue
        tracking, experiment = tracking_of(events)
        tracker = Tracker(place(store.uri, tracking), experiment, store.fetch)
        if not tracker.sync(events, over=True):
            return
        store.write_json(_tracked(run_id), {"late": True})


def tracking_of(events: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """A run's tracking URI, "" where it is beside the store, and its experiment, as its first event says."""
    runtime = events[0].get("config", {}).get("runtime", {}) if events else {}
    tracking = events[0].get("tracking", runtime.get("tracking", "")) if events else ""
    return tracking, runtime.get("experiment", RuntimeConfig().experiment)


def last_tracking(store: Store) -> str:
    """Where the newest run is tracked, "" if beside the store."""
    for run_id in reversed(ledger.runs(store)):
        if events := list(ledger.read_events(store, run_id)):
            return tracking_of(events)[0]
    return ""


def _over(events: Sequence[Mapping[str, Any]]) -> bool:
    """The run ended, or its process is gone, or it has been silent for a day."""
    from storage.leases import dead

    if events[-1]["type"] == "run_finished":
        return True
    return dead(events[0].get("holder", ":0")) or time.time() - events[-1]["time"] > STALE_AFTER


# --- what came of it --------------------------------------------------------------------------------------
def summary(session: Session, plans: Mapping[str, NodePlan]) -> None:
    """The figures of every evaluated model beside its baselines, and where to look on."""
    report = plans.get("report")
    tables = _compared(report.artifact) if report and report.artifact else _apart(plans)
    for models in tables:
        click.echo("\n" + "\n".join(score_table(models)))
    if report and report.artifact:
        click.echo(f"\nreport  {report.artifact.uri('report.html')}")
    if (corpus := plans.get("corpus")) and corpus.artifact:
        click.echo(f"corpus  {corpus.artifact.uri('corpus.html')}")
    click.echo(f"MLflow  reenact ui{store_option(session.store.uri)}   # then open http://127.0.0.1:5000")


def _compared(report: Any) -> list[Records]:
    """Models of one protocol together, as the report compares them."""
    tables: dict[str, Records] = {}
    for one in json.loads(report.path("report.json").read_text())["models"]:
        summary = one["summary"]
        tables.setdefault(summary["protocol"], {})[summary["model"]] = one["records"]
    return list(tables.values())


def _apart(plans: Mapping[str, NodePlan]) -> list[Records]:
    """Each model alone, of a run that does not go as far as the report."""
    return [
        {name.removeprefix("eval."): json.loads(plan.artifact.path("metrics.json").read_text())}
        for name, plan in plans.items()
        if name.startswith("eval.") and plan.artifact
    ]


def score_table(models: Records) -> list[str]:
    """Models of one protocol -> metric, the models, the baselines; below, which weights of a model are not
    the published ones, which metric leaves out frames, and which net one lacks.
    """
    found = {(r["name"], r["method"]): r for records in models.values() for r in records}
    baselines = [m for m in dict.fromkeys(method for _, method in found) if m not in models]
    titles = [*(f"{model} (ours)" for model in models), *(m.replace("_", "-") for m in baselines)]
    lines = ["".join([f"{'metric':<16}", *(f"{title:>20}" for title in titles)])]
    for name in dict.fromkeys(name for name, _ in found):
        cells = [found.get((name, method)) for method in (*models, *baselines)]
        lines.append("".join([f"{name:<16}", *(f"{_cell(c):>20}" for c in cells)]))
    lacking = [r for r in found.values() if r["value"] is None and r["method"] in models]
    notes = [f"  {r['method']}: {told(r['labels'])}" for r in found.values() if r.get("labels")]
    parts = [r for r in found.values() if r.get("missing") and r["value"] is not None]
    for name in dict.fromkeys(r["name"] for r in parts):
        n, missing = min((r["n"], r["missing"]) for r in parts if r["name"] == name)
        notes.append(f"  {name}: over {n} of {n + missing} frames, the others show no face somewhere")
    notes += [f"  {r['name']}: {r['note']}" for r in lacking]
    return [*lines, *dict.fromkeys(notes)]


def _cell(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "-"
    return f"{record['value']:.4f}" if record["value"] is not None else "not computed"
