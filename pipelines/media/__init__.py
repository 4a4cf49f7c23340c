"""Reading video and sound: what a file holds, its frames by timestamp, its sound on the same clock.

Decoding runs in an ffmpeg process with a time-out, so that a broken file cannot take a worker with it;
probing demuxes with PyAV, because the ffmpeg wheel brings no ffprobe. Times are seconds from the start of the
file; ticks count the 25 fps clock of the whole recording, of which a file may hold a part.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.media.clock import (
        FPS,
        LONGEST_HOLE,
        SAMPLES_A_FRAME,
        SOUND_RATE,
        nearest,
        seconds_of,
        ticks_of,
    )
    from pipelines.media.container import probe
    from pipelines.media.decoding import (
        FrameResults,
        check_complete,
        map_frames,
        read_frames,
        read_ticks,
        stream_frames,
        stream_ticks,
    )
    from pipelines.media.process import (
        FfmpegPipe,
        as_file,
        ffmpeg_instead,
        ffmpeg_path,
        ffmpeg_version,
        run_ffmpeg,
    )
    from pipelines.media.sound import fit_length, read_sound

__all__ = [
    "FPS",
    "LONGEST_HOLE",
    "SAMPLES_A_FRAME",
    "SOUND_RATE",
    "FfmpegPipe",
    "FrameResults",
    "as_file",
    "check_complete",
    "ffmpeg_instead",
    "ffmpeg_path",
    "ffmpeg_version",
    "fit_length",
    "map_frames",
    "nearest",
    "probe",
    "read_frames",
    "read_sound",
    "read_ticks",
    "run_ffmpeg",
    "seconds_of",
    "stream_frames",
    "stream_ticks",
    "ticks_of",
]

_MODULES = {
    "clock": (
        "FPS",
        "LONGEST_HOLE",
        "SAMPLES_A_FRAME",
        "SOUND_RATE",
        "nearest",
        "seconds_of",
        "ticks_of",
    ),
    "container": ("probe",),
    "decoding": (
        "FrameResults",
        "check_complete",
        "map_frames",
        "read_frames",
        "read_ticks",
        "stream_frames",
        "stream_ticks",
    ),
    "process": (
        "FfmpegPipe",
        "as_file",
        "ffmpeg_instead",
        "ffmpeg_path",
        "ffmpeg_version",
        "run_ffmpeg",
    ),
    "sound": (
        "fit_length",
        "read_sound",
    ),
}


def __getattr__(name: str) -> object:
    """Imports what is asked for and no more: `plan` wants the version of ffmpeg, and no decoder."""
    for module, names in _MODULES.items():
        if name in names:
            found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
