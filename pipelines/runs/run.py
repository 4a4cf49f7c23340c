"""One run from the command line: plan, execute, record, and summarize."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pipelines.config import RunConfig
from pipelines.dataset.splits import require_nonempty_splits
from pipelines.engine.dropped_shards import drop_shards, find_droppable_packs
from pipelines.engine.fingerprint import node_config, resolve_entry_point
from pipelines.engine.keys import to_json_value
from pipelines.engine.node import Node
from pipelines.engine.node_plan import NodePlan
from pipelines.engine.plan import Planner
from pipelines.errors import error_first_line, error_meaning, format_traceback
from pipelines.eval.frame_storage import describe_frame_disk_usage
from pipelines.runs import snapshot
from pipelines.runs.method_notes import describe_external_folders
from pipelines.runs.plan_table import print_plan_table
from pipelines.runs.progress import ProgressPrinter
from pipelines.runs.session import RunSession, open_session
from pipelines.runs.summary import summary_lines
from pipelines.tracking.server import configured_tracking_uri, find_tracking_place
from storage import format_version, ledger, weight_files
from storage.content_cache import writable_cache_folder
from storage.errors import InvalidInput, StoreError, StoreUnreachable
from storage.uris import format_store_option, public_uri

if TYPE_CHECKING:
    from pipelines.cluster.executor import RayExecutor
    from pipelines.engine.runner import RunOutcome


@dataclass(frozen=True, slots=True)
class Console:
    """Where lines for the user go."""

    out: Callable[[str], None]
    err: Callable[[str], None]


def run_pipeline(
    run_file: Path,
    sets: Sequence[str],
    console: Console,
    *,
    only: Sequence[str] = (),
    force: Sequence[str] = (),
    keep_going: bool = False,
    retry_rejected: bool = False,
) -> int:
    """Run what changed; returns the exit code."""
    session = open_session(run_file, sets)
    planner = session.make_planner(force, retry_rejected)
    targets = session.selected_nodes(only)
    plans = planner.plan(targets)
    session.save_caches()
    done = all(plan.has_artifact for plan in plans.values())
    if not done:  # refused before any work: runs of a remote store are tracked where the settings say
        find_tracking_place(session.store.uri, session.config.runtime.tracking)
        require_nonempty_splits(plans, session.config.data)
    if not done and not snapshot.is_running_from_snapshot():  # where all of this is planned again
        snapshot.restart_process_in_snapshot(writable_cache_folder("code"), sys.argv[1:])
    print_plan_table(
        plans, console.out, planner.readable.damaged, describe_frame_disk_usage(plans, session.config)
    )
    for note in session.notes():
        console.out(note)
    if done:
        console.out("\nnothing to do")
        _record_reuse(session, plans, console)
        _drop_shards(session, plans, console)
        _print_summary(session, plans, console)
        return 0
    snapshot.lock_code_snapshot()
    console.out("")
    session.store.check_writable()
    format_version.write_format_version(session.store)
    for plan in plans.values():  # now, and not when a worker starts after hours of other nodes
        if plan.node.check and plan.has_work:
            _check(plan.node, session.config)
    for trouble in (session.missing_weights(plans), session.missing_packages(plans)):
        if trouble:
            raise InvalidInput(trouble)
    for weights in session.required_weights(plans):
        weight_files.require_weights(session.store, weights)
    return _execute(session, planner, plans, targets, keep_going, console)


def _check(node: Node, config: RunConfig) -> None:
    assert node.check is not None
    resolve_entry_point(node.check)(node_config(node, config), config.runtime, node.name, **node.arguments)


def _print_summary(session: RunSession, plans: Mapping[str, NodePlan], console: Console) -> None:
    for line in (
        *summary_lines(session.store.uri, plans),
        *describe_external_folders(session.config, plans),
    ):
        console.out(line)


def _record_reuse(session: RunSession, plans: Mapping[str, NodePlan], console: Console) -> None:
    """So that gc keeps what this run found in place. A read-only store can still be looked at."""
    artifacts = [(plan.node.stage, plan.key) for plan in plans.values()]
    try:
        ledger.record_reuse(session.store, session.config.name, artifacts)
    except (StoreError, StoreUnreachable) as error:
        console.err(f"gc will not know that this was used: {error}")


def _drop_shards(session: RunSession, plans: Mapping[str, NodePlan], console: Console) -> None:
    """What is to be dropped by a setting that was changed after the last run."""
    try:
        for stage, packs in find_droppable_packs(session.graph, plans):
            if freed := drop_shards(session.store, stage, packs):
                console.out(f"dropped the shards of {stage}: {freed / 1e6:,.1f} MB")
    except (StoreError, StoreUnreachable) as error:
        console.err(f"nothing is dropped: {error}")


def _execute(
    session: RunSession,
    planner: Planner,
    plans: Mapping[str, NodePlan],
    targets: set[str] | None,
    keep_going: bool,
    console: Console,
) -> int:
    from pipelines.cluster.executor import RayExecutor
    from pipelines.engine.runner import Runner, RunOutcome
    from pipelines.tracking.backlog import deliver_backlog, mark_run_delivered_to_mlflow
    from pipelines.tracking.tracker import MlflowTracker

    runtime = session.config.runtime
    record = ledger.Ledger(session.store, ledger.new_run_id())
    where = find_tracking_place(session.store.uri, runtime.tracking)
    tracker = MlflowTracker(where, runtime.experiment, session.store.fetch)
    progress = ProgressPrinter()

    def emit(event: Mapping[str, object]) -> None:
        stamped = record.emit(dict(event))
        progress(stamped)
        tracker.queue_event(stamped)

    executor = RayExecutor(runtime)
    emit(_started(session, plans))
    try:
        if any(p.node.resources for p in plans.values() if p.has_work):
            executor.start_ray()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - recorded and reported as a node's
        outcome = RunOutcome(failed={"start of Ray": error})
    else:
        runner = Runner(planner, executor, record.run_id, emit, keep_going, runtime.max_rejected)
        outcome = runner.run(targets)
    status = {0: "FINISHED", 130: "KILLED"}.get(outcome.exit_code, "FAILED")
    errors = {node: error_first_line(error) for node, error in outcome.failed.items()}
    emit({"type": "run_finished", "status": status,
          "error": "; ".join(f"{node}: {text}" for node, text in errors.items())})  # fmt: skip
    for line in describe_failures(outcome) if outcome.exit_code != 130 else ():  # before MLflow is waited for
        console.err(line)
    if tracker.close():
        mark_run_delivered_to_mlflow(session.store, record.run_id, {"uri": public_uri(where.uri)})
        deliver_backlog(session.store)
    else:
        ui = f"reenact ui{format_store_option(session.store.uri)}"
        console.out(f"MLflow did not take all events ({tracker.trouble}); `{ui}` or the next run sends them")
    session.save_caches()
    if edited := snapshot.find_files_edited_since_snapshot():
        names = ", ".join([*edited[:3], *([f"{len(edited) - 3} more"] if edited[3:] else [])])
        console.out(f"note: edited meanwhile: {names}; this run used the code as it was at its start")
    if outcome.exit_code == 130:
        console.err("interrupted; what was published stays, and a rerun continues from there")
    if not outcome.failed:
        _print_summary(session, outcome.plans, console)
    exit_process(executor, outcome.exit_code)


def exit_process(executor: RayExecutor, code: int) -> NoReturn:
    """End with this code whatever Ray does: its shutdown raced its own threads and ended a good run with a
    silent 1, and a node's thread may be waiting for workers that are gone. What Ray prints of the end of its
    own parts is dropped."""
    sys.stdout.flush()
    sys.stderr.flush()
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    executor.kill_children()
    os._exit(code)


def _started(session: RunSession, plans: Mapping[str, NodePlan]) -> dict[str, object]:
    from pipelines.cluster.jobs import git_state
    from pipelines.runs.graph_drawing import graph_svg, graph_text

    lines: list[str] = []
    print_plan_table(plans, lines.append)
    commit, _, dirty = git_state().partition("+")
    return {
        "type": "run_started", "name": session.config.name, "config": to_json_value(session.config),
        "git": {"commit": commit, "dirty": bool(dirty)}, "code": snapshot.CODE_ROOT.name,
        "store": public_uri(session.store.uri),
        "tracking": configured_tracking_uri(session.config.runtime.tracking),
        "licences": session.licences(), "argv": sys.argv[1:], "plan": "\n".join(lines),
        "graph": graph_text(session.graph), "svg": graph_svg(session.graph),
        "holder": f"{socket.gethostname()}:{os.getpid()}", "ray_job": os.environ.get("RAY_JOB_ID", ""),
    }  # fmt: skip


def describe_failures(outcome: RunOutcome) -> Iterator[str]:
    """What failed, each with the traceback of a fault of the code; what was stopped by that; what did not
    begin."""
    for node, error in outcome.failed.items():
        if isinstance(error, KeyboardInterrupt):
            continue
        yield f"\n{node} failed: {error_first_line(error)}"
        if error_meaning(error) == "fault":
            yield f"\n{format_traceback(error)}\n"
    if outcome.cancelled:
        yield f"cancelled because {outcome.stop_reason}: {', '.join(outcome.cancelled)}"
    if outcome.skipped:
        yield f"not run because {outcome.stop_reason}: {', '.join(outcome.skipped)}"
