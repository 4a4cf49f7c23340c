"""Submitting: no server without authentication is used by accident, and no password travels with a job."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipelines.cluster import jobs
from pipelines.cluster.jobs import check_shared_store
from pipelines.errors import UserError
from storage.errors import InvalidInput


@pytest.fixture
def server():
    """A job server that says of itself what `mode` holds; `asked` are the paths it was asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            body = json.dumps({"authentication_mode": made.mode}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args) -> None: ...

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.mode, made.asked = "disabled", []
    made.address = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def test_a_job_server_without_authentication_is_refused_unless_asked_for(server, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(jobs.SubmitError, match=r"asks for no token.*RAY_AUTH_MODE=disabled"):
        jobs.open_job_client(server.address)
    assert server.asked == ["/api/authentication_mode"]


def test_a_job_server_with_authentication_is_told_from_one_without(server):
    server.mode = "token"
    assert jobs.server_requires_token(server.address)
    server.mode = "disabled"
    assert not jobs.server_requires_token(server.address)


@pytest.mark.parametrize(
    ("variable", "uri"),
    [("MLFLOW_TRACKING_URI", "https://me:hunter2@host"), ("REENACT_STORE", "s3://AKIA:hunter2@bucket")],
)
def test_a_password_is_not_put_into_a_jobs_environment(variable, uri, monkeypatch, server):
    monkeypatch.setenv(variable, uri)
    with pytest.raises(InvalidInput, match=variable) as error:
        jobs.submit_job(server.address, str(jobs.CHECKOUT_FOLDER / "configs/run/demo.yaml"), [], {})
    assert "hunter2" not in str(error.value)
    assert not server.asked


def test_without_git_the_commit_is_unknown(monkeypatch):
    monkeypatch.delenv("REENACT_GIT", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert jobs.git_state() == "unknown"


def test_a_job_elsewhere_is_refused_a_store_in_a_folder_of_this_machine():
    with pytest.raises(UserError, match=r"runtime\.store to a URI such as s3"):
        check_shared_store("http://head:8265", "/home/me/store", "")
    check_shared_store("http://head:8265", "file:///mnt/store", "")
    check_shared_store("http://127.0.0.1:8265", "/home/me/store", "")
