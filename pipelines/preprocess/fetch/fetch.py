"""One recording by the first transport that has it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.errors import Rejected, UserError
from pipelines.preprocess.fetch import plain_http, ytdlp
from pipelines.preprocess.fetch.address import Address, Reach, address_of
from pipelines.preprocess.fetch.hosts import Hosts, users_folder
from pipelines.preprocess.fetch.partial_download import Fetched, empty, keep, kept, work_folder
from pipelines.preprocess.fetch.settings import TransportConfig, on_web
from storage.fetched import takes_files, working_folder

_DAMAGED = {"empty", "unreadable", "truncated", "undecodable", "checksum"}
"""What a bad transfer looks like; no_video, for example, is what the file is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a recording's bytes should be: everything here comes from keyed settings and from its row."""

    uri: str
    """http(s) URL, youtube:<id>, or "" when only a mirror can have it."""
    names: tuple[str, ...]
    """What a mirror may call it, without extension: letters, digits, '_' and '-'."""
    formats: str
    """yt-dlp's format selection."""
    format_sort: tuple[str, ...]
    section: tuple[float, float] | None
    """Only these seconds of it, where a transport can."""
    max_bytes: int


Check = Callable[[Path], dict[str, Any]]
"""Looks into a complete file -> its probe. Raises Rejected."""


@contextmanager
def obtain(wanted: Wanted, settings: TransportConfig, check: Check) -> Iterator[Fetched]:
    """The complete and checked file, there until the block ends.

    Raises Rejected: what the origin or the mirrors finally said. Transient: not now.
    """
    root = Path(settings.folder).absolute() if settings.folder else working_folder("download")
    if not takes_files(root):
        raise UserError(f"runtime.download.folder: {root} takes no files; name a folder that can be written")
    own = settings.folder or os.environ.get("REENACT_CACHE")
    turns = root / "hosts" if own else users_folder(otherwise=root / "hosts")
    hosts = Hosts(turns, settings.per_host, settings.longest_wait)
    with work_folder(root / "work", wanted, settings.longest_wait) as folder:
        yield _kept(folder, check) or _first(wanted, folder, settings, hosts, check)


def _kept(folder: Path, check: Check) -> Fetched | None:
    """What an earlier try kept, if it still is what is wanted: sound may be required since, or a checksum."""
    if (fetched := kept(folder)) is None:
        return None
    try:
        return replace(fetched, probe=check(fetched.path))
    except Rejected:
        empty(folder)
        return None


def _first(wanted: Wanted, folder: Path, settings: TransportConfig, hosts: Hosts, check: Check) -> Fetched:
    """Mirrors and the origin are asked each in their place, but the origin only once: what it denied to http,
    or could not give it, it denies to yt-dlp."""
    denial: Rejected | None = None
    origin_denied = False
    for transport in settings.order:
        try:
            if transport == "mirror":
                found = _from_mirrors(wanted, folder, settings, hosts, check)
            elif origin_denied:
                continue
            else:
                found = _from_origin(transport, wanted, folder, settings, hosts, check)
        except Rejected as error:
            denial, origin_denied = error, origin_denied or transport != "mirror"
            continue
        except plain_http.GaveUp as error:
            if transport == "mirror" or not settings.give_up:
                raise
            denial, origin_denied = Rejected("unreachable", str(error)), True
            continue
        if found is not None:
            keep(folder, found)
            return found
    raise denial or _nowhere(wanted, settings)


def _from_mirrors(
    wanted: Wanted, folder: Path, settings: TransportConfig, hosts: Hosts, check: Check
) -> Fetched | None:
    """The first mirror that has it decides."""
    from storage.mirrors import Mirror

    for uri in settings.mirrors:
        if on_web(uri):
            ask = partial(_from_web, uri.rstrip("/"), wanted, folder, settings, hosts)
            if (fetched := _checked(ask, folder, check)) is not None:
                return fetched
            continue
        mirror = Mirror(uri)
        if (found := mirror.find(wanted.names)) is not None:
            path = mirror.fetch(found, folder / "mirrored")
            return Fetched(path, "mirror", probe=check(path))
    return None


def _from_web(
    mirror: str, wanted: Wanted, folder: Path, settings: TransportConfig, hosts: Hosts
) -> Fetched | None:
    """Only "not found" is a mirror's answer about a video: one that is locked would empty a corpus."""
    from storage.mirrors import file_names

    for name in file_names(wanted.names):
        address = address_of(f"{mirror}/{name}", Reach(configured=True))
        try:
            return Fetched(plain_http.fetch(address, folder, wanted.max_bytes, settings, hosts), "mirror")
        except Rejected as answer:
            if answer.code == "too_large":
                raise
            if answer.code != "not_found":
                told = f"mirror {mirror}: {answer.sentence}, where 404 would say that it is not there"
                raise plain_http.GaveUp(f"{told}; see runtime.download.mirrors and cookies") from answer
        except plain_http.Page as page:
            raise plain_http.GaveUp(f"mirror {mirror}: {page}, not with a video or 404") from page
    return None


def _from_origin(
    transport: str, wanted: Wanted, folder: Path, settings: TransportConfig, hosts: Hosts, check: Check
) -> Fetched | None:
    """None where this transport is not meant for such an address."""
    if not wanted.uri:
        return None
    ask = partial(_transfer, transport, _origin(wanted, settings), wanted, folder, settings, hosts)
    return _checked(ask, folder, check)


def _checked(ask: Callable[[], Fetched | None], folder: Path, check: Check) -> Fetched | None:
    """A damaged file is fetched once more: twice the same damage is the video's."""
    for again in (True, False):
        if (fetched := ask()) is None:
            return None
        try:
            return replace(fetched, probe=check(fetched.path))
        except Rejected as damage:
            if damage.code not in _DAMAGED:
                raise
            empty(folder)
            if not again:
                raise Rejected("corrupt", f"fetched twice: {damage.sentence}") from damage
    raise AssertionError("unreachable")


def _transfer(
    transport: str, address: Address, wanted: Wanted, folder: Path, settings: TransportConfig, hosts: Hosts
) -> Fetched | None:
    if transport == "ytdlp":
        path, offset, facts = ytdlp.fetch(address, folder, wanted, settings, hosts)
        return Fetched(path, "ytdlp", offset, facts)
    if address.youtube:
        return None
    try:
        return Fetched(plain_http.fetch(address, folder, wanted.max_bytes, settings, hosts), "http")
    except plain_http.Page as page:
        if "ytdlp" not in settings.order:
            raise Rejected("unsupported_url", f"{page}; runtime.download.order has no ytdlp") from page
        return None


def _origin(wanted: Wanted, settings: TransportConfig) -> Address:
    """What the list of videos names, which may lie about where it leads."""
    return address_of(wanted.uri, Reach(hosts=settings.private_hosts))


def _nowhere(wanted: Wanted, settings: TransportConfig) -> Rejected:
    if wanted.uri:
        told = f"no transport of {', '.join(settings.order)} has {_origin(wanted, settings).public}"
    else:
        told = f"{wanted.names[0]} is in no mirror, and its source names no address"
    return Rejected("not_in_mirror", told)
