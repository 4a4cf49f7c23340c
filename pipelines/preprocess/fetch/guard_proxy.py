"""The only way to the network: a host is looked up once, checked, and connected to at the address checked.

So neither a redirect, nor a name that leads into a private network, nor one whose address changes after the
check gets past it. Libraries that connect by themselves (yt-dlp, and the ffmpeg it starts) are sent
through it by a proxy that lives as long as one download and listens on the loopback address.
"""

from __future__ import annotations

import base64
import secrets
import selectors
import socket
import socketserver
import threading
from contextlib import suppress
from typing import cast
from urllib.parse import urlsplit

from pipelines.errors import Rejected
from pipelines.preprocess.fetch.address import PrivateAddressPolicy, is_forbidden_address

_CHUNK = 1 << 16
_LONGEST_HEAD = 1 << 16


def connect_checked(host: str, port: int, timeout: float, policy: PrivateAddressPolicy) -> socket.socket:
    """Raises Rejected where one of the host's addresses is forbidden, OSError where none accepts a
    connection."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, place in found:
        if is_forbidden_address(str(place[0]), policy.allows_private_address(host, port)):
            raise Rejected("unsupported_url", policy.refusal_reason(host, str(place[0])))
    last: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, place in found:
        one = socket.socket(family, kind, protocol)
        try:
            one.settimeout(timeout)
            one.connect(place)
        except OSError as error:
            one.close()
            last = error
        else:
            return one
    raise last


class PrivateAddressGuardProxy(socketserver.ThreadingTCPServer):
    """`with PrivateAddressGuardProxy(...) as guard:` guard.url is a local proxy, with a password in it."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, policy: PrivateAddressPolicy, timeout: float):
        super().__init__(("127.0.0.1", 0), _GuardHandler)
        self.policy, self.seconds = policy, timeout
        self.refusals: list[str] = []
        """The reason for each connection that was refused."""
        word = secrets.token_hex(16)
        self.pass_line = b"Basic " + base64.b64encode(f"guard:{word}".encode())
        self.url = f"http://guard:{word}@127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> PrivateAddressGuardProxy:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _GuardHandler(socketserver.BaseRequestHandler):
    """One connection of a client: one server, and bytes passed on until either side ends it."""

    def handle(self) -> None:
        with suppress(OSError):  # a client that has gone
            self._serve(cast("PrivateAddressGuardProxy", self.server))

    def _serve(self, guard: PrivateAddressGuardProxy) -> None:
        try:
            head, _, rest = _head(self.request).partition(b"\r\n\r\n")
            line, *fields = head.split(b"\r\n")
            method, target, version = line.decode("ascii").split(" ")
            if guard.pass_line not in (
                value.strip() for value in _header_values(fields, b"proxy-authorization")
            ):
                self._respond('407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="guard"')
                return
            parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
            host, port = parts.hostname or "", parts.port or (443 if method == "CONNECT" else 80)
            if method != "CONNECT" and parts.scheme != "http":
                self._respond("400 Bad Request")
                return
        except (OSError, ValueError):
            return
        try:
            upstream = connect_checked(host, port, guard.seconds, guard.policy)
        except Rejected as refusal:
            guard.refusals.append(refusal.sentence)
            self._respond("403 Forbidden")
            return
        except (OSError, UnicodeError):  # UnicodeError: no name that could be looked up
            self._respond("502 Bad Gateway")
            return
        with upstream, suppress(OSError, ValueError):  # either has gone: the other sees its connection end
            if method == "CONNECT":
                self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = parts._replace(scheme="", netloc="").geturl() or "/"
                upstream.sendall(_close_after(f"{method} {path} {version}".encode(), fields) + rest)
                head, _, rest = _head(upstream).partition(b"\r\n\r\n")
                line, *fields = head.split(b"\r\n")
                self.request.sendall(_close_after(line, fields) + rest)
            _relay(self.request, upstream, guard.seconds)

    def _respond(self, status: str) -> None:
        self.request.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())


def _head(source: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = source.recv(_CHUNK)
        if not more or len(data) > _LONGEST_HEAD:
            raise ValueError("neither a request nor a response")
        data += more
    return data


def _close_after(line: bytes, fields: list[bytes]) -> bytes:
    """The head of a request or a response, without keep-alive: the next request may be for another server."""
    hop = (b"proxy-authorization", b"proxy-connection", b"connection", b"keep-alive")
    kept = [field for field in fields if field.partition(b":")[0].strip().lower() not in hop]
    return b"\r\n".join([line, *kept, b"Connection: close"]) + b"\r\n\r\n"


def _header_values(fields: list[bytes], name: bytes) -> list[bytes]:
    return [value for key, _, value in (field.partition(b":") for field in fields) if key.lower() == name]


def _relay(client: socket.socket, upstream: socket.socket, seconds: float) -> None:
    """Until one side ends, or both are silent for longer than the client waits."""
    upstream.settimeout(None)
    with selectors.DefaultSelector() as both:
        both.register(client, selectors.EVENT_READ, upstream)
        both.register(upstream, selectors.EVENT_READ, client)
        while ready := both.select(seconds + 5):
            for key, _ in ready:
                source = cast("socket.socket", key.fileobj)
                if not (data := source.recv(_CHUNK)):
                    return
                key.data.sendall(data)
