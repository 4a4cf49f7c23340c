"""The clock that clips share: 25 ticks a second, counted from the start of the recording."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from pipelines.media.probe_schema import Probe

T = TypeVar("T", float, np.ndarray)

FPS = 25
"""The clock of every clip: tick k shows the recording at k / 25 seconds."""
SOUND_RATE = 16_000
SAMPLES_PER_FRAME = SOUND_RATE // FPS
MAX_VIDEO_START_DELAY = 0.1
"""Seconds by which a picture may start after its sound without losing a tick: encoders delay one or the
other."""

LOST_FRAMES_GAP_SECONDS = 0.5
"""Seconds without a frame, beyond those that sampling leaves, from which a frame counts as held or the next
one as lost."""


def video_tick_range(probed: Probe) -> tuple[int, int]:
    """The ticks, first and one past the last, at which a probed file has a picture; at least one.

    A file that holds a part of its recording says with `offset` where it begins, one whose picture starts
    after its sound says so with `begin`.
    """
    offset, begin = probed.get("offset", 0.0), probed.get("begin", 0.0)
    first = math.ceil((offset + (begin if begin > MAX_VIDEO_START_DELAY else 0.0)) * FPS - 0.5 - 1e-6)
    return first, max(first + 1, round((offset + probed["seconds"]) * FPS))


def ticks_to_seconds(ticks: T, probed: Probe) -> T:
    """Ticks (a number or an array) -> seconds from the start of the file."""
    return ticks / FPS - probed.get("offset", 0.0)


def nearest_frames(times: np.ndarray, clock: np.ndarray) -> np.ndarray:
    """Index of the frame, of those at sorted `times`, nearest to each second of `clock`; the earlier one on a
    tie."""
    if len(times) < 2:
        return np.zeros(len(clock), int)
    right = np.clip(np.searchsorted(times, clock), 1, len(times) - 1)
    left = right - 1
    return np.where(clock - times[left] <= times[right] - clock + 1e-6, left, right)
