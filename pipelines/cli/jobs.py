"""Commands that send a run to a Ray cluster and look after it there."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from pipelines.cli.options import (
    FORCE_OPTION,
    KEEP_GOING_OPTION,
    LIMIT_OPTION,
    ONLY_OPTION,
    RAY_DASHBOARD_ADDRESS_OPTION,
    RUN_FILE_ARGUMENT,
    SET_OPTION,
    add_data_limit_setting,
    add_help_example,
)  # fmt: skip


@click.command()
@RUN_FILE_ARGUMENT
@RAY_DASHBOARD_ADDRESS_OPTION
@SET_OPTION
@LIMIT_OPTION
@ONLY_OPTION
@FORCE_OPTION
@KEEP_GOING_OPTION
@click.option("--follow", is_flag=True, help="Stream the log and end with the job's own exit code.")
@add_help_example("reenact submit configs/run/demo.yaml --address http://head:8265 --follow")
def submit(
    run_file: Path, address: str, sets: tuple[str, ...], follow: bool, limit: int | None,
    only: tuple[str, ...], force: tuple[str, ...], keep_going: bool,
) -> None:  # fmt: skip
    """Run on a Ray cluster. Packages this checkout and starts a job there."""
    from pipelines.cluster import jobs as ray_jobs
    from pipelines.runs.session import open_session

    sets = add_data_limit_setting(sets, limit)
    session = open_session(run_file, sets)  # a mistake is reported here, not a minute later there
    session.selected_nodes(only)
    session.make_planner(force)
    arguments = [word for text in sets for word in ("--set", text)]
    arguments += [word for node in only for word in ("--only", node)]
    arguments += [word for node in force for word in ("--force", node)]
    arguments += ["--keep-going"] * keep_going
    ray_jobs.check_shared_store(address, session.store.uri, session.config.runtime.tracking)
    with ray_jobs.shorten_job_server_errors():
        job = ray_jobs.submit_job(address, str(run_file), arguments, {"REENACT_STORE": session.store.uri})
    at = f"{job} --address {shlex.quote(address)}"
    click.echo(f"job {job}: `reenact logs {at}` follows it, `reenact stop {at}` ends it")
    if follow:
        sys.exit(ray_jobs.follow_job(address, job))


@click.command()
@RAY_DASHBOARD_ADDRESS_OPTION
@add_help_example("reenact jobs --address http://head:8265")
def jobs(address: str) -> None:
    """Jobs of a cluster, newest last."""
    from pipelines.cluster import jobs as ray_jobs

    with ray_jobs.shorten_job_server_errors():
        for job in sorted(ray_jobs.open_job_client(address).list_jobs(), key=lambda j: j.start_time or 0):
            click.echo(f"{job.submission_id or job.job_id}  {job.status.value:<10} {job.entrypoint}")


@click.command()
@click.argument("job_id")
@RAY_DASHBOARD_ADDRESS_OPTION
@click.option("--follow/--no-follow", default=True, show_default=True)
@add_help_example("reenact logs raysubmit_a1b2 --address http://head:8265")
def logs(job_id: str, address: str, follow: bool) -> None:
    """A job's log; with --follow to its end, and its exit code."""
    from pipelines.cluster import jobs as ray_jobs

    with ray_jobs.shorten_job_server_errors():
        if follow:
            sys.exit(ray_jobs.follow_job(address, job_id))
        click.echo(ray_jobs.open_job_client(address).get_job_logs(job_id), nl=False)


@click.command()
@click.argument("job_id")
@RAY_DASHBOARD_ADDRESS_OPTION
@add_help_example("reenact stop raysubmit_a1b2 --address http://head:8265")
def stop(job_id: str, address: str) -> None:
    """End a job. What it published stays, and a rerun computes the rest."""
    from pipelines.cluster import jobs as ray_jobs

    with ray_jobs.shorten_job_server_errors():
        stopped = ray_jobs.open_job_client(address).stop_job(job_id)
        click.echo(f"{job_id}: {'stopping' if stopped else 'had ended already'}")
