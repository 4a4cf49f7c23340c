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
        LOST_FRAMES_GAP_SECONDS,
        SAMPLES_PER_FRAME,
        SOUND_RATE,
        nearest_frames,
        ticks_to_seconds,
        video_tick_range,
    )
    from pipelines.media.container import probe_file
    from pipelines.media.decoding import (
        FrameResults,
        check_frames_complete,
        map_frame_batches,
        read_frames,
        read_frames_at_ticks,
        stream_frames,
        stream_frames_at_ticks,
    )
    from pipelines.media.ffmpeg_process import (
        FfmpegOutputPipe,
        ffmpeg_path,
        ffmpeg_version,
        open_as_local_file,
        packaged_ffmpeg_reason,
        run_ffmpeg,
    )
    from pipelines.media.sound import fit_sound_length, read_sound

__all__ = [
    "FPS",
    "LOST_FRAMES_GAP_SECONDS",
    "SAMPLES_PER_FRAME",
    "SOUND_RATE",
    "FfmpegOutputPipe",
    "FrameResults",
    "check_frames_complete",
    "ffmpeg_path",
    "ffmpeg_version",
    "fit_sound_length",
    "map_frame_batches",
    "nearest_frames",
    "open_as_local_file",
    "packaged_ffmpeg_reason",
    "probe_file",
    "read_frames",
    "read_frames_at_ticks",
    "read_sound",
    "run_ffmpeg",
    "stream_frames",
    "stream_frames_at_ticks",
    "ticks_to_seconds",
    "video_tick_range",
]

_MODULES = {
    "clock": (
        "FPS",
        "LOST_FRAMES_GAP_SECONDS",
        "SAMPLES_PER_FRAME",
        "SOUND_RATE",
        "nearest_frames",
        "ticks_to_seconds",
        "video_tick_range",
    ),
    "container": ("probe_file",),
    "decoding": (
        "FrameResults",
        "check_frames_complete",
        "map_frame_batches",
        "read_frames",
        "read_frames_at_ticks",
        "stream_frames",
        "stream_frames_at_ticks",
    ),
    "ffmpeg_process": (
        "FfmpegOutputPipe",
        "open_as_local_file",
        "packaged_ffmpeg_reason",
        "ffmpeg_path",
        "ffmpeg_version",
        "run_ffmpeg",
    ),
    "sound": (
        "fit_sound_length",
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
