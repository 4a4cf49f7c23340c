"""A span's sound on the clock of its frames, cut to the sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.preprocess.media.clock import SAMPLES_A_FRAME, SOUND_RATE, seconds_of
from pipelines.preprocess.media.process import INPUT, from_zero, patience, run_ffmpeg

LEAD = 1
"""Seconds decoded before a span and thrown away: the decoder and the resampler need what came before."""


def read_sound(path: Path, probed: Mapping[str, Any], start: int, stop: int) -> np.ndarray:
    """Sound of ticks start..stop-1 -> (640 T,) float32 in [-1,1], 16 kHz mono; silence where there is none.

    Several tracks: the first. Several channels: their mean by ffmpeg's matrix, scaled so that it cannot clip.
    Reading begins at a whole second, where the sample grids of all usual rates meet, so that a span has the
    samples that the whole would have; in Matroska, whose times are rounded to milliseconds, to within 0.5 ms.
    """
    import ffmpeg

    wanted = (stop - start) * SAMPLES_A_FRAME
    if not probed["audio_rate"]:
        return np.zeros(wanted, np.float32)
    begin, end = seconds_of(start, probed), seconds_of(stop, probed)
    whole = max(0, math.floor(begin) - LEAD)
    reading: dict[str, Any] = {**INPUT, "t": f"{end - whole + 0.5:.3f}"}
    if whole:
        reading["ss"] = str(whole)
    sound = ffmpeg.input(str(path), copyts=None, **reading)[str(probed.get("audio_index", "a:0"))]
    stream = from_zero(sound, "asetpts", probed)
    # fills holes and a late start with silence; first_pts counts samples of the input
    stream = stream.filter(
        "aresample",
        SOUND_RATE,
        **{"async": 1, "first_pts": whole * probed["audio_rate"], "rematrix_maxval": 1},
    )
    stream = stream.filter("aformat", channel_layouts="mono", sample_fmts="flt")
    output = ffmpeg.output(stream, "pipe:", format="f32le", ar=SOUND_RATE, threads=1)
    data, _ = run_ffmpeg(output, patience(probed["seconds"]))
    skipped = round((begin - whole) * SOUND_RATE)  # below 0 where a part begins between two ticks
    sound = np.frombuffer(data, "<f4")[max(0, skipped) :]
    return fit_length(np.concatenate([np.zeros(max(0, -skipped), np.float32), sound]), wanted)


def fit_length(sound: np.ndarray, samples: int) -> np.ndarray:
    """Cut or padded with zeros to exactly so many samples, within [-1,1]."""
    out = np.zeros(samples, np.float32)
    out[: min(samples, len(sound))] = np.clip(sound[:samples], -1, 1)
    return out
