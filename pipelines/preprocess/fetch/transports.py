"""One recording by the first transport that has it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import Rejected, UserError
from pipelines.preprocess.fetch import plain_http, ytdlp
from pipelines.preprocess.fetch.address import PrivateAddressPolicy, VideoAddress, resolve_video_address
from pipelines.preprocess.fetch.host_limits import HostRateLimits, user_cache_folder
from pipelines.preprocess.fetch.partial_download import (
    FetchedVideo,
    clear_folder,
    load_complete_download,
    lock_download_folder,
    mark_download_complete,
)
from pipelines.preprocess.fetch.request import VideoDownloadRequest
from pipelines.preprocess.fetch.transport_config import DownloadTransportConfig, is_http_mirror
from storage.content_cache import can_create_files, writable_cache_folder

if TYPE_CHECKING:
    from pipelines.media.probe_schema import Probe

_DAMAGED = {"empty", "unreadable", "truncated", "undecodable", "checksum"}
"""What a bad transfer looks like; no_video, for example, is what the file is."""


FileCheck = Callable[[Path], "Probe"]
"""Looks into a complete file -> its probe. Raises Rejected."""


@contextmanager
def fetch_recording(
    request: VideoDownloadRequest, settings: DownloadTransportConfig, check: FileCheck
) -> Iterator[FetchedVideo]:
    """The complete and checked file, there until the block ends.

    Raises Rejected where the origin or the mirrors do not have it, Transient where they fail temporarily.
    """
    root = Path(settings.folder).absolute() if settings.folder else writable_cache_folder("download")
    if not can_create_files(root):
        raise UserError(f"runtime.download.folder: {root} takes no files; name a folder that can be written")
    own = settings.folder or os.environ.get("REENACT_CACHE")
    host_folder = root / "hosts" if own else user_cache_folder(otherwise=root / "hosts")
    hosts = HostRateLimits(host_folder, settings.per_host, settings.longest_wait)
    with lock_download_folder(root / "work", request, settings.longest_wait) as folder:
        yield _reuse_complete(folder, check) or _try_transports(request, folder, settings, hosts, check)


def _reuse_complete(folder: Path, check: FileCheck) -> FetchedVideo | None:
    """The complete file of an earlier attempt if it still passes the check: sound may be required by now, or
    a checksum."""
    if (fetched := load_complete_download(folder)) is None:
        return None
    try:
        return replace(fetched, probe=check(fetched.path))
    except Rejected:
        clear_folder(folder)
        return None


def _try_transports(
    request: VideoDownloadRequest,
    folder: Path,
    settings: DownloadTransportConfig,
    hosts: HostRateLimits,
    check: FileCheck,
) -> FetchedVideo:
    """Mirrors and the origin in the order of the settings, but the origin only once: what it denied to http,
    or failed to send, it denies to yt-dlp."""
    denial: Rejected | None = None
    origin_denied = False
    for transport in settings.order:
        try:
            if transport == "mirror":
                found = _from_mirrors(request, folder, settings, hosts, check)
            elif origin_denied:
                continue
            else:
                found = _from_origin(transport, request, folder, settings, hosts, check)
        except Rejected as error:
            denial, origin_denied = error, origin_denied or transport != "mirror"
            continue
        except plain_http.RetriesExhausted as error:
            if transport == "mirror" or not settings.give_up:
                raise
            denial, origin_denied = Rejected("unreachable", str(error)), True
            continue
        if found is not None:
            mark_download_complete(folder, found)
            return found
    raise denial or _not_found(request, settings)


def _from_mirrors(
    request: VideoDownloadRequest,
    folder: Path,
    settings: DownloadTransportConfig,
    hosts: HostRateLimits,
    check: FileCheck,
) -> FetchedVideo | None:
    """The first mirror that has it decides."""
    from storage.mirrors import VideoMirror

    for uri in settings.mirrors:
        if is_http_mirror(uri):
            ask = partial(_from_web_mirror, uri.rstrip("/"), request, folder, settings, hosts)
            if (fetched := _fetch_and_check(ask, folder, check)) is not None:
                return fetched
            continue
        mirror = VideoMirror(uri)
        if (found := mirror.find_video_file_name(request.names)) is not None:
            path = mirror.fetch(found, folder / "mirrored")
            return FetchedVideo(path, "mirror", probe=check(path))
    return None


def _from_web_mirror(
    mirror: str,
    request: VideoDownloadRequest,
    folder: Path,
    settings: DownloadTransportConfig,
    hosts: HostRateLimits,
) -> FetchedVideo | None:
    """None only if the mirror responds "not found": one that is locked must not empty a corpus."""
    from storage.mirrors import candidate_file_names

    for name in candidate_file_names(request.names):
        address = resolve_video_address(f"{mirror}/{name}", PrivateAddressPolicy(configured=True))
        try:
            return FetchedVideo(
                plain_http.fetch_http(address, folder, request.max_bytes, settings, hosts), "mirror"
            )
        except Rejected as error:
            if error.code == "too_large":
                raise
            if error.code != "not_found":
                message = f"mirror {mirror}: {error.sentence}, expected 404 where it has no such file"
                raise plain_http.RetriesExhausted(
                    f"{message}; see runtime.download.mirrors and cookies"
                ) from error
        except plain_http.UnexpectedWebPage as page:
            raise plain_http.RetriesExhausted(f"mirror {mirror}: {page}, not with a video or 404") from page
    return None


def _from_origin(
    transport: str,
    request: VideoDownloadRequest,
    folder: Path,
    settings: DownloadTransportConfig,
    hosts: HostRateLimits,
    check: FileCheck,
) -> FetchedVideo | None:
    """None where this transport is not meant for such an address."""
    if not request.uri:
        return None
    ask = partial(_fetch_by, transport, _origin_address(request, settings), request, folder, settings, hosts)
    return _fetch_and_check(ask, folder, check)


def _fetch_and_check(
    ask: Callable[[], FetchedVideo | None], folder: Path, check: FileCheck
) -> FetchedVideo | None:
    """A damaged file is fetched once more: twice the same damage is the video's."""
    for again in (True, False):
        if (fetched := ask()) is None:
            return None
        try:
            return replace(fetched, probe=check(fetched.path))
        except Rejected as damage:
            if damage.code not in _DAMAGED:
                raise
            clear_folder(folder)
            if not again:
                raise Rejected("corrupt", f"fetched twice: {damage.sentence}") from damage
    raise AssertionError("unreachable")


def _fetch_by(
    transport: str,
    address: VideoAddress,
    request: VideoDownloadRequest,
    folder: Path,
    settings: DownloadTransportConfig,
    hosts: HostRateLimits,
) -> FetchedVideo | None:
    if transport == "ytdlp":
        path, offset, facts = ytdlp.download_with_ytdlp(address, folder, request, settings, hosts)
        return FetchedVideo(path, "ytdlp", offset, facts)
    if address.youtube:
        return None
    try:
        return FetchedVideo(
            plain_http.fetch_http(address, folder, request.max_bytes, settings, hosts), "http"
        )
    except plain_http.UnexpectedWebPage as page:
        if "ytdlp" not in settings.order:
            raise Rejected("unsupported_url", f"{page}; runtime.download.order has no ytdlp") from page
        return None


def _origin_address(request: VideoDownloadRequest, settings: DownloadTransportConfig) -> VideoAddress:
    """What the list of videos names, which may lie about where it leads."""
    return resolve_video_address(request.uri, PrivateAddressPolicy(hosts=settings.private_hosts))


def _not_found(request: VideoDownloadRequest, settings: DownloadTransportConfig) -> Rejected:
    if request.uri:
        message = (
            f"no transport of {', '.join(settings.order)} has {_origin_address(request, settings).public_url}"
        )
    else:
        message = f"{request.names[0]} is in no mirror, and its source names no address"
    return Rejected("not_in_mirror", message)
