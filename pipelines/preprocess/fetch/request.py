"""What is asked of the transports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoDownloadRequest:
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
