"""Where runs are tracked, and the server that shows them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote, urlsplit
from urllib.request import ProxyHandler, build_opener, url2pathname

from pipelines.errors import UserError
from pipelines.tracking.mlflow_text import redact_uris
from storage.uris import expand_home, reject_credentials

MLFLOW_SERVER_STOP_SECONDS = 5.0
SERVER_START_POLL_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class TrackingPlace:
    uri: str
    artifacts: str = ""
    """Folder or URI of artifacts of a new experiment; empty = the server decides."""

    @property
    def on_server(self) -> bool:
        return self.uri.startswith(("http://", "https://"))


def configured_tracking_uri(tracking_uri: str = "") -> str:
    """Where the environment or else the setting wants runs tracked; "" = beside the store."""
    return expand_home(os.environ.get("MLFLOW_TRACKING_URI") or tracking_uri)


def find_tracking_place(store_root: str, tracking_uri: str = "") -> TrackingPlace:
    """MLFLOW_TRACKING_URI, else the setting, else sqlite and a folder in the store, if that is a folder."""
    if uri := configured_tracking_uri(tracking_uri):
        reject_credentials(uri, "the tracking URI")
        return TrackingPlace(uri)
    folder = url2pathname(urlsplit(store_root).path) if store_root.startswith("file://") else store_root
    if "://" in folder:
        raise UserError(
            f"runs in {redact_uris(store_root)} have nowhere to be tracked: MLflow's sqlite needs a folder "
            "that "
            "stays. Set runtime.tracking, or MLFLOW_TRACKING_URI, to an MLflow server or a sqlite:/// file"
        )
    # MLflow reads both as URIs. It also makes the folder of a sqlite:/// file, but of the quoted name.
    root = str(Path(folder).absolute() / "mlflow")
    scheme = "sqlite" if quote(root) == root else "sqlite+pysqlite"
    return TrackingPlace(f"{scheme}:///{quote(root)}/mlflow.db", f"{quote(root)}/artifacts")


def mlflow_server_command(store_root: str, tracking_uri: str = "", port: int = 5000) -> list[str]:
    """argv of the MLflow server of this store: one worker, this machine only."""
    where = find_tracking_place(store_root, tracking_uri)
    if where.on_server:
        raise UserError(
            f"runs are tracked by the server at {redact_uris(where.uri)}; open that address instead"
        )
    artifacts = ["--artifacts-destination", where.artifacts] if where.artifacts else []
    return [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", where.uri, *artifacts,
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip


def serve_ui(
    store_root: str, tracking_uri: str = "", port: int = 5000,
    up: Callable[[], None] = lambda: None, waiting: Callable[[float], None] = lambda _seconds: None,
) -> None:  # fmt: skip
    """Run the server until it ends, or Ctrl-C or SIGTERM ends this process. waiting: called now and then
    until it answers; up: once it does. UserError where it cannot run."""
    argv = mlflow_server_command(store_root, tracking_uri, port)
    check_port_is_free(port)
    make_database_folder(find_tracking_place(store_root, tracking_uri))
    # Without the job executor the server is 2 processes and up in 6 s; with it 15 and 18 s.
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(argv, env=env, start_new_session=True, stdout=log, stderr=log)
        before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        try:
            started = time.monotonic()
            while server.poll() is None and not is_server_up(port):
                waiting(time.monotonic() - started)
                time.sleep(SERVER_START_POLL_SECONDS)
            if server.poll() is None:
                up()
            if server.wait():
                raise UserError(f"MLflow's server ended with {server.returncode}: {_last_line(log)}")
        except KeyboardInterrupt:
            return
        finally:  # the server has children of its own that would outlive it
            signal.signal(signal.SIGTERM, before)
            end_process(server)


def end_process(server: subprocess.Popen[bytes]) -> None:
    """A process and its children: asked to end, then made to."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        server.wait(MLFLOW_SERVER_STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)


def check_port_is_free(port: int) -> None:
    """UserError where something listens there already, or nobody may."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(f"port {port}: {error.strerror}; choose another with --port") from None


def is_server_up(port: int) -> bool:
    """Whether the server does, asked past any proxy."""
    try:
        with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/health", timeout=2):
            return True
    except (OSError, HTTPException):
        return False


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it does not say why"


def make_database_folder(where: TrackingPlace) -> None:
    """Make the folder of a database that is a file."""
    scheme, found, path = where.uri.partition(":///")
    if found and scheme.startswith("sqlite"):
        Path(unquote(path.partition("?")[0])).parent.mkdir(parents=True, exist_ok=True)
