"""Types of ffmpeg-python, which declares none: what its streams and outputs are asked for here."""

from __future__ import annotations

from typing import Protocol


class FilterStream(Protocol):
    """A stream of a filter graph."""

    def filter(self, filter_name: str, *args: object, **options: object) -> FilterStream:
        """The stream after one more of ffmpeg's filters."""
        ...


class FfmpegOutputNode(Protocol):
    """What a filter graph is written to."""

    def global_args(self, *args: str) -> FfmpegOutputNode:
        """With further options of the command line."""
        ...
