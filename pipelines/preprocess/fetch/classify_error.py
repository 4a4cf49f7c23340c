"""Whether a failure of yt-dlp is permanent (a property of the video) or temporary.

yt-dlp raises few types and puts the site's message into its own, so most of the table is text; the fragments
are those of yt-dlp 2026.10.26 and of the sites' messages that it repeats. A failure that nothing here
knows counts as temporary: a site that changed its pages must not empty a corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.preprocess.fetch.plain_http import parse_retry_after

BOT_ERROR_CODE = "bot"
"""The site suspects a robot: this machine must not connect to it for hours."""
RATE_LIMIT_ERROR_CODE = "busy"
"""The site wants fewer requests from this machine."""
FORBIDDEN_ERROR_CODE = "forbidden"
"""YouTube's 403: one of its limits like RATE_LIMIT_ERROR_CODE, or this video alone."""
TEMPORARY_ERROR_CODE = "temporary"
"""Anything that may be otherwise tomorrow."""

# The first fragment found decides, so that "Private video. Sign in if ..." is private, and a check for robots
# ("Sign in to confirm you're not a bot") is not a video that needs an account.
_FRAGMENTS = (
    ("not a bot", BOT_ERROR_CODE),
    ("captcha", BOT_ERROR_CODE),
    ("unusual traffic", BOT_ERROR_CODE),
    ("content isn't available, try again later", RATE_LIMIT_ERROR_CODE),
    ("rate-limited", RATE_LIMIT_ERROR_CODE),
    ("too many requests", RATE_LIMIT_ERROR_CODE),
    ("private video", "private"),
    ("video is private", "private"),
    ("available in your country", "geo_blocked"),
    ("available in your location", "geo_blocked"),
    ("available from your location", "geo_blocked"),
    ("blocked it in your country", "geo_blocked"),
    ("geo restrict", "geo_blocked"),
    ("not available on this country domain", "geo_blocked"),
    ("confirm your age", "needs_auth"),
    ("age-restricted", "needs_auth"),
    ("age restricted", "needs_auth"),
    ("playback on other websites has been disabled", "needs_auth"),  # only the embedded player was left
    ("inappropriate for some users", "needs_auth"),
    ("members-only", "needs_auth"),
    ("available to this channel's members", "needs_auth"),
    ("music premium", "needs_auth"),
    ("requires payment", "needs_auth"),
    ("requires purchase", "needs_auth"),
    ("login required", "needs_auth"),
    ("only available for registered users", "needs_auth"),
    ("use --cookies", "needs_auth"),
    ("account associated with this video has been terminated", "removed"),
    ("account has been terminated", "removed"),
    ("closed their youtube account", "removed"),
    ("removed by the uploader", "removed"),
    ("has been removed", "removed"),
    ("removed for violating", "removed"),
    ("copyright claim", "removed"),
    ("copyright grounds", "removed"),
    ("no longer available", "removed"),
    ("video does not exist", "removed"),
    ("live stream recording is not available", "removed"),
    ("live event has ended", "removed"),  # for some hours, of a stream that will have a recording too
    ("video unavailable", "removed"),
    ("video is unavailable", "removed"),
    ("video is not available", "removed"),
    ("requested format is not available", "no_format"),
    ("not supported on this device", "no_format"),
    ("drm protected", "no_format"),
    ("unsupported url", "unsupported_url"),
    ("is not a valid url", "unsupported_url"),
)  # fmt: skip
_OUTDATED = ("only images are available", "challenge solving failed", "signature extraction failed",
             "nsig extraction failed", "po token", "missing a url")  # fmt: skip
"""Warnings after which a lack of formats is yt-dlp's (old, or without JavaScript), not the video's."""
_STATUS = {404: "not_found", 410: "not_found", 401: "needs_auth", 407: "needs_auth", 451: "geo_blocked",
           429: RATE_LIMIT_ERROR_CODE}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ErrorClass:
    code: str
    """A reject code, or one of the four above."""
    after: float = 0.0
    """Seconds of its Retry-After header, 0 without one."""

    @property
    def is_final(self) -> bool:
        return self.code not in (
            BOT_ERROR_CODE,
            RATE_LIMIT_ERROR_CODE,
            FORBIDDEN_ERROR_CODE,
            TEMPORARY_ERROR_CODE,
        )


def classify_download_error(error: BaseException, youtube: bool, warnings: Sequence[str] = ()) -> ErrorClass:
    """error: what YoutubeDL.extract_info raised. youtube: whether the site is YouTube, whose 403 is one of
    its limits; elsewhere 403 is a locked door. warnings: those that yt-dlp logged before it failed."""
    from yt_dlp.networking.exceptions import HTTPError, TransportError
    from yt_dlp.utils import ContentTooShortError, GeoRestrictedError, UnsupportedError

    chain = list(walk_error_causes(error))
    for one in chain:
        if isinstance(one, GeoRestrictedError):
            return ErrorClass("geo_blocked")
        if isinstance(one, UnsupportedError):
            return ErrorClass("unsupported_url")
    text = " ".join(str(one) for one in chain).lower().replace("\u2019", "'")
    for fragment, code in _FRAGMENTS:
        if fragment in text:
            outdated = code == "no_format" and any(
                w in warning.lower() for warning in warnings for w in _OUTDATED
            )
            return ErrorClass(TEMPORARY_ERROR_CODE if outdated else code, _wait(chain))
    for one in chain:
        if isinstance(one, HTTPError):
            if one.status == 403:
                return ErrorClass(FORBIDDEN_ERROR_CODE if youtube else "needs_auth")
            return ErrorClass(_STATUS.get(one.status, TEMPORARY_ERROR_CODE), _wait(chain))
        if isinstance(one, (TransportError, ContentTooShortError, OSError)):
            return ErrorClass(TEMPORARY_ERROR_CODE)
    return ErrorClass(TEMPORARY_ERROR_CODE)


def _wait(chain: Sequence[BaseException]) -> float:
    """Seconds of a Retry-After header."""
    responses = (getattr(one, "response", None) for one in chain)
    return max(
        (parse_retry_after(response.headers) for response in responses if response is not None), default=0.0
    )


def walk_error_causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all it wraps: DownloadError.exc_info, ExtractorError.cause, Python's own cause. Not the
    context: yt-dlp tries several ways, and a way that failed before is not why this one did."""
    queue: list[BaseException | None] = [error]
    seen: set[int] = set()
    while queue:
        one = queue.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        exc_info: Any = getattr(one, "exc_info", None) or (None, None, None)
        queue += [exc_info[1], getattr(one, "cause", None), one.__cause__]
