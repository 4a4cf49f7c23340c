"""Addresses of recordings, checked before anything is asked of them, and texts that are safe to record."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

from pipelines.errors import Rejected

YOUTUBE_HOST = "youtube.com"
_YOUTUBE = re.compile(r"youtube:([A-Za-z0-9_-]{11})")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>)]+")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Address:
    url: str
    """Percent-encoded, without a fragment."""
    host: str
    """Lower case, with the port if the URL names one: whose limits count."""
    youtube: bool

    @property
    def public(self) -> str:
        """Without the query, which may hold a signature; YouTube's names the video."""
        return self.url if self.youtube else public(self.url)


def address_of(uri: str) -> Address:
    """`youtube:<11 characters>` or an http(s) URL. Raises Rejected: unsupported_url."""
    if match := _YOUTUBE.fullmatch(uri):
        return Address(f"https://www.youtube.com/watch?v={match[1]}", YOUTUBE_HOST, True)
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise Rejected("unsupported_url", f"{_short(uri)!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise Rejected("unsupported_url", f"{_short(public(uri))!r} is neither http, https nor youtube:<id>")
    if parts.username is not None or parts.password is not None:
        raise Rejected("unsupported_url", f"{public(uri)!r} holds a user name; use a cookie file or a proxy")
    if re.search(r"[\x00-\x20\x7f]", uri):
        raise Rejected("unsupported_url", f"{_short(public(uri))!r} holds blanks or control characters")
    host = _checked_host(host, uri)
    netloc = f"[{host}]" if ":" in host else host
    netloc = f"{netloc}:{port}" if port is not None else netloc
    path = quote(parts.path or "/", safe="/%:=&~+!$,;'@()*[]")
    url = urlunsplit((parts.scheme, netloc, path, quote(parts.query, safe="/%:=&?~+!$,;'@()*[]"), ""))
    if host == "youtu.be" or host == YOUTUBE_HOST or host.endswith(f".{YOUTUBE_HOST}"):
        return Address(url, YOUTUBE_HOST, True)
    return Address(url, netloc, False)


def _checked_host(host: str, uri: str) -> str:
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        try:
            name = host.encode("idna").decode().lower()
        except UnicodeError:
            name = ""
        if not _HOST.fullmatch(name):
            told = f"{_short(public(uri))!r} has no host name that could be looked up"
            raise Rejected("unsupported_url", told) from None
        return name
    if forbidden(str(number)):
        raise Rejected("unsupported_url", f"{_short(public(uri))!r} points at {number}, which is no server")
    return str(number)


def forbidden(ip: str) -> bool:
    """Addresses no list of videos may send us to: a cloud's metadata service answers on a link-local one,
    and the rest are no servers. Private networks are allowed: intranet mirrors live there."""
    number = ipaddress.ip_address(ip.split("%")[0])
    number = getattr(number, "ipv4_mapped", None) or number
    return number.is_link_local or number.is_multicast or number.is_unspecified


def proxy(variable: str) -> str:
    """The proxy's URL from the named environment variable; "" = none is named. Raises OSError if it is not
    set: going without would show this machine's own address."""
    if not variable:
        return ""
    value = os.environ.get(variable, "")
    if not value:
        raise OSError(f"runtime.download.proxy_env: {variable} is not set on this machine")
    return value


def public(url: str) -> str:
    """Scheme, host and path: neither user, password nor query."""
    if "://" not in url:
        return url
    scheme, _, rest = url.partition("://")
    netloc, slash, path = rest.partition("/")
    return f"{scheme}://{netloc.rpartition('@')[2].split('?')[0]}{slash}{re.split('[?#]', path)[0]}"


def told(message: object, secret: str = "") -> str:
    """What a library said, as one short line without colours, queries and the proxy's name and password."""
    text = _COLOUR.sub("", str(message))
    if secret:
        text = text.replace(secret, "the proxy")
        netloc = urlsplit(secret if "://" in secret else f"//{secret}").netloc
        login = netloc.rpartition("@")[0]
        for part in (netloc, login, login.partition(":")[2]):
            text = text.replace(part, "...") if len(part) > 2 else text
    text = _URL.sub(lambda match: public(match[0]), text)
    return _short(" ".join(text.split()))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
