"""Addresses of recordings, checked before anything is requested from them, and texts that are safe to
record."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from contextlib import suppress
from urllib.parse import quote, urlsplit, urlunsplit

from msgspec import Struct

from pipelines.errors import Rejected, UserError

YOUTUBE_HOST = "youtube.com"
_YOUTUBE = re.compile(r"youtube:([A-Za-z0-9_-]{11})")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>)]+")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST = 300


class PrivateAddressPolicy(Struct, frozen=True):
    """Which servers an address may lead to. A list of videos comes from elsewhere, so it leads to public
    addresses alone; what the user's own settings name may stand in the user's own network."""

    configured: bool = False
    """For a mirror of the settings, with all that it redirects to."""
    hosts: tuple[str, ...] = ()
    """runtime.download.private_hosts: hosts of one's own network that a list may name."""

    def allows_private_address(self, host: str, port: int) -> bool:
        return self.configured or host.lower() in self.hosts or f"{host.lower()}:{port}" in self.hosts

    def refusal_reason(self, host: str, ip: str) -> str:
        place = ip if host == ip else f"{host} is at {ip}, which"
        if is_forbidden_address(ip, own=True):
            return f"{place} is no server"
        return f"{place} is no public address (runtime.download.private_hosts may name the host)"


class VideoAddress(Struct, frozen=True):
    url: str
    """Percent-encoded, without a fragment."""
    host: str
    """Lower case, with the port if the URL names one: whose limits count."""
    youtube: bool
    policy: PrivateAddressPolicy = PrivateAddressPolicy()
    """Where it may lead: checked by name here, by each connection's address in guard.py."""

    @property
    def public_url(self) -> str:
        """Without the query, which may hold a signature; YouTube's names the video."""
        return self.url if self.youtube else public_url(self.url)


def resolve_video_address(uri: str, policy: PrivateAddressPolicy = PrivateAddressPolicy()) -> VideoAddress:
    """`youtube:<11 characters>` or an http(s) URL. Raises Rejected: unsupported_url."""
    if match := _YOUTUBE.fullmatch(uri):
        return VideoAddress(f"https://www.youtube.com/watch?v={match[1]}", YOUTUBE_HOST, True)
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise Rejected("unsupported_url", f"{_short(uri)!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise Rejected(
            "unsupported_url", f"{_short(public_url(uri))!r} is neither http, https nor youtube:<id>"
        )
    if parts.username is not None or parts.password is not None:
        raise Rejected(
            "unsupported_url", f"{public_url(uri)!r} holds a user name; use a cookie file or a proxy"
        )
    if re.search(r"[\x00-\x20\x7f]", uri):
        raise Rejected("unsupported_url", f"{_short(public_url(uri))!r} holds blanks or control characters")
    host = _checked_host(host, port or (443 if parts.scheme == "https" else 80), uri, policy)
    netloc = f"[{host}]" if ":" in host else host
    netloc = f"{netloc}:{port}" if port is not None else netloc
    path = quote(parts.path or "/", safe="/%:=&~+!$,;'@()*[]")
    url = urlunsplit((parts.scheme, netloc, path, quote(parts.query, safe="/%:=&?~+!$,;'@()*[]"), ""))
    if host == "youtu.be" or host == YOUTUBE_HOST or host.endswith(f".{YOUTUBE_HOST}"):
        return VideoAddress(url, YOUTUBE_HOST, True, policy)
    return VideoAddress(url, netloc, False, policy)


def _checked_host(host: str, port: int, uri: str, policy: PrivateAddressPolicy) -> str:
    quoted = f"{_short(public_url(uri))!r}"
    with suppress(ValueError):
        number = str(ipaddress.ip_address(host))
        if is_forbidden_address(number, policy.allows_private_address(number, port)):
            raise Rejected("unsupported_url", f"{quoted}: {policy.refusal_reason(host, number)}")
        return number
    try:
        name = host.encode("idna").decode().lower()
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name):
        raise Rejected("unsupported_url", f"{quoted} has no host name that could be looked up")
    if _is_number(name):  # 2130706433, 0x7f.1, 0177.0.0.1: what connects reads them as an address
        raise Rejected("unsupported_url", f"{quoted} writes an IP address in a form that hides it")
    return name


def _is_number(name: str) -> bool:
    try:
        socket.inet_aton(name)
    except OSError:
        return False
    return True


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_forbidden_address(ip: str, own: bool) -> bool:
    """Whether an IP address must not be connected to. own: of the user's own settings, which may name private
    networks but no link-local address (a cloud's metadata service has one) and none that is no server."""
    number = ipaddress.ip_address(ip.split("%")[0])
    if isinstance(number, ipaddress.IPv6Address):  # it may carry an IPv4 address, which is what counts
        inner = number.ipv4_mapped or number.sixtofour
        if number in _NAT64:
            inner = ipaddress.IPv4Address(int(number) & 0xFFFF_FFFF)
        number = inner or number
    if number.is_link_local or number.is_multicast or number.is_unspecified:
        return True
    return not own and (not number.is_global or number.is_reserved)


def proxy_url(variable: str) -> str:
    """The proxy's URL from the named environment variable; "" = none is named. Raises UserError if it is not
    set: going without would show this machine's own address."""
    if not variable:
        return ""
    value = os.environ.get(variable, "")
    if not value:
        raise UserError(f"runtime.download.proxy_env: {variable} is not set on this machine")
    return value


def public_url(url: str) -> str:
    """Scheme, host and path: neither user, password nor query."""
    if "://" not in url:
        return url
    scheme, _, rest = url.partition("://")
    netloc, slash, path = rest.partition("/")
    return f"{scheme}://{netloc.rpartition('@')[2].split('?')[0]}{slash}{re.split('[?#]', path)[0]}"


def sanitize_message(message: object, secret: str = "") -> str:
    """A library's message as one short line without colours, queries and the proxy's name and password."""
    text = _COLOUR.sub("", str(message))
    if secret:
        text = text.replace(secret, "the proxy")
        netloc = urlsplit(secret if "://" in secret else f"//{secret}").netloc
        login = netloc.rpartition("@")[0]
        for part in (netloc, login, login.partition(":")[2]):
            text = text.replace(part, "...") if len(part) > 2 else text
    text = _URL.sub(lambda match: public_url(match[0]), text)
    return _short(" ".join(text.split()))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
