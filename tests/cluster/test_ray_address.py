"""A Ray that is gone, or cannot start, is found out in seconds, before Ray is asked."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.cluster import jobs, ray_address
from pipelines.cluster.executor import RayExecutor
from pipelines.errors import UserError
from storage import ledger
from storage.files import Store

MICRO = Path(__file__).parents[1] / "e2e" / "micro.yaml"
SETTINGS = b"\0\0\x06\x04\0\0\0\0\0"


@pytest.fixture
def listener():
    """Something that listens and answers each caller with these bytes; its port."""
    made = []

    def listen(answer: bytes) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        made.append(server)

        def serve() -> None:
            try:
                while True:
                    caller, _ = server.accept()
                    made.append(caller)
                    caller.sendall(answer)
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()[1]

    yield listen
    for one in made:
        one.close()


@pytest.mark.parametrize(
    "address", ["head", "http://head:8265", "head:", "head:99999", "a b:6379", ":6379", "[::1"]
)
def test_an_address_of_another_form_is_named_with_the_form_expected(address):
    with pytest.raises(UserError, match=r"expected HOST:PORT.*runtime.ray or RAY_ADDRESS") as error:
        ray_address.check_ray_reachable(address)
    assert repr(address) in str(error.value)


def test_a_cluster_that_is_gone_is_found_out_before_ray_is_imported():
    started = time.monotonic()
    with pytest.raises(UserError, match=r"no Ray at 127\.0\.0\.1:9: Connection refused; set runtime\.ray"):
        RayExecutor(SimpleNamespace(ray="127.0.0.1:9")).start_ray()
    assert time.monotonic() - started < 2


def test_a_port_that_never_answers_is_given_up(listener, monkeypatch):
    monkeypatch.setattr(ray_address, "RAY_REPLY_TIMEOUT_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"no answer within 0\.2 s"):
        ray_address.check_ray_reachable(f"127.0.0.1:{listener(b'')}")


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR\r\n"]
)
def test_a_port_of_something_else_is_no_ray(answer, listener, monkeypatch):
    monkeypatch.setattr(ray_address, "RAY_REPLY_TIMEOUT_SECONDS", 0.2)
    with pytest.raises(UserError, match="no Ray at"):
        ray_address.check_ray_reachable(f"127.0.0.1:{listener(answer)}")


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "localhost:{}"])
def test_what_speaks_as_ray_does_passes(address, listener):
    ray_address.check_ray_reachable(address.format(listener(SETTINGS)))


def test_a_ray_behind_certificates_is_left_to_ray(listener, monkeypatch):
    monkeypatch.setenv("RAY_USE_TLS", "1")
    ray_address.check_ray_reachable(f"127.0.0.1:{listener(b'')}")


def test_rays_files_stay_where_they_fit(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert ray_address.short_ray_folder() is None


@pytest.mark.parametrize("name", ["x" * 115, "é" * 30])
def test_sockets_go_to_a_short_folder_where_their_paths_are_too_long(name, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / name))
    folder = ray_address.short_ray_folder()
    assert folder is not None
    path = f"{folder}/session_2026-11-29_20-15-00_000000_{os.getpid()}/sockets/plasma_store"
    assert len(path.encode()) <= ray_address.MAX_SOCKET_PATH


def test_without_any_folder_for_sockets_one_line_says_what_to_set(monkeypatch):
    monkeypatch.setattr(ray_address, "MAX_SOCKET_PATH", 10)
    with pytest.raises(UserError, match=r"more than 10 bytes.*set RAY_TMPDIR to a short path") as error:
        ray_address.short_ray_folder()
    assert "\n" not in str(error.value)


def test_a_run_whose_ray_is_gone_says_so_in_a_line_and_is_recorded_as_failed(tmp_path):
    mine = {"RAY_ADDRESS": "127.0.0.1:9", "REENACT_STORE": str(tmp_path / "store"),
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}  # fmt: skip
    argv = [sys.executable, "-m", "pipelines.cli.main", "run", str(MICRO), "--only", "download"]
    done = subprocess.run(argv, env=os.environ | mine, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no Ray at 127.0.0.1:9: Connection refused" in done.stderr
    assert "Traceback" not in done.stderr
    store = Store(str(tmp_path / "store"))
    (run,) = ledger.list_runs(store)
    last = list(ledger.read_events(store, run))[-1]
    assert (last["type"], last["status"]) == ("run_finished", "FAILED")
    assert "no Ray at 127.0.0.1:9" in last["error"]


@pytest.mark.parametrize("mode", ["token", "disabled"])
@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\n\r\n[]"])
def test_a_job_server_that_is_none_is_named_in_a_line(mode, answer, listener, monkeypatch):
    monkeypatch.setattr(jobs, "REQUEST_TIMEOUT", 0.3)
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with pytest.raises(jobs.SubmitError) as error:
        jobs.open_job_client(f"http://127.0.0.1:{listener(answer)}")
    assert "\n" not in str(error.value)


def failing_init(error: Exception) -> Callable[..., None]:
    """A ray.init that ends so: raised from a module of Ray's, as its bare errors are."""
    module: dict[str, Any] = {"__name__": "ray.stand_in", "error": error}
    exec("def init(**options):\n    raise error", module)
    return module["init"]


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        (
            "head:6379",
            RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.40.0\n    Python: 3.9"),
            r"cannot join Ray at head:6379: Version mismatch: .* started with: Ray: 2\.40\.0 Python: 3\.9",
        ),
        (
            "local",
            Exception("The current node timed out\nduring startup."),
            r"Ray cannot start .* during startup",
        ),
        ("local", OSError("[Errno 24] Too many open files"), r"Too many open files.*ulimit -n"),
    ],
)
def test_what_ray_says_of_a_machine_or_a_cluster_is_one_line(address, error, message, monkeypatch):
    runtime = SimpleNamespace(ray=address, cpus=1, object_store_mb=100)
    monkeypatch.setattr("ray.init", failing_init(error))
    with pytest.raises(UserError, match=message) as raised:
        RayExecutor(runtime)._join(address)
    assert "\n" not in str(raised.value)
