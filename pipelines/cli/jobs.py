"""Commands that send a run to a Ray cluster and look after it there."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from pipelines.cli.options import (
    ADDRESS,
    FORCE,
    KEEP_GOING,
    LIMIT,
    ONLY,
    RUN_FILE,
    SETS,
    example,
    with_limit,
)  # fmt: skip


@click.command()
@RUN_FILE
@ADDRESS
@SETS
@LIMIT
@ONLY
@FORCE
@KEEP_GOING
@click.option("--follow", is_flag=True, help="Stream the log and end with the job's own exit code.")
@example("reenact submit configs/run/demo.yaml --address http://head:8265 --follow")
def submit(
    run_file: Path, address: str, sets: tuple[str, ...], follow: bool, limit: int | None,
    only: tuple[str, ...], force: tuple[str, ...], keep_going: bool,
) -> None:  # fmt: skip
    """Run on a Ray cluster. Packages this checkout and starts a job there."""
    from pipelines.cluster import jobs as ray_jobs
    from pipelines.runs.session import open_session

    sets = with_limit(sets, limit)
    session = open_session(run_file, sets)  # a mistake is reported here, not a minute later there
    session.targets(only)
    session.planner(force)
    arguments = [word for text in sets for word in ("--set", text)]
    arguments += [word for node in only for word in ("--only", node)]
    arguments += [word for node in force for word in ("--force", node)]
    arguments += ["--keep-going"] * keep_going
    ray_jobs.check_store(address, session.store.uri, session.config.runtime.tracking)
    with ray_jobs.one_line_failures():
        job = ray_jobs.submit(address, str(run_file), arguments, {"REENACT_STORE": session.store.uri})
    at = f"{job} --address {shlex.quote(address)}"
    click.echo(f"job {job}: `reenact logs {at}` follows it, `reenact stop {at}` ends it")
    if follow:
        sys.exit(ray_jobs.follow(address, job))


@click.command()
@ADDRESS
@example("reenact jobs --address http://head:8265")
def jobs(address: str) -> None:
    """Jobs of a cluster, newest last."""
    from pipelines.cluster import jobs as ray_jobs

    with ray_jobs.one_line_failures():
        for job in sorted(ray_jobs.client(address).list_jobs(), key=lambda j: j.start_time or 0):
            click.echo(f"{job.submission_id or job.job_id}  {job.status.value:<10} {job.entrypoint}")


@click.command()
@click.argument("job_id")
@ADDRESS
@click.option("--follow/--no-follow", default=True, show_default=True)
@example("reenact logs raysubmit_a1b2 --address http://head:8265")
def logs(job_id: str, address: str, follow: bool) -> None:
    """A job's log; with --follow to its end, and its exit code."""
    from pipelines.cluster import jobs as ray_jobs

    with ray_jobs.one_line_failures():
        if follow:
            sys.exit(ray_jobs.follow(address, job_id))
        click.echo(ray_jobs.client(address).get_job_logs(job_id), nl=False)


@click.command()
@click.argument("job_id")
@ADDRESS
@example("reenact stop raysubmit_a1b2 --address http://head:8265")
def stop(job_id: str, address: str) -> None:
    """End a job. What it published stays, and a rerun computes the rest."""
    from pipelines.cluster import jobs as ray_jobs

    with ray_jobs.one_line_failures():
        stopped = ray_jobs.client(address).stop_job(job_id)
        click.echo(f"{job_id}: {'stopping' if stopped else 'had ended already'}")
