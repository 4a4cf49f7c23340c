"""What a probe finds: a TypedDict, because it is stored as JSON in the family of `download`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict


class Probe(TypedDict):
    """What `media.probe` finds in a file. Fields that are not required are missing from older stores."""

    width: int
    """As shown, after rotation, with square pixels."""
    height: int
    fps: float
    frames: int
    seconds: float
    """When the last frame ends, from the start of the file."""
    audio_rate: int
    """0 = no sound."""
    start: float
    """Time stamp that counts as second 0: the first of any stream."""
    begin: NotRequired[float]
    """Second at which the first frame is shown."""
    held: NotRequired[Sequence[Sequence[float]]]
    """[begin, end] in seconds of each frame that is shown for longer than LOST_FRAMES_GAP_SECONDS."""
    interlaced: NotRequired[bool]
    video_index: int
    audio_index: int
    """-1 = no sound."""
    transfer: str
    """"" unless the video has high dynamic range."""
    matrix: NotRequired[str]
    primaries: NotRequired[str]
    container: NotRequired[str]
    video_codec: NotRequired[str]
    sha256: NotRequired[str]
    """Of the file; this and what follows is added by stage `download`."""
    transport: NotRequired[str]
    offset: NotRequired[float]
    """Seconds of the recording at which the file starts."""
    origin: NotRequired[Mapping[str, int]]
    """Which of a site's versions it is: largest_width, largest_height."""
