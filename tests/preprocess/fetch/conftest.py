"""A web server that misbehaves on order, and small videos to fetch from it."""

import hashlib
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from msgspec import Struct
from msgspec.structs import replace

from pipelines.media import probe_file
from pipelines.preprocess.download import DownloadConfig, make_download_request
from pipelines.preprocess.fetch.transport_config import DownloadTransportConfig


class Answer(Struct, frozen=True):
    """How the server answers for one path."""

    body: bytes = b""
    status: int = 200
    headers: tuple = ()
    kind: str = "video/mp4"
    ranges: bool = True
    etag: str | None = "strong"
    """strong, weak, or none."""
    cut: int | None = None
    """Bytes sent before the connection is dropped."""
    reset: bool = False
    """Drop it with a TCP reset rather than an end."""
    length: int | None = None
    """Content-Length to claim; -1 = none at all."""
    pause: float = 0.0
    """Seconds before each kilobyte."""
    part: str = "as asked"
    """What a range is answered with: as asked, of unknown total (legal), from zero (not what was asked)."""


class Site:
    """Paths -> answers: one for always, or a list whose last one stays. Counts and keeps requests."""

    def __init__(self):
        self.answers, self.requests, self.counts = {}, [], Counter()
        self.now = self.most = 0
        self.lock = threading.Lock()

    def next(self, path):
        with self.lock:
            answers = self.answers.get(path, Answer(status=404))
            answers = answers if isinstance(answers, list) else [answers]
            self.counts[path] += 1
            return answers[min(self.counts[path], len(answers)) - 1]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *_):
        """Quiet."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        site = self.site
        with site.lock:
            site.requests.append((self.path, dict(self.headers)))
            site.now += 1
            site.most = max(site.most, site.now)
        self.left = False
        try:
            self._answer(site.next(self.path.split("?")[0]))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has gone, which some tests mean it to
        finally:
            self._leave()

    def _leave(self):
        """No longer at work, once: before the last kilobyte, after which the client may be quicker to ask for
        the next file than this thread to end."""
        with self.site.lock:
            self.site.now -= not self.left
        self.left = True

    def _answer(self, answer):
        body, start, status = answer.body, 0, answer.status
        etag = {"strong": f'"{hashlib.md5(body).hexdigest()}"', "weak": f'W/"{len(body)}"'}.get(answer.etag)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (None, etag)
        if status == 200 and asked and answer.ranges and same:
            start, status = int(asked[1]), 206
            if start >= len(body):
                start, status = 0, 416
        self.send_response(status)
        if status == 206:
            start = 0 if answer.part == "from zero" else start
            total = "*" if answer.part == "of unknown total" else len(body)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{total}")
        if status == 416:
            self.send_header("Content-Range", f"bytes */{len(body)}")
            body = b""
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Type", answer.kind)
        if etag:
            self.send_header("ETag", etag)
        if answer.length != -1:
            self.send_header("Content-Length", str((answer.length or len(body)) - start))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "GET":
            self._send(body[start:], answer)
        self.close_connection = True

    def _send(self, body, answer):
        if answer.cut is not None:
            body = body[: answer.cut]
        if answer.pause:
            for k in range(0, len(body), 1024):
                threading.Event().wait(answer.pause)
                if k + 1024 >= len(body):
                    self._leave()
                self.wfile.write(body[k : k + 1024])
        else:
            self.wfile.write(body)
        self.wfile.flush()
        if answer.reset:
            import socket
            import struct

            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


@pytest.fixture
def server(monkeypatch):
    """`server.site.answers["/a.mp4"] = server.Answer(...)`; `server.url` has no slash at its end."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    site = Site()
    handler = type("Bound", (Handler,), {"site": site})
    listening = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    listening.daemon_threads = True
    threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield SimpleNamespace(site=site, Answer=Answer, url=f"http://127.0.0.1:{listening.server_address[1]}")
    listening.shutdown()
    listening.server_close()


@pytest.fixture
def quick(tmp_path):
    """Transport settings without a wait, with a work folder of its own, for a server of this machine."""
    return DownloadTransportConfig(
        private_hosts=("127.0.0.1",),
        folder=str(tmp_path / "work"), seconds_between=0, youtube_seconds_between=0, pause=0.01,
        request_seconds_between=0, longest_pause=0.05, timeout=2, retries=2, longest_wait=5,
    )  # fmt: skip


@pytest.fixture
def ask():
    """A row's address and settings -> VideoDownloadRequest."""

    def make(uri, id="rec", span=(), **settings):
        return make_download_request({"id": id, "uri": uri, "span": list(span)}, DownloadConfig(**settings))

    return make


@pytest.fixture
def check():
    return lambda path: probe_file(path, "rec")


@pytest.fixture(scope="session")
def noise(tmp_path_factory, helpers):
    """1 s of noise with sound: some 300 kB, so that it can break in the middle."""
    frames = np.random.default_rng(0).integers(0, 255, (25, 96, 128, 3), np.uint8)
    path = tmp_path_factory.mktemp("noise") / "noise.mp4"
    return helpers.write_video(path, frames, sound=helpers.tone(1)).read_bytes()


@pytest.fixture
def changed():
    return replace
