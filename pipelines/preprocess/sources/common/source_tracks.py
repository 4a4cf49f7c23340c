"""Tracks: where a source says a face is in a recording, and what follows from that.

The face stays within the box of a track (`rows.AnnotatedFaceTrack`) all its time. `grow` is 0 where the
source's boxes are crops. What a source cannot know reads 0:
  fps 0               the ticks are the recording's own frames
  width 0             only the height is known: both directions scale alike
  width 0, height 0   the box is in pixels of the recording, of which a copy may be a smaller version
                      (preprocess/box_frame.py finds out)
A frame of 1 x 1 means that the box is in shares of the frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from pipelines.preprocess.sources.common.rows import AnnotatedFaceTrack

MILLISECOND_TICK_RATE = 1000
"""The clock of sources that give seconds, in ticks a second."""
MAX_FACE_TRACK_END_SECONDS = 24 * 3600
"""Seconds; a track that ends later is a mistake."""
MAX_SIDE = 2**16
"""Pixels; no frame is wider or higher."""


def make_source_track(
    start: int, end: int, fps: float, size: tuple[int, int], box: Iterable[float], grow: float = 0.0
) -> AnnotatedFaceTrack:
    """size = width, height."""
    return {
        "start": start,
        "end": end,
        "fps": float(fps),
        "width": size[0],
        "height": size[1],
        "box": [float(edge) for edge in box],
        "grow": float(grow),
    }


def scale_track_box(track: AnnotatedFaceTrack, width: int, height: int) -> list[float]:
    """The box in pixels of a copy of the recording that is width x height."""
    if not track["height"]:
        return [float(edge) for edge in track["box"]]
    down = height / track["height"]
    across = width / track["width"] if track["width"] else down
    return [edge * zoom for edge, zoom in zip(track["box"], (across, down) * 2, strict=True)]


def track_time_span(track: AnnotatedFaceTrack, fps: float) -> tuple[float, float]:
    """First and last second of the track in a recording of `fps` frames a second."""
    clock = track["fps"] or fps
    return track["start"] / clock, track["end"] / clock


def find_tracks_time_span(tracks: Sequence[AnnotatedFaceTrack]) -> list[float]:
    """[first, last] seconds that the tracks need; [] = all of the recording, or not known."""
    if not tracks or not all(track["fps"] for track in tracks):
        return []
    ends = [track_time_span(track, 0) for track in tracks]
    return [min(first for first, _ in ends), max(last for _, last in ends)]


def overlapping_tracks(
    tracks: Sequence[AnnotatedFaceTrack],
) -> list[tuple[AnnotatedFaceTrack, AnnotatedFaceTrack]]:
    """Neighbours in the order of their starts of which the second begins before the first ends."""
    # where the frame rate is not known it is one for all tracks of a recording, so any number orders them
    ordered = sorted(tracks, key=lambda track: track_time_span(track, 25))
    return [
        (one, next_one)
        for one, next_one in pairwise(ordered)
        if track_time_span(next_one, 25)[0] < track_time_span(one, 25)[1] - 1e-6
    ]


def sort_tracks(tracks: Iterable[AnnotatedFaceTrack]) -> list[AnnotatedFaceTrack]:
    """Sorted by time, then box: the order in which they were listed must not matter."""
    return sorted(tracks, key=lambda track: (*track_time_span(track, 25), track["box"]))


# --- boxes over time ----------------------------------------------------------------------------------------
def find_tube_spans(
    boxes: np.ndarray, iou: float, longest: int, inclusive: bool = False
) -> Iterator[tuple[int, int]]:
    """Boxes (n,4) of frames in a row -> first and last + 1 of each tube, by the standard's rule: a tube ends
    where a box overlaps the tube's FIRST box by less than `iou`, and after `longest` frames."""
    begin = 0
    while begin < len(boxes):
        apart = box_iou(boxes[begin], boxes[begin : begin + longest], inclusive) < iou
        count = int(apart.argmax()) if apart.any() else len(apart)
        yield begin, begin + count
        begin += count


def box_iou(a: np.ndarray, b: np.ndarray, inclusive: bool = False) -> Any:
    """Intersection over union of a box (4,) and others (...,4) -> (...). inclusive: right and bottom name the
    last pixel inside."""
    one = 1.0 if inclusive else 0.0
    sides = np.minimum(a[2:], b[..., 2:]) - np.maximum(a[:2], b[..., :2]) + one
    shared = np.maximum(sides, 0).prod(-1)
    return shared / ((a[2:] - a[:2] + one).prod() + (b[..., 2:] - b[..., :2] + one).prod(-1) - shared)


def box_union(boxes: np.ndarray) -> np.ndarray:
    """(n,4) -> (4,) float64."""
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)]).astype(np.float64)
