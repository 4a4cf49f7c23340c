"""The command line: what to run and what to ask. Settings are in run files; only `--set a.b=c` changes one.

Exit codes: 0 ok, 1 failed, 2 usage or config, 3 too many rejects, 10 work to do (plan --check), 130 stopped.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from functools import partial, wraps
from gc import set_threshold
from pathlib import Path
from types import FrameType

import click

from pipelines.cli.animate import animate as animate
from pipelines.cli.jobs import jobs, logs, stop, submit
from pipelines.cli.options import (
    FORCE_OPTION,
    KEEP_GOING_OPTION,
    LIMIT_OPTION,
    ONLY_OPTION,
    PATH_PARAM_TYPE,
    RUN_FILE_ARGUMENT,
    SET_OPTION,
    STORE_OPTION,
    P,
    R,
    add_data_limit_setting,
    add_help_example,
)  # fmt: skip
from pipelines.cli.pairs import pairs
from pipelines.cli.shards import shards
from pipelines.cli.weights import weights
from pipelines.errors import UserError, error_meaning, write_user_output_file

USAGE_EXIT_CODE, WORK_TO_DO_EXIT_CODE, INTERRUPTED_EXIT_CODE = 2, 10, 130


def report_errors_in_one_line(function: Callable[P, R]) -> Callable[P, R]:
    """What has a meaning (pipelines/errors.py) ends as one line: the user's mistakes with 2, a store that
    cannot be used or what may pass with 1. Anything else is a fault and keeps its traceback."""

    @wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            what = error_meaning(error)
            if what == "fault":
                raise
            click.echo(f"error: {error}", err=True)
            sys.exit(USAGE_EXIT_CODE if what == "user" else 1)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED_EXIT_CODE)

    return inner


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="reenact")
def main() -> None:
    """Train and compare neural face reenactment models on the same data; rerun only what changed."""
    set_threshold(GC_THRESHOLD)


GC_THRESHOLD = 50_000
"""After so many new objects Python looks for unreachable ones. With its own 700 a sixth of the time of `plan`
goes into looking through modules that are there to stay."""


@main.command()
@RUN_FILE_ARGUMENT
@SET_OPTION
@LIMIT_OPTION
@click.option("--check", is_flag=True, help="Exit 10 when there is work to do.")
@click.option("--config", "show_config", is_flag=True, help="Print the resolved settings and their origins.")
@add_help_example("reenact plan configs/run/demo.yaml --set fsrt.phases.warmup.steps=2000")
@report_errors_in_one_line
def plan(run_file: Path, sets: tuple[str, ...], check: bool, show_config: bool, limit: int | None) -> None:
    """What would run, and why. Nothing runs."""
    from pipelines.config import config_to_yaml
    from pipelines.dataset.splits import describe_empty_split
    from pipelines.eval.frame_storage import describe_frame_disk_usage
    from pipelines.runs.plan_table import print_plan_table
    from pipelines.runs.session import open_session

    session = open_session(run_file, add_data_limit_setting(sets, limit))
    if show_config:
        click.echo(config_to_yaml(session.loaded))
        return
    planner = session.make_planner()
    plans = planner.plan()
    session.save_caches()
    print_plan_table(
        plans, click.echo, planner.readable.damaged, describe_frame_disk_usage(plans, session.config)
    )
    for note in session.notes():
        click.echo(note)
    work = [name for name, p in plans.items() if p.has_work]
    click.echo(f"\n{len(work)} of {len(plans)} nodes to run" if work else "\nnothing to do")
    if trouble := describe_empty_split(plans, session.config.data):
        click.echo(f"a run will stop before them: {trouble}", err=True)
    for trouble in (
        session.missing_weights(plans),
        session.changed_weights(plans),
        session.missing_packages(plans),
    ):
        if trouble:
            click.echo(f"a run will not start: {trouble}", err=True)
    if check and work:
        sys.exit(WORK_TO_DO_EXIT_CODE)


@main.command()
@RUN_FILE_ARGUMENT
@click.argument("node")
@click.argument("unit", required=False)
@SET_OPTION
@add_help_example("reenact why configs/run/demo.yaml train.fsrt.warmup")
@report_errors_in_one_line
def why(run_file: Path, node: str, unit: str | None, sets: tuple[str, ...]) -> None:
    """Why a node, or one of its units, would run. Shows the chain down to the changed line of source."""
    from pipelines.runs import lineage
    from pipelines.runs.session import open_session

    session = open_session(run_file, sets)
    planner = session.make_planner()
    plans = planner.plan(session.selected_nodes([node]))
    session.save_caches()
    for line in lineage.describe_node_reasons(planner, plans, node, unit):
        click.echo(line)


@main.command()
@RUN_FILE_ARGUMENT
@SET_OPTION
@LIMIT_OPTION
@ONLY_OPTION
@FORCE_OPTION
@KEEP_GOING_OPTION
@click.option("--retry-rejected", is_flag=True, help="Try again what was rejected under the same key.")
@add_help_example("reenact run configs/run/demo.yaml --only keypoints")
@report_errors_in_one_line
def run(
    run_file: Path, sets: tuple[str, ...], limit: int | None, only: tuple[str, ...], force: tuple[str, ...],
    keep_going: bool, retry_rejected: bool,
) -> None:  # fmt: skip
    """Run what changed."""
    from pipelines.runs.run import Console, run_pipeline

    handle_sigterm()
    console = Console(click.echo, partial(click.echo, err=True))
    sets = add_data_limit_setting(sets, limit)
    sys.exit(run_pipeline(run_file, sets, console, only=only, force=force, keep_going=keep_going,
                          retry_rejected=retry_rejected))  # fmt: skip


def handle_sigterm() -> None:
    """A polite kill (Ray Jobs' stop, a scheduler) ends a run the way Ctrl-C does."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


# --- inspecting ---------------------------------------------------------------------------------------------
@main.command()
@RUN_FILE_ARGUMENT
@SET_OPTION
@click.option("--svg", type=PATH_PARAM_TYPE, help="Draw to this file instead.")
@add_help_example("reenact graph configs/run/demo.yaml --svg graph.svg")
@report_errors_in_one_line
def graph(run_file: Path, sets: tuple[str, ...], svg: Path | None) -> None:
    """The DAG: each node, what it reads and writes."""
    from pipelines.config import load_config
    from pipelines.graph import build_graph
    from pipelines.runs import graph_drawing

    dag = build_graph(load_config(run_file, sets).config)
    if svg is None:
        click.echo(graph_drawing.graph_text(dag))
    else:
        write_user_output_file(svg, graph_drawing.graph_svg(dag).encode())
        click.echo(f"drew {len(dag.nodes)} nodes to {svg}")


@main.command()
@STORE_OPTION
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
@add_help_example("reenact ui --port 5000")
@report_errors_in_one_line
def ui(store: str, port: int) -> None:
    """Browse runs, figures and videos. Starts the MLflow server of this store, for this machine only."""
    from pipelines.tracking.backlog import deliver_backlog, last_tracking_uri
    from pipelines.tracking.server import check_port_is_free, mlflow_server_command, serve_ui
    from storage.files import Store

    at = Store(store)
    tracking = last_tracking_uri(at)
    mlflow_server_command(at.uri, tracking)  # raises now where there is nothing to serve
    check_port_is_free(port)
    click.echo("starting MLflow ...")
    deliver_backlog(at)
    clear = CLEAR_LINE * sys.stdout.isatty()
    line = f"{clear}MLflow at http://127.0.0.1:{port} (Ctrl-C ends it)"
    serve_ui(at.uri, tracking, port, lambda: click.echo(line), print_waiting_seconds)


CLEAR_LINE = "\r\x1b[K"
"""Of a terminal: back to the begin of the line, and nothing on it."""


def print_waiting_seconds(seconds: float) -> None:
    """In a terminal, a line that counts the seconds."""
    if sys.stdout.isatty():
        click.echo(f"{CLEAR_LINE}not up yet, {seconds:.0f} s", nl=False)


@main.command()
@click.argument("metric_run", required=False)
@click.option("--recording", metavar="ID", help="Every artifact that this recording went into.")
@STORE_OPTION
@add_help_example("reenact trace 20261120-101500-3fa2:score.fsrt.self")
@report_errors_in_one_line
def trace(metric_run: str | None, recording: str | None, store: str) -> None:
    """Where a number came from. METRIC_RUN: a run id, RUN:NODE, or an artifact key (MLflow: reenact.key)."""
    from pipelines.runs import lineage
    from storage.files import Store

    if (metric_run is None) == (recording is None):
        raise UserError("trace: give a METRIC-RUN, or --recording ID")
    at = Store(store)
    if recording is not None:
        lines = lineage.trace_recording_downstream(at, recording)
    else:
        lines = lineage.trace_artifact(at, *lineage.find_artifact(at, str(metric_run)))
    for line in lines:
        click.echo(line)


# --- keeping ----------------------------------------------------------------------------------------------
@main.command()
@RUN_FILE_ARGUMENT
@click.argument("node", required=False)
@click.option(
    "--since", metavar="COMMIT", help="Every node that ran with the code of this commit, not one alone."
)
@click.option("--reason", required=True, help="Why the changed code gives the same outputs; it is recorded.")
@SET_OPTION
@add_help_example("reenact accept configs/run/demo.yaml --since HEAD~1 --reason 'an option that is off'")
@report_errors_in_one_line
def accept(run_file: Path, node: str | None, since: str | None, reason: str, sets: tuple[str, ...]) -> None:
    """Declare existing outputs valid for changed code. Those of one NODE since its last run, or of all
    that ran with the code of a commit whose goldens are today's; never for changed settings or inputs."""
    from pipelines.runs import accept as accepting
    from pipelines.runs.session import open_session

    session = open_session(run_file, sets)
    planner = session.make_planner()
    if since is not None:
        lines = list(
            accepting.accept_since(planner, since, reason, [planner.graph[node].name] if node else [])
        )
        click.echo("\n".join(lines) or "no code in a key changed since that commit")
        return
    if node is None:
        raise UserError("accept: give a NODE, or --since COMMIT for all that ran with its code")
    plans = planner.plan(session.selected_nodes([node]))
    click.echo(accepting.accept_node_outputs(planner, plans[node], reason))


@main.command()
@click.argument("name")
@RUN_FILE_ARGUMENT
@SET_OPTION
@add_help_example("reenact pin vox-2026-11 configs/run/demo.yaml   # then --set data.main.pin=vox-2026-11")
@report_errors_in_one_line
def pin(name: str, run_file: Path, sets: tuple[str, ...]) -> None:
    """Freeze the list of recordings under NAME. New videos then retrain nothing until the pin moves."""
    from pipelines.runs import pin
    from pipelines.runs.graph_builder import recordings_nodes_by_corpus
    from pipelines.runs.session import open_session

    session = open_session(run_file, sets)
    lists = recordings_nodes_by_corpus(session.graph)
    plans = session.make_planner().plan(set(lists.values()))
    click.echo(pin.pin_recording_lists(session.store, plans, lists, name))


@main.command()
@STORE_OPTION
@click.option("--keep-runs", default=5, show_default=True, type=click.IntRange(min=1),
              help="Of each node, what this many latest runs of each run name used is kept.")  # fmt: skip
@click.option("--drop", multiple=True, metavar="NAME",
              help="Past runs of this run name keep nothing any more (repeatable).")  # fmt: skip
@click.option("--grace", default=72.0, show_default=True, help="Hours for which nothing is deleted.")
@click.option("--yes", is_flag=True, help="Delete; without it, only the table is shown.")
@add_help_example("reenact gc --keep-runs 3 --yes")
@report_errors_in_one_line
def gc(store: str, keep_runs: int, drop: tuple[str, ...], grace: float, yes: bool) -> None:
    """Free space: what no run, pin or lease needs.

    Kept is, of each node, what the latest runs of each run name made or found in place ("nothing to do"
    counts as a run), with all it was made from. Counted by node, a run with --only pushes nothing else out;
    runs on a pin are counted apart from the others. Kept is also what runs need that go on, or were stopped
    before they finished a node, and what a lease is held on.
    """
    from pipelines.runs import garbage, retention
    from storage.errors import DamagedFile
    from storage.files import Store

    at = Store(store)
    if drop and yes:
        retention.drop_runs_from_retention(at, drop)
    found = garbage.find_garbage(at, keep_runs, grace, drop)
    for line in garbage.garbage_table(found):
        click.echo(line)
    for text in found.spared:
        click.echo(f"warning: all packs of its node stay: {text}", err=True)
    for text in found.unreadable:
        click.echo(f"warning: {text}", err=True)
    if yes and found.unreadable:
        raise DamagedFile(
            "nothing deleted: what the files above kept is not known; mend or delete them first"
        )
    if yes:
        garbage.delete_garbage(at, found)
        click.echo("deleted")
    elif found.found:
        click.echo("nothing deleted; --yes deletes")


@main.command()
@STORE_OPTION
@add_help_example("reenact verify")
@report_errors_in_one_line
def verify(store: str) -> None:
    """Re-hash everything in the store. Exit 1 if something is missing or differs, with what to do."""
    from pipelines.runs import verify as verifying
    from storage.files import Store

    found = list(verifying.find_store_faults(Store(store)))
    for fault in found:
        click.echo(f"{fault.path}: {fault.what}" + (" (left over)" if fault.then == "left" else ""))
    faults = [fault for fault in found if fault.then != "left"]
    for line in verifying.describe_store_repairs(faults):
        click.echo(line)
    click.echo(f"{len(faults)} faults" if faults else "everything published is intact")
    sys.exit(1 if faults else 0)


def add_click_command(command: click.Command) -> None:
    """Add a command of another module; its errors end as one line too."""
    main.add_command(command)
    for one in command.commands.values() if isinstance(command, click.Group) else [command]:
        if one.callback is not None:
            one.callback = report_errors_in_one_line(one.callback)


for command in (animate, jobs, logs, pairs, shards, stop, submit, weights):
    add_click_command(command)

if __name__ == "__main__":
    main()
