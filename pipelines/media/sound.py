"""A span's sound on the clock of its frames, cut to the sample."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pipelines.media.clock import SAMPLES_PER_FRAME, SOUND_RATE, ticks_to_seconds
from pipelines.media.ffmpeg_process import (
    INPUT_OPTIONS,
    ffmpeg_input_name,
    ffmpeg_timeout,
    run_ffmpeg,
    shift_times_to_file_start,
)
from pipelines.media.timed_sound import SOUND_TIMESTAMP_TOLERANCE_SECONDS, decode_timed_sound_blocks

if TYPE_CHECKING:
    from pipelines.media.filters import FfmpegOutputNode, FilterStream
    from pipelines.media.probe_schema import Probe

DECODE_PREROLL_SECONDS = 1
"""Seconds decoded before a span and thrown away: the decoder and the resampler need what came before."""
MAX_SECONDS_AFTER_SPAN = 1
"""Seconds of sound with later stamps that end the search for a span's: one frame may have a damaged stamp."""
ASHOWINFO_LINE = re.compile(
    r"_ashowinfo_.* pts:(\S+) .* fmt:(\S+) .*chlayout:(.+) rate:(\d+) nb_samples:(\d+)"
)
"""A line of ffmpeg's log about a decoded frame; pts in samples."""


def read_sound(path: Path, probed: Probe, start: int, stop: int) -> np.ndarray:
    """Sound of ticks start..stop-1 -> (640 T,) float32 in [-1,1], 16 kHz mono; silence where there is none.

    Several channels: their mean by ffmpeg's matrix, scaled so that it cannot clip. Reading begins at a whole
    second, where the sample grids of all usual rates meet, so that a span has the samples that the whole
    would have; in Matroska, whose times are rounded to milliseconds, to within 0.5 ms.
    """
    samples = (stop - start) * SAMPLES_PER_FRAME
    if not probed["audio_rate"]:
        return np.zeros(samples, np.float32)
    begin, end = ticks_to_seconds(start, probed), ticks_to_seconds(stop, probed)
    read_from = max(0, math.floor(begin) - DECODE_PREROLL_SECONDS)
    data, log = run_ffmpeg(_resample_output(path, probed, read_from, end), ffmpeg_timeout(probed["seconds"]))
    if not _is_steady(log, probed["audio_rate"], read_from):
        return _place_by_stamps(path, probed, begin, samples)
    skipped = round((begin - read_from) * SOUND_RATE)  # below 0 where a part begins between two ticks
    sound = np.frombuffer(data, "<f4")[max(0, skipped) :]
    sound = np.concatenate([np.zeros(max(0, -skipped), np.float32), sound])
    rest = slice(len(sound) + round(SOUND_TIMESTAMP_TOLERANCE_SECONDS * SOUND_RATE), samples)
    if rest.start < samples and (placed := _place_by_stamps(path, probed, begin, samples))[rest].any():
        return placed  # a damaged stamp, later than the span, ended ffmpeg's reading
    return fit_sound_length(sound, samples)


def _resample_output(path: Path, probed: Probe, read_from: int, end: float) -> FfmpegOutputNode:
    """The ffmpeg-python output node of the sound from a whole second on; the log tells of every frame."""
    import ffmpeg

    reading: dict[str, Any] = {**INPUT_OPTIONS, "t": f"{end - read_from + 0.5:.3f}"}
    if read_from:
        reading["ss"] = str(read_from)
    sound = ffmpeg.input(ffmpeg_input_name(path), copyts=None, **reading)[str(probed["audio_index"])]
    stream = shift_times_to_file_start(cast("FilterStream", sound), "asetpts", probed).filter("ashowinfo")
    # fills a late start with silence; first_pts counts samples of the input
    stream = stream.filter(
        "aresample",
        SOUND_RATE,
        **{"async": 1, "first_pts": read_from * probed["audio_rate"], "rematrix_maxval": 1},
    )
    stream = stream.filter("aformat", channel_layouts="mono", sample_fmts="flt")
    return ffmpeg.output(stream, "pipe:", format="f32le", ar=SOUND_RATE, threads=1)


def _is_steady(log: str, rate: int, read_from: int) -> bool:
    """Whether ffmpeg's chain of filters put all sound where it belongs.

    It does if every frame has the rate that the file states and the form of the first, and begins where the
    one before it ends, and if reading began where it should.
    """
    frames = ASHOWINFO_LINE.findall(log)
    if not frames:
        return not read_from
    end = begin = next((int(pts) for pts, *_ in frames if pts != "NOPTS"), 0)
    for pts, *_, count in frames:
        if pts != "NOPTS" and abs(int(pts) - end) > SOUND_TIMESTAMP_TOLERANCE_SECONDS * rate:
            return False
        end += int(count)
    forms = {tuple(form) for _, *form, _ in frames}
    return (
        {int(own) for *_, own in forms} == {rate}
        and len(forms) == 1
        and (not read_from or begin <= (read_from + SOUND_TIMESTAMP_TOLERANCE_SECONDS) * rate)
    )


def _place_by_stamps(path: Path, probed: Probe, begin: float, samples: int) -> np.ndarray:
    """As `read_sound`, of sound that changes on the way or has holes; of an overlap, what came first."""
    read_from, first = max(0, math.floor(begin) - DECODE_PREROLL_SECONDS), round(begin * SOUND_RATE)
    sound, free = np.zeros(samples, np.float32), np.ones(samples, bool)
    after = 0
    for at, block in decode_timed_sound_blocks(
        path, probed, SOUND_RATE, "mono", read_from, "rematrix_maxval=1"
    ):
        if at >= first + samples:
            after += block.shape[1]
            if after > MAX_SECONDS_AFTER_SPAN * SOUND_RATE:
                break
            continue
        here = slice(max(0, at - first), max(0, at - first + block.shape[1]))
        new = block[0, max(0, first - at) :][: len(sound[here])]
        sound[here] = np.where(free[here], new, sound[here])
        free[here] = False
    return fit_sound_length(sound, samples)


def fit_sound_length(sound: np.ndarray, samples: int) -> np.ndarray:
    """Cut or padded with zeros to exactly so many samples, within [-1,1]."""
    out = np.zeros(samples, np.float32)
    out[: min(samples, len(sound))] = np.clip(sound[:samples], -1, 1)
    return out
