"""Real yt-dlp exception types, raised the way yt-dlp raises them."""

import io
import sys

import pytest
from yt_dlp import YoutubeDL
from yt_dlp.networking import Response
from yt_dlp.networking.exceptions import HTTPError, IncompleteRead, ProxyError, SSLError, TransportError
from yt_dlp.utils import (
    ContentTooShortError,
    DownloadError,
    ExtractorError,
    GeoRestrictedError,
    UnavailableVideoError,
    UnsupportedError,
)

from pipelines.preprocess.fetch.classify_error import (
    BOT_ERROR_CODE,
    FORBIDDEN_ERROR_CODE,
    RATE_LIMIT_ERROR_CODE,
    TEMPORARY_ERROR_CODE,
    classify_download_error,
)


def as_raised(error):
    """What extract_info makes of it: a DownloadError that holds it."""
    ydl = YoutubeDL({"quiet": True, "no_warnings": True, "logger": Silent()})
    try:
        try:
            raise error
        except Exception as caught:  # noqa: BLE001 - as yt-dlp does
            ydl.report_error(str(caught))
    except DownloadError as wrapped:
        return wrapped
    raise AssertionError


class Silent:
    def debug(self, _):
        pass

    warning = error = debug


def status(number, headers=None):
    return HTTPError(Response(io.BytesIO(b""), "https://h.example/x", headers or {}, status=number))


def said(text, cause=None):
    return ExtractorError(text, expected=True, video_id="abcdefghijk", ie="youtube", cause=cause)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (said("Private video. Sign in if you've been granted access. Use --cookies"), "private"),
        (said("Video unavailable. This video is private"), "private"),
        (said("Video unavailable"), "removed"),
        (said("Video unavailable. This video has been removed by the uploader"), "removed"),
        (said("This video has been removed for violating YouTube's Terms of Service"), "removed"),
        (said("Video unavailable. This video is no longer available because the YouTube account associated "
              "with this video has been terminated."), "removed"),
        (said("This video is no longer available due to a copyright claim by Somebody"), "removed"),
        (GeoRestrictedError("The uploader has not made this video available in your country"), "geo_blocked"),
        (GeoRestrictedError("Nicht in deinem Land"), "geo_blocked"),
        (said("Video unavailable. The uploader has not made this video available in your country"),
         "geo_blocked"),
        (said("Sign in to confirm your age. This video may be inappropriate for some users. Use --cookies"),
         "needs_auth"),
        (said("Join this channel to get access to members-only content like this video"), "needs_auth"),
        (said("This video is only available for registered users. Use --cookies"), "needs_auth"),
        (said("Sign in to confirm you\u2019re not a bot. Use --cookies-from-browser or --cookies"),
        BOT_ERROR_CODE),
        (said("Sign in to confirm you're not a bot. Use --cookies-from-browser"), BOT_ERROR_CODE),
        (said("Try again. YouTube is requiring a captcha challenge before playback"), BOT_ERROR_CODE),
        (said("Video unavailable. This content isn't available, try again later. The current session has "
              "been rate-limited by YouTube for up to an hour"), RATE_LIMIT_ERROR_CODE),
        (said("Unable to download: HTTP Error 429: Too Many Requests", status(429)), RATE_LIMIT_ERROR_CODE),
        (said("Watch this video on YouTube. Playback on other websites has been disabled by the video owner"),
         "needs_auth"),
        (said("Video unavailable. Playback on other websites has been disabled by the video owner"),
         "needs_auth"),
        (said("This video has been age restricted"), "needs_auth"),
        (said("This live stream recording is not available."), "removed"),
        (said("This live event has ended."), "removed"),
        (said("This live event will begin in 3 days."), TEMPORARY_ERROR_CODE),
        (said("This content is not available on this country domain due to a legal complaint"),
         "geo_blocked"),
        (said("Video unavailable. This video is not available on this country domain due to a legal "
              "complaint from Somebody"), "geo_blocked"),
        (said("This video is not supported on this device"), "no_format"),
        (said("Requested format is not available. Use --list-formats"), "no_format"),
        (said("This video is DRM protected"), "no_format"),
        (UnsupportedError("https://h.example/x"), "unsupported_url"),
        (said("Unable to download webpage", status(404)), "not_found"),
        (said("Unable to download webpage", status(410)), "not_found"),
        (said("Unable to download webpage", status(401)), "needs_auth"),
        (said("Unable to download webpage", status(451)), "geo_blocked"),
        (said("Unable to download webpage", status(500)), TEMPORARY_ERROR_CODE),
        (said("Unable to download webpage", status(503)), TEMPORARY_ERROR_CODE),
        (TransportError("timed out"), TEMPORARY_ERROR_CODE),
        (IncompleteRead(10, 100), TEMPORARY_ERROR_CODE),
        (SSLError("handshake"), TEMPORARY_ERROR_CODE),
        (ProxyError("no route"), TEMPORARY_ERROR_CODE),
        (ContentTooShortError(10, 100), TEMPORARY_ERROR_CODE),
        (UnavailableVideoError(TimeoutError("only 3 bytes a second came")), TEMPORARY_ERROR_CODE),
        (ExtractorError("Unable to extract player version"), TEMPORARY_ERROR_CODE),  # the site changed
        (said("No video formats found!"), TEMPORARY_ERROR_CODE),
        (said("Something no table knows"), TEMPORARY_ERROR_CODE),
    ],
)  # fmt: skip
def test_failures_are_told_apart(error, code):
    assert classify_download_error(as_raised(error), youtube=True).code == code
    assert classify_download_error(error, youtube=True).code == code


def test_forbidden_is_a_limit_of_youtube_and_a_locked_door_elsewhere():
    assert classify_download_error(as_raised(status(403)), youtube=True).code == FORBIDDEN_ERROR_CODE
    assert not classify_download_error(as_raised(status(403)), youtube=True).is_final
    assert classify_download_error(as_raised(status(403)), youtube=False).code == "needs_auth"


def test_the_wait_a_site_asks_for_is_kept():
    assert classify_download_error(as_raised(status(429, {"Retry-After": "120"})), youtube=True).after == 120
    assert classify_download_error(as_raised(status(503, {"Retry-After": "7"})), youtube=False).after == 7


def test_missing_formats_after_a_broken_challenge_are_not_the_videos_fault():
    error = as_raised(said("Requested format is not available. Use --list-formats"))
    assert (
        classify_download_error(error, True, ["[youtube] x: n challenge solving failed: Some formats"]).code
        == TEMPORARY_ERROR_CODE
    )
    assert classify_download_error(error, True, ["something else"]).code == "no_format"


def test_an_earlier_failed_way_does_not_decide():
    """Python chains what was being handled; yt-dlp tries several clients for one video."""
    try:
        try:
            raise status(404)
        except HTTPError:
            raise TransportError("timed out")  # noqa: B904
    except TransportError:
        error = sys.exc_info()[1]
    assert classify_download_error(error, youtube=True).code == TEMPORARY_ERROR_CODE
