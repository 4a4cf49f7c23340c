"""What a failure of yt-dlp means: the video's own end (an answer), or a bad moment (none).

yt-dlp raises few types and puts the site's words into the message, so most of the table is text; the
fragments stand in yt-dlp 2026.10.26 or in what sites say through it. A failure that nothing here
knows is not taken for an answer: a site that changed its pages must not empty a corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.preprocess.fetch.plain_http import retry_after

BOT = "bot"
"""The site wants to know whether we are a robot: it is this machine that must rest, for hours."""
BUSY = "busy"
"""The site wants fewer requests from this machine."""
REFUSED = "refused"
"""YouTube's 403: one of its limits like BUSY, or this video alone."""
FOR_NOW = "for_now"
"""Anything that may be otherwise tomorrow."""

# The first fragment found decides, so that "Private video. Sign in if ..." is private, and a check for robots
# ("Sign in to confirm you're not a bot") is not a video that needs an account.
_SAID = (
    ("not a bot", BOT),
    ("captcha", BOT),
    ("unusual traffic", BOT),
    ("content isn't available, try again later", BUSY),
    ("rate-limited", BUSY),
    ("too many requests", BUSY),
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
    ("playback on other websites has been disabled", "needs_auth"),  # said where only embedding was left
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
           429: BUSY}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    code: str
    """A reject code, or BOT, BUSY, REFUSED, FOR_NOW."""
    after: float = 0.0
    """Seconds the site asked us to wait, if it did."""

    @property
    def final(self) -> bool:
        return self.code not in (BOT, BUSY, REFUSED, FOR_NOW)


def verdict(error: BaseException, youtube: bool, warnings: Sequence[str] = ()) -> Verdict:
    """error: what YoutubeDL.extract_info raised. youtube: whether the site is YouTube, whose 403 is one of
    its limits; elsewhere 403 is a locked door. warnings: what yt-dlp said before it gave up."""
    from yt_dlp.networking.exceptions import HTTPError, TransportError
    from yt_dlp.utils import ContentTooShortError, GeoRestrictedError, UnsupportedError

    chain = list(chained(error))
    for one in chain:
        if isinstance(one, GeoRestrictedError):
            return Verdict("geo_blocked")
        if isinstance(one, UnsupportedError):
            return Verdict("unsupported_url")
    text = " ".join(str(one) for one in chain).lower().replace("\u2019", "'")
    for fragment, code in _SAID:
        if fragment in text:
            outdated = code == "no_format" and any(w in said.lower() for said in warnings for w in _OUTDATED)
            return Verdict(FOR_NOW if outdated else code, _wait(chain))
    for one in chain:
        if isinstance(one, HTTPError):
            if one.status == 403:
                return Verdict(REFUSED if youtube else "needs_auth")
            return Verdict(_STATUS.get(one.status, FOR_NOW), _wait(chain))
        if isinstance(one, (TransportError, ContentTooShortError, OSError)):
            return Verdict(FOR_NOW)
    return Verdict(FOR_NOW)


def _wait(chain: Sequence[BaseException]) -> float:
    """What a Retry-After header asked for."""
    responses = (getattr(one, "response", None) for one in chain)
    return max((retry_after(response.headers) for response in responses if response is not None), default=0.0)


def chained(error: BaseException) -> Iterator[BaseException]:
    """The error and all it wraps: DownloadError.exc_info, ExtractorError.cause, Python's own cause. Not the
    context: yt-dlp tries several ways, and a way that failed before is not why this one did."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        exc_info: Any = getattr(one, "exc_info", None) or (None, None, None)
        waiting += [exc_info[1], getattr(one, "cause", None), one.__cause__]
