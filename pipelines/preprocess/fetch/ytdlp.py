"""Transport `ytdlp`: a video of a site that yt-dlp knows, or one that a web page embeds.

yt-dlp runs as a library in this process, without a shell and without files of its configuration. All it may
write lies in a fresh folder of ours, under names of ours: nothing that a site sends becomes a path or an
option.
"""

from __future__ import annotations

import contextvars
import io
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from pipelines.errors import Rejected, Transient, UserError
from pipelines.media import ffmpeg_path
from pipelines.preprocess.fetch.address import VideoAddress, proxy_url, public_url, sanitize_message
from pipelines.preprocess.fetch.classify_error import (
    BOT_ERROR_CODE,
    FORBIDDEN_ERROR_CODE,
    RATE_LIMIT_ERROR_CODE,
    ErrorClass,
    classify_download_error,
    walk_error_causes,
)
from pipelines.preprocess.fetch.guard_proxy import PrivateAddressGuardProxy
from pipelines.preprocess.fetch.host_limits import DownloadHostBusy, HostRateLimits
from pipelines.preprocess.fetch.plain_http import RetriesExhausted, SpeedLimiter, check_disk_error
from pipelines.preprocess.fetch.request import VideoDownloadRequest
from pipelines.preprocess.fetch.transport_config import DownloadTransportConfig

if TYPE_CHECKING:
    from yt_dlp import YoutubeDL
    from yt_dlp.extractor.common import _InfoDict as VideoInfo  # of the type stubs

_OWN_RETRIES = 1
"""yt-dlp itself retries each request; this is for a failure after that, with all pages requested again."""
_PROTOCOLS = "http,https,httpproxy,tls,tcp,crypto,data"
"""What ffmpeg may open for yt-dlp: a playlist may name files of this machine."""
_FACTS = ("extractor", "id", "format_id", "width", "height", "fps", "vcodec", "acodec")


class YtdlpLogger:
    """yt-dlp's logger; its errors come as exceptions, its warnings may hold the reason."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def debug(self, message: str) -> None:
        """Not kept: it repeats addresses, which may be signed."""

    def warning(self, message: str) -> None:
        self.warnings.append(message)

    def error(self, message: str) -> None:
        """Raised as DownloadError by yt-dlp itself."""


def download_with_ytdlp(
    address: VideoAddress,
    folder: Path,
    request: VideoDownloadRequest,
    settings: DownloadTransportConfig,
    hosts: HostRateLimits,
) -> tuple[Path, float, dict[str, Any]]:
    """-> the complete file in `folder`, the second of the recording it starts at, what yt-dlp chose.

    Raises Rejected, RetriesExhausted or DownloadHostBusy after all attempts, StoreError where this machine's
    disk is full.
    """
    between = settings.youtube_seconds_between if address.youtube else settings.seconds_between
    attempts = 0
    while True:
        log, pause = YtdlpLogger(), min(settings.pause * 2**attempts, settings.longest_pause)
        try:
            with hosts.use_slot(address.host, between):
                return _attempt(address, folder, request, settings, log)
        except (Rejected, DownloadHostBusy):
            raise
        except Exception as error:  # noqa: BLE001 - extractors raise anything; sorted or raised again below
            last, found = error, _classify(error, folder, address, log)
        text = sanitize_message(_error_text(last, address), proxy_url(settings.proxy_env))
        sentence = f"{address.public_url}: {text}"
        if found.is_final:
            raise Rejected(found.code, sentence) from last
        if found.code == BOT_ERROR_CODE:
            hosts.back_off(address.host, settings.bot_pause)
            rest = f"no further requests to {address.host} for {settings.bot_pause / 3600:g} h"
            raise DownloadHostBusy(f"{sentence}; {rest}") from last
        attempts += 1
        if attempts > min(settings.retries, _OWN_RETRIES):
            end = DownloadHostBusy if found.code == RATE_LIMIT_ERROR_CODE else RetriesExhausted
            raise end(f"{sentence}; gave up after {attempts} attempts") from last
        if found.code in (RATE_LIMIT_ERROR_CODE, FORBIDDEN_ERROR_CODE):
            hosts.back_off(address.host, found.after or pause)
        else:
            time.sleep(found.after or pause)


def _classify(error: Exception, folder: Path, address: VideoAddress, log: YtdlpLogger) -> ErrorClass:
    """Disk errors are raised: retrying does not help. So are errors that are not yt-dlp's."""
    from yt_dlp.utils import YoutubeDLError

    for one in walk_error_causes(error):
        check_disk_error(one, folder)
    if not isinstance(error, (YoutubeDLError, OSError, Transient)):
        raise error
    return classify_download_error(error, address.youtube, log.warnings)


def _attempt(
    address: VideoAddress,
    folder: Path,
    request: VideoDownloadRequest,
    settings: DownloadTransportConfig,
    log: YtdlpLogger,
) -> tuple[Path, float, dict[str, Any]]:
    from yt_dlp.postprocessor.ffmpeg import FFmpegPostProcessor

    fresh = folder / "ytdlp"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    params: Any = ytdlp_options(address, fresh, request, settings, log)

    def run() -> VideoInfo | None:
        # the downloader of sections asks for ffmpeg before it has any options; yt-dlp's own main does so too
        place: Any = FFmpegPostProcessor._ffmpeg_location
        place.set(ffmpeg_path())
        with _http_only()(params) as ydl:
            return ydl.extract_info(address.url, download=True)

    with _guard_proxy(address, settings) as guard:
        if guard is not None:
            params["proxy"] = guard.url
        try:
            info = contextvars.copy_context().run(run)
        except Exception as error:
            if guard is not None and guard.refusals:
                raise Rejected("unsupported_url", f"{address.public_url}: {guard.refusals[0]}") from error
            raise
    if not info:
        raise Transient(f"{address.public_url}: yt-dlp returned nothing")
    entries = [entry for entry in info.get("entries") or (info,) if entry]
    if not entries:
        raise Rejected("unsupported_url", f"{address.public_url} holds no video")
    return _move_video(fresh, folder, address), _offset(request), _info_fields(entries[0])


def ytdlp_options(
    address: VideoAddress,
    folder: Path,
    request: VideoDownloadRequest,
    settings: DownloadTransportConfig,
    log: YtdlpLogger,
) -> dict[str, Any]:
    """The parameters of YoutubeDL. A hole in a video would shift all that follows, so missing fragments end
    it."""
    pace = SpeedLimiter(None, settings.slowest, settings.timeout)
    params: dict[str, Any] = {
        "format": request.formats, "format_sort": list(request.format_sort), "merge_output_format": "mp4/mkv",
        "noplaylist": True, "playlist_items": "1:2", "outtmpl": {"default": "video.%(ext)s"},
        "paths": {"home": str(folder)}, "cachedir": str(folder.parent.parent / "ytdlp-cache"),
        "skip_unavailable_fragments": False, "retries": settings.retries,
        "fragment_retries": settings.retries, "extractor_retries": settings.retries,
        "retry_sleep_functions": {kind: lambda n: min(settings.pause * 2**n, settings.longest_pause)
                                  for kind in ("http", "fragment", "extractor")},
        "socket_timeout": settings.timeout, "sleep_interval_requests": settings.request_seconds_between,
        "ratelimit": settings.bytes_per_second, "max_filesize": request.max_bytes,
        "ffmpeg_location": ffmpeg_path(), "fixup": "detect_or_warn", "updatetime": False,
        "geo_bypass": False,  # no faked origin
        "js_runtimes": {name: {} for name in settings.javascript},
        "logger": log, "quiet": True, "noprogress": True, "color": {"stdout": "never", "stderr": "never"},
        "progress_hooks": [lambda status: pace.throttle(status.get("downloaded_bytes") or 0)
                           if status.get("status") == "downloading" else None],
        "match_filter": _reject_lists_and_streams,
        "external_downloader_args": {
            "ffmpeg_i": ["-rw_timeout", str(int(settings.timeout * 1e6)), "-protocol_whitelist", _PROTOCOLS],
        },
    }  # fmt: skip
    if address.youtube:
        params["allowed_extractors"] = ["youtube"]
    if settings.cookies:
        # a copy in memory: yt-dlp writes its jar back, and several processes would ruin the user's file
        try:
            params["cookiefile"] = io.StringIO(Path(settings.cookies).read_text())
        except OSError as error:
            message = f"{settings.cookies} cannot be read: {error.strerror}"
            raise UserError(f"runtime.download.cookies: {message}") from None
    if through := proxy_url(settings.proxy_env):
        params["proxy"] = through
    if request.section is not None:
        first, last = request.section
        params |= {
            "download_ranges": lambda _info, _ydl: [{"start_time": first, "end_time": last}],
            "force_keyframes_at_cuts": True,
            # the cut is encoded once more: near enough to lossless that crops do not show it
            "external_downloader_args": params["external_downloader_args"] | {
                "ffmpeg_o": ["-c:v", "libx264", "-crf", "12", "-preset", "veryfast", "-threads", "1",
                             "-c:a", "aac", "-b:a", "192k"],
            },
        }  # fmt: skip
    return params


def _reject_lists_and_streams(info: VideoInfo, *, incomplete: bool = False) -> None:
    """match_filter of yt-dlp: of several videos on a page none is the one meant; a live stream has no end."""
    if (info.get("n_entries") or 1) > 1:
        raise Rejected(
            "unsupported_url", f"{public_url(str(info.get('webpage_url')))} holds more than one video"
        )
    if not incomplete and (info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming")):
        raise Rejected("no_format", f"{info.get('extractor')}:{info.get('id')} is a live stream")


@contextmanager
def _guard_proxy(
    address: VideoAddress, settings: DownloadTransportConfig
) -> Iterator[PrivateAddressGuardProxy | None]:
    """None behind a proxy, which looks names up itself; there only addresses written out are checked."""
    if settings.proxy_env or any(name in getproxies() for name in ("http", "https", "all")):
        yield None
        return
    for name in (
        "no_proxy",
        "NO_PROXY",
    ):  # means nothing without a proxy, and would lead ffmpeg around this one
        os.environ.pop(name, None)
    with PrivateAddressGuardProxy(address.policy, settings.timeout) as guard:
        yield guard


def _http_only() -> type[YoutubeDL]:
    """A YoutubeDL that downloads from web servers alone: ffmpeg and rtmpdump would open what a site calls the
    address of its video, a file of this machine say, without a connection that could be checked."""

    from yt_dlp import YoutubeDL

    class HttpOnly(YoutubeDL):
        def dl(self, name: str, info: VideoInfo, subtitle: bool = False, test: bool = False) -> bool:
            for part in info.get("requested_formats") or (info,):
                if urlsplit(str(part.get("url"))).scheme not in ("http", "https"):
                    message = (
                        f"{public_url(str(info.get('webpage_url')))} names a video that is on no web server"
                    )
                    raise Rejected("unsupported_url", message)
            return super().dl(name, info, subtitle, test)

    return HttpOnly


def _move_video(fresh: Path, folder: Path, address: VideoAddress) -> Path:
    """The one finished file, under our name. Whole files only: yt-dlp calls others *.part or *.ytdl."""
    files = [f for f in fresh.iterdir() if f.is_file() and f.suffix not in (".part", ".ytdl", ".temp")]
    if not files:
        raise Rejected("too_large", f"{address.public_url} has more bytes than download.max_bytes")
    if len(files) > 1:
        raise Transient(f"{address.public_url}: yt-dlp left {len(files)} files, expected one")
    video = folder / "video"  # not plain http's name: that file may be continued
    files[0].replace(video)
    shutil.rmtree(fresh)
    return video


def _offset(request: VideoDownloadRequest) -> float:
    return float(request.section[0]) if request.section is not None else 0.0


def _info_fields(info: VideoInfo) -> dict[str, Any]:
    """What an info file would hold that says which of a site's versions this is, and how large the largest
    is: a source's boxes may be in pixels of that one."""
    facts = {name: info.get(name) for name in _FACTS}
    sizes = [
        (int(width), int(height))
        for one in info.get("formats") or ()
        if (width := one.get("width")) and (height := one.get("height")) and one.get("vcodec") != "none"
    ]
    if sizes:
        facts["largest_width"], facts["largest_height"] = max(sizes, key=lambda size: size[0] * size[1])
    return {name: value for name, value in facts.items() if isinstance(value, (str, int, float))}


def _error_text(error: BaseException, address: VideoAddress) -> str:
    """An extractor's own words: without the id before them, which may be a piece of a signed address, and
    without yt-dlp's advice to its users after them."""
    owns = (getattr(one, "orig_msg", "") for one in walk_error_causes(error))
    text = next((own for own in owns if own), str(error)).removeprefix("ERROR: ")
    for advice in ("; please report this issue", " Use --cookies", " Use --list-formats", " (caused by"):
        text = text.partition(advice)[0]
    query = urlsplit(address.url).query
    return text.replace(query, "...") if len(query) > 3 and not address.youtube else text
