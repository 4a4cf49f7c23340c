"""How downloads are transferred: mirrors, rate limits, retries and time-outs. In no key."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

from pipelines.errors import Rejected
from pipelines.preprocess.fetch.address import PrivateAddressPolicy, public_url, resolve_video_address
from storage.errors import InvalidInput
from storage.uris import ExpandedPath, reject_credentials

Transport = Literal["mirror", "http", "ytdlp"]

_WEB = ("http", "https")
_SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", *_WEB)
"""What pyarrow opens, and the web."""
_PRIVATE_HOST = re.compile(r"[a-z0-9.-]+(:\d+)?|[0-9a-f:.]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class DownloadTransportConfig(Struct, frozen=True, kw_only=True):
    order: tuple[Transport, ...] = ("mirror", "http", "ytdlp")
    """Transports, the preferred one first. The next is used where one does not apply or responds that the
    video is not there, but not where it fails: which copy is used must not depend on an outage."""
    mirrors: tuple[ExpandedPath, ...] = ()
    """Folders, object stores (file://, s3://, gs://) and web servers (http://, https://) of
    {recording id}.mp4, .mkv, .webm and so on. Of a web server one name after the other is requested."""
    cookies: ExpandedPath = ""
    """Path of a Netscape cookie file for http and yt-dlp; it is read, never written."""
    proxy_env: str = ""
    """Name of the environment variable that holds the proxy's URL. Not the URL itself: that may hold a
    password, and the configuration is recorded. Empty = http_proxy and its like count, as everywhere."""
    private_hosts: tuple[str, ...] = ()
    """Hosts of your own network, with or without :port, that a list of videos may name. All others in private
    networks or on this machine are refused, however they are written. Mirrors may stand anywhere."""
    folder: ExpandedPath = ""
    """Where partial files and the rate limits of hosts are kept; shared by all that download on this machine.
    Empty = `download` in REENACT_CACHE; where that is not set, .reenact/cache of the folder the job runs in
    for partial files, and for rate limits the user's own cache (XDG_CACHE_HOME), which all jobs share."""
    per_host: int = 2
    """Transfers from one host at once, by all processes of this machine together."""
    seconds_between: float = 1.0
    """Between two starts on one host."""
    youtube_seconds_between: float = 12.0
    """The same for YouTube: guests are cut off above some 300 videos an hour."""
    request_seconds_between: float = 0.75
    """Between the requests that yt-dlp makes for one video."""
    bytes_per_second: int | None = None
    """Most bytes a second of one transfer; None = no limit."""
    slowest: int = 2_000
    """A transfer that stays below so many bytes a second for `timeout` seconds is given up as stuck."""
    timeout: float = 30.0
    """Seconds without a byte until a connection counts as dead."""
    retries: int = 4
    """Attempts after the first one; an attempt that fetched more of the file does not count."""
    pause: float = 2.0
    """Seconds before the first retry, doubled for each further one."""
    longest_pause: float = 60.0
    longest_wait: float = 900.0
    """Longest wait for a host (Retry-After, other processes before this one); where it asks for more, the
    recording fails in this run, and later runs try again."""
    give_up: bool = False
    """A recording that its origin fails to send, after all retries, is rejected (`unreachable`) if no later
    transport has it, instead of failing the run; --retry-rejected fetches it again. Not where the host asks
    to wait, or where a mirror fails."""
    bot_pause: float = 4 * 3600.0
    """Seconds without a request to a host after it suspected a robot."""
    javascript: tuple[Literal["deno", "node", "bun", "quickjs"], ...] = ("deno",)
    """JavaScript runtimes that yt-dlp may use, where installed: some of YouTube's formats need one."""

    def __post_init__(self) -> None:
        if len(set(self.order)) != len(self.order):
            raise ValueError(f"order {list(self.order)}: a transport is named twice")
        if self.proxy_env and not _VARIABLE.fullmatch(self.proxy_env):
            # the value is not repeated: it may be the URL, with its password
            raise ValueError("proxy_env: expected the name of an environment variable, not a URL")
        for host in self.private_hosts:
            if not _PRIVATE_HOST.fullmatch(host):
                message = f"private_hosts {host!r}: expected a host in lower case, with or without :port"
                raise ValueError(message)
        for uri in self.mirrors:
            if "://" in uri:
                _check_mirror(uri)
        if self.per_host < 1 or self.retries < 0:
            raise ValueError("per_host: expected 1 or more; retries: 0 or more")
        if self.bytes_per_second is not None and self.bytes_per_second < 1:
            raise ValueError(f"bytes_per_second {self.bytes_per_second}: expected 1 or more, or none")
        if self.bytes_per_second is not None and self.slowest > self.bytes_per_second / 2:
            message = f"slowest {self.slowest}: expected at most half of bytes_per_second"
            raise ValueError(f"{message} {self.bytes_per_second}, or the limit looks like a stuck transfer")
        for name in ("seconds_between", "youtube_seconds_between", "request_seconds_between", "slowest",
                     "pause", "longest_pause", "longest_wait", "bot_pause"):  # fmt: skip
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)}: expected 0 or more")
        if self.timeout <= 0:
            raise ValueError(f"timeout {self.timeout}: expected more than 0 seconds")


def is_http_mirror(mirror: str) -> bool:
    """Whether this mirror is read by http; others are pyarrow's."""
    scheme, slashes, _ = mirror.partition("://")
    return bool(slashes) and scheme.lower() in _WEB


def _check_mirror(uri: str) -> None:
    """Without repeating what may be secret."""
    parts = urlsplit(uri)
    try:
        reject_credentials(uri, "mirrors")
    except InvalidInput as error:
        raise ValueError(str(error)) from None  # configuration adds the file and the key
    if parts.scheme not in _SCHEMES:
        expected = "a folder or file://, s3://, gs://, http://, https://"
        raise ValueError(f"mirrors: {public_url(uri)}: expected {expected}")
    if is_http_mirror(uri):
        if parts.query or parts.fragment:
            raise ValueError(f"mirrors: {public_url(uri)} holds a query, which may be secret; use cookies")
        try:
            resolve_video_address(uri, PrivateAddressPolicy(configured=True))
        except Rejected as error:
            raise ValueError(f"mirrors: {error.sentence}") from None
