"""Running the same graph on a cluster as a Ray job: package the checkout, follow the log, pass on its end."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import urlopen

from pipelines.errors import Transient, UserError, error_first_line
from pipelines.runs.snapshot import checkout_folder
from pipelines.tracking.server import find_tracking_place
from storage.uris import reject_credentials

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

CHECKOUT_FOLDER = checkout_folder()
RUNTIME_ENV_EXCLUDES = [
    ".git/", ".venv/", "venv/", ".reenact/", "**/__pycache__/", "*.egg-info/", ".ruff_cache/",
    ".pytest_cache/", ".hypothesis/", "mlruns/", "mlflow.db",
]  # fmt: skip
# the token is not among them: each node has its own copy
FORWARDED_VARIABLES = ("REENACT_STORE", "MLFLOW_TRACKING_URI", "RAY_AUTH_MODE")
JOB_POLL_SECONDS = 1.0
REQUEST_TIMEOUT = 10.0
UNREACHABLE_JOB_SERVER_ERROR = (
    "no Ray job server at {address} ({why}); is the cluster up, and is that its dashboard address?"
)
OPEN_SERVER_ERROR = (
    "the Ray job server at {address} asks for no token: whoever reaches it runs code there. Start its nodes "
    "with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH, or set RAY_AUTH_MODE=disabled here to use it as it is"
)
NO_TOKEN_ERROR = (
    "the Ray job server at {address} takes no call without its token; put it into a file that "
    "RAY_AUTH_TOKEN_PATH names (or ~/.ray/auth_token); on the head, `ray get-auth-token` prints it"
)


class SubmitError(Transient):
    """The job server could not be reached or refused; one line, for the user."""


def open_job_client(address: str) -> JobSubmissionClient:
    """A job client that sends the cluster's token; without one only where RAY_AUTH_MODE=disabled says so."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    protected = server_requires_token(address)  # Ray's own client waits for minutes for one that is gone
    if os.environ["RAY_AUTH_MODE"].lower() == "token" and not protected:
        raise SubmitError(OPEN_SERVER_ERROR.format(address=address))
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        raise SubmitError(NO_TOKEN_ERROR.format(address=address)) from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SubmitError(
            UNREACHABLE_JOB_SERVER_ERROR.format(address=address, why=str(error).splitlines()[0])
        ) from None


def server_requires_token(address: str) -> bool:
    """The server's own answer, before it is sent anything. Servers older than tokens have none."""
    try:
        with urlopen(f"{address.rstrip('/')}/api/authentication_mode", timeout=REQUEST_TIMEOUT) as response:
            mode = json.load(response)
            return isinstance(mode, dict) and mode.get("authentication_mode") == "token"
    except HTTPError as error:
        error.close()
        return False
    except (OSError, ValueError, HTTPException) as error:
        raise SubmitError(
            UNREACHABLE_JOB_SERVER_ERROR.format(address=address, why=error_first_line(error))
        ) from None


def submit_job(address: str, run_file: str, options: Sequence[str], env: Mapping[str, str]) -> str:
    """Package and start; returns the job id. `options` are those of `reenact run`."""
    path = Path(run_file).resolve()
    if not path.is_relative_to(CHECKOUT_FOLDER):
        raise UserError(
            f"{run_file} lies outside {CHECKOUT_FOLDER}, and only that travels; move it to configs/"
        )
    python = sys.executable if _same_host(address) else "python"
    entry = [python, "-m", "pipelines.cli.main", "run", str(path.relative_to(CHECKOUT_FOLDER)), *options]
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    variables = {name: os.environ[name] for name in FORWARDED_VARIABLES if name in os.environ} | dict(env)
    for name in ("REENACT_STORE", "MLFLOW_TRACKING_URI"):  # a job's environment is shown by the dashboard
        reject_credentials(variables.get(name, ""), name)
    variables |= {"REENACT_GIT": git_state(), "PYTHONUNBUFFERED": "1"}
    return submit_with_client(address, entry, variables)


def submit_with_client(address: str, entry: Sequence[str], variables: Mapping[str, str]) -> str:
    import shlex

    return open_job_client(address).submit_job(
        entrypoint=shlex.join(entry),
        runtime_env={
            "working_dir": str(CHECKOUT_FOLDER),
            "excludes": RUNTIME_ENV_EXCLUDES,
            "env_vars": dict(variables),
        },
        metadata={"project": "reenact", "git": variables.get("REENACT_GIT", "")},
    )


def check_shared_store(address: str, store: str, tracking: str) -> None:
    """Refuses a job whose nodes would publish where nobody finds it."""
    if "://" not in store and not _same_host(address):
        raise UserError(
            f"the store {store} is a folder of this machine, and {address} is another; set runtime.store to "
            "a URI such as s3://bucket/prefix, or file:///folder if all nodes mount it"
        )
    find_tracking_place(store, tracking)


@contextmanager
def shorten_job_server_errors() -> Iterator[None]:
    """A failure that the job server reports becomes an error of one line."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        raise SubmitError(error_first_line(error)) from error


def _same_host(address: str) -> bool:
    """On this machine the job may use this very interpreter; elsewhere the cluster's image has its own."""
    host = address.split("://")[-1].split(":")[0]
    return host in ("127.0.0.1", "localhost")


def follow_job(address: str, job_id: str) -> int:
    """Stream the log until the job ends; returns the job's own exit code (130 when it was stopped)."""
    jobs = open_job_client(address)

    async def stream() -> None:
        async for chunk in jobs.tail_job_logs(job_id):
            sys.stdout.write(chunk)
            sys.stdout.flush()

    asyncio.run(stream())
    return wait_for_job_exit_code(jobs, job_id)


def wait_for_job_exit_code(jobs: JobSubmissionClient, job_id: str) -> int:
    """Wait for the end of a job -> its exit code, 130 when it was stopped."""
    from ray.job_submission import JobStatus

    while not (status := jobs.get_job_status(job_id)).is_terminal():
        time.sleep(JOB_POLL_SECONDS)
    info = jobs.get_job_info(job_id)
    if status == JobStatus.SUCCEEDED:
        return 0
    if status == JobStatus.STOPPED:
        return 130
    return info.driver_exit_code or 1


def git_state() -> str:
    """Commit and whether the tree differs from it, taken where there is a .git: at submission."""
    if "REENACT_GIT" in os.environ:
        return os.environ["REENACT_GIT"]

    if shutil.which("git") is None:
        return "unknown"

    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(CHECKOUT_FOLDER), *args], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    if not commit:
        return "unknown"
    return commit + ("+dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
