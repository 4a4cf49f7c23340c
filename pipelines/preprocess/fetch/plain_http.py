"""Transport `http`: a file from a web server, resumed where an earlier attempt broke off.

Servers are not trusted: lengths are compared with what arrived, a range is continued only where ETag or date
show that the file is the same, and a web page in place of a video goes to yt-dlp.
"""

from __future__ import annotations

import email.utils
import errno
import hashlib
import http.client
import http.cookiejar
import json
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO

from pipelines.errors import Rejected, Transient, UserError
from pipelines.preprocess.fetch.address import (
    PrivateAddressPolicy,
    VideoAddress,
    proxy_url,
    resolve_video_address,
    sanitize_message,
)
from pipelines.preprocess.fetch.guard_proxy import connect_checked
from pipelines.preprocess.fetch.host_limits import DownloadHostBusy, HostRateLimits
from pipelines.preprocess.fetch.transport_config import DownloadTransportConfig
from storage.errors import StoreError

_CHUNK = 1 << 16
_WORTH = 1 << 16
"""Bytes from which an attempt counts as progress rather than as a failure."""
_AGENT = "reenact/0.1"
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
_PAGES = re.compile(r"text/html|application/(xhtml\+xml|(vnd\.apple\.|x-)mpegurl|dash\+xml)|audio/mpegurl")
_FINAL = {404: "not_found", 410: "not_found", 401: "needs_auth", 403: "needs_auth", 407: "needs_auth",
         451: "geo_blocked"}  # fmt: skip
ConnectFunction = Callable[..., http.client.HTTPConnection]
"""As urllib calls a class of connections: host, port, timeout, ..."""
_NUMBER = re.compile(r"[0-9]{1,18}")
"""As headers may hold one: Python calls more than that digits, and takes not all of it for a number."""
_TEMPORARY = {408, 425, 429}


class UnexpectedWebPage(Exception):
    """The response is a web page or a playlist, which yt-dlp may know."""


class RetriesExhausted(Transient):
    """All attempts on this recording failed temporarily; other recordings of its host may be fetched."""

    def __init__(self, message: str, soon: bool = False):
        super().__init__(message, soon)  # as pickle calls it again, in the driver


class TemporaryHttpFailure(Transient):
    """The server failed to send the file this time. after: seconds it asks every client to wait; 0 = it does
    not state how long, None = it only failed."""

    def __init__(self, message: str, after: float | None = None):
        super().__init__(message)
        self.after = after


class RangeMismatch(TemporaryHttpFailure):
    """The response does not continue the partial file."""


@dataclass(frozen=True, slots=True)
class PartialDownload:
    """How much of the file is here, and by what to ask for the rest."""

    size: int = 0
    validator: str = ""
    """A strong ETag or a date: with it the rest can be requested."""


def fetch_http(
    address: VideoAddress,
    folder: Path,
    max_bytes: int,
    settings: DownloadTransportConfig,
    hosts: HostRateLimits,
) -> Path:
    """-> the complete file, in `folder`.

    Raises Rejected (the server's final response), UnexpectedWebPage, RetriesExhausted or DownloadHostBusy
    (temporary; what has been fetched is kept), StoreError where this machine's disk does not take it.
    """
    opener = _opener(settings, address.policy)
    best, attempts = _partial_file(folder, address).size, 0
    while True:
        wait = min(settings.pause * 2**attempts, settings.longest_pause)
        try:
            with hosts.use_slot(address.host, settings.seconds_between):
                return _attempt(opener, address, folder, max_bytes, settings)
        except DownloadHostBusy:
            raise
        except TemporaryHttpFailure as error:
            if error.after is not None:
                hosts.back_off(address.host, error.after or wait)
            last = error
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            check_disk_error(error, folder)
            last = error
        size = _partial_file(folder, address).size
        attempts = 0 if size >= best + _WORTH else attempts + 1
        best = max(best, size)
        if attempts > settings.retries:
            reason = sanitize_message(last, proxy_url(settings.proxy_env)) or type(last).__name__
            rest = isinstance(last, TemporaryHttpFailure) and last.after is not None
            end = DownloadHostBusy if rest else RetriesExhausted
            raise end(f"{address.public_url}: {reason}; gave up after {attempts} attempts") from last
        time.sleep(wait)


def check_disk_error(error: BaseException, folder: Path) -> None:
    """StoreError where it is this machine's disk that fails, not the server: retrying does not help."""
    if isinstance(error, OSError) and error.errno in _DISK:
        raise StoreError(f"cannot write the download into {folder}: {error.strerror}") from error


def _attempt(
    opener: urllib.request.OpenerDirector, address: VideoAddress, folder: Path, max_bytes: int,
    settings: DownloadTransportConfig,
) -> Path:  # fmt: skip
    body, partial = folder / "body", _partial_file(folder, address)
    request = urllib.request.Request(address.url)
    request.add_header("User-Agent", _AGENT)
    request.add_header("Accept-Encoding", "identity")
    if partial.size:
        request.add_header("Range", f"bytes={partial.size}-")
        request.add_header("If-Range", partial.validator)
    try:
        response = opener.open(request, timeout=settings.timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # the file on the server has become shorter
                body.unlink(missing_ok=True)
            raise _status_error(error.code, error.headers, address) from error
    with response:
        try:
            total, start = _response_range(response, partial, address)
        except RangeMismatch:
            body.unlink(missing_ok=True)  # or every later attempt would fail in the same way
            raise
        if total is not None and total > max_bytes:
            raise Rejected(
                "too_large", f"{address.public_url} has {total:,} bytes, download.max_bytes is fewer"
            )
        state = {"address": _hash(address), "validator": _validator(response.headers)}
        (folder / "state.json").write_text(json.dumps(state))
        with body.open("r+b" if start else "wb") as sink:
            sink.truncate(start)
            sink.seek(start)
            size = start + _copy(response, sink, max_bytes - start, settings)
    if size > max_bytes:
        raise Rejected("too_large", f"{address.public_url} has more bytes than download.max_bytes")
    if total is not None and size != total:
        raise TemporaryHttpFailure(f"{size:,} bytes came of the {total:,} that the server announced")
    return body


def _copy(
    response: http.client.HTTPResponse, sink: IO[bytes], most: int, settings: DownloadTransportConfig
) -> int:
    """Bytes written; stops just above `most`."""
    pace, count = SpeedLimiter(settings.bytes_per_second, settings.slowest, settings.timeout), 0
    pace.throttle(0)
    while count <= most and (data := response.read1(_CHUNK)):
        sink.write(data)
        count += len(data)
        pace.throttle(count)
    return count


class SpeedLimiter:
    """Holds a transfer at the speed allowed, and notices one that is stuck though bytes still trickle.

    limit: most bytes a second, None = any. slowest: fewer bytes a second over `timeout` seconds are stuck.
    """

    def __init__(self, limit: int | None, slowest: int, timeout: float):
        self._limit, self._slowest, self._timeout = limit, slowest, timeout
        self._start = time.monotonic()
        self._window: tuple[float, int] | None = None

    def throttle(self, count: int) -> None:
        """count: bytes since the transfer began; fewer than before = another one has begun. Raises
        TimeoutError."""
        now = time.monotonic()
        if self._window is None or count < self._window[1]:
            self._window = now, count
        if self._limit and (ahead := self._start + count / self._limit - now) > 0:
            time.sleep(ahead)
        since, before = self._window
        if now - since < self._timeout:
            return
        if (speed := (count - before) / (now - since)) < self._slowest:
            raise TimeoutError(f"only {speed:.0f} bytes a second came")
        self._window = now, count


# --- the server's response ----------------------------------------------------------------------------------
def _response_range(
    response: http.client.HTTPResponse, partial: PartialDownload, address: VideoAddress
) -> tuple[int | None, int]:
    """-> the size of the whole file if it is known, and where in it the response starts."""
    headers = response.headers
    encoding = (headers.get("Content-Encoding") or "identity").lower()
    if encoding != "identity":
        raise TemporaryHttpFailure(f"the response is compressed ({encoding}), expected identity")
    if response.status == 206:
        match = re.fullmatch(
            r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)",
            (headers.get("Content-Range") or "").strip(),
        )
        if not match or int(match[1]) != partial.size:
            raise RangeMismatch(f"asked for bytes from {partial.size}, got {headers.get('Content-Range')!r}")
        # '*' = a size the server does not know: the part runs to the end, as requested
        return (int(match[2]) + 1 if match[3] == "*" else int(match[3])), partial.size
    kind = (headers.get_content_type() or "").lower()
    if _PAGES.fullmatch(kind):
        raise UnexpectedWebPage(f"{address.public_url} responds with {kind}")
    length = headers.get("Content-Length", "").strip()
    return (int(length) if _NUMBER.fullmatch(length) else None), 0


def _validator(headers: Message) -> str:
    """If-Range takes a strong ETag or the date of the last change."""
    etag = (headers.get("ETag") or "").strip()
    return etag if etag and not etag.startswith("W/") else (headers.get("Last-Modified") or "").strip()


def _partial_file(folder: Path, address: VideoAddress) -> PartialDownload:
    """Empty where the rest cannot be requested, or comes from elsewhere: a date may fit by chance."""
    try:
        state = json.loads((folder / "state.json").read_text())
        size = (folder / "body").stat().st_size
    except (FileNotFoundError, ValueError):
        return PartialDownload()
    ours = state["validator"] and state.get("address") == _hash(address)
    return PartialDownload(size, state["validator"]) if ours else PartialDownload()


def _hash(address: VideoAddress) -> str:
    """The address itself may be signed."""
    return hashlib.sha256(address.url.encode()).hexdigest()


def _status_error(status: int, headers: Message, address: VideoAddress) -> Exception:
    if status in _FINAL:
        return Rejected(_FINAL[status], f"{address.public_url} responds {status}")
    if status == 416:
        return TemporaryHttpFailure("the file on the server is shorter than the part fetched before")
    if status >= 500 or status in _TEMPORARY:
        seconds = parse_retry_after(headers)
        return TemporaryHttpFailure(f"HTTP status {status}", seconds if seconds or status == 429 else None)
    return Rejected("unsupported_url", f"{address.public_url} responds {status}")


def parse_retry_after(headers: Message) -> float:
    """Seconds from a Retry-After header, which holds seconds or a date; 0 = there is none."""
    value = (headers.get("Retry-After") or "").strip()
    if _NUMBER.fullmatch(value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0


# --- the request --------------------------------------------------------------------------------------------
class _Redirects(urllib.request.HTTPRedirectHandler):
    """Each step is checked as the first address was."""

    def __init__(self, policy: PrivateAddressPolicy):
        self.policy = policy

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            checked = resolve_video_address(newurl, self.policy)
        except Rejected:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, checked.url)


class _Http(urllib.request.HTTPHandler):
    """Connects through guard.connect, except to a proxy, which looks names up itself."""

    def __init__(self, policy: PrivateAddressPolicy):
        super().__init__()
        self.policy = policy

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        kind = http.client.HTTPConnection
        return self.do_open(kind if req.has_proxy() else _guard(kind, self.policy), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, policy: PrivateAddressPolicy):
        super().__init__()
        self.policy = policy

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        kind = http.client.HTTPSConnection
        tunnel = req._tunnel_host  # pyright: ignore[reportAttributeAccessIssue]
        return self.do_open(kind if tunnel else _guard(kind, self.policy), req)


def _guard(kind: ConnectFunction, policy: PrivateAddressPolicy) -> ConnectFunction:
    def make(host: str, **options: object) -> http.client.HTTPConnection:
        connection = kind(host, **options)
        connection._create_connection = create  # pyright: ignore[reportAttributeAccessIssue]
        return connection

    def create(place: tuple[str, int], timeout: float, _source: object) -> socket.socket:
        return connect_checked(*place, timeout, policy)

    return make


def _opener(settings: DownloadTransportConfig, policy: PrivateAddressPolicy) -> urllib.request.OpenerDirector:
    through = proxy_url(settings.proxy_env)
    proxies = {"http": through, "https": through} if through else None
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.ProxyHandler(proxies), _Redirects(policy), _Http(policy), _Https(policy),
    ]  # fmt: skip
    if settings.cookies:
        jar = http.cookiejar.MozillaCookieJar(settings.cookies)
        try:
            jar.load(ignore_discard=True, ignore_expires=True)
        except OSError as error:  # LoadError is one
            there = (
                "is no Netscape cookie file" if error.errno is None else f"cannot be read: {error.strerror}"
            )
            raise UserError(f"runtime.download.cookies: {settings.cookies} {there}") from None
        for cookie in jar:
            if cookie.expires == 0:  # how browsers' exports write a cookie of the session: not one of 1970
                cookie.expires, cookie.discard = None, True
        handlers.append(urllib.request.HTTPCookieProcessor(jar))
    return urllib.request.build_opener(*handlers)
