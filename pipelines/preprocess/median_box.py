"""HeadGAN's crop (its authors' detect_faces.py): one square a track, the median of the boxes of its frames.

The largest face of every frame counts. A frame without one takes the next frame's box that there is, after
the last one that. A track in which an edge of the box lies further apart in two frames than `max_drift`, in
means of the frame's sides, is dropped. The median box becomes as wide as high about its centre, and grows by
`increase` of its sides on each. Where the source gives tracks, they say when and, by their box, which face;
their own boxes are no crop here. Without tracks it is all of the recording, or what lies between scene cuts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from models.perception.interfaces import FaceDetector
from pipelines import media
from pipelines.errors import Rejected
from pipelines.preprocess.boxes import enlarge_box, largest_box, shrink_frame
from pipelines.preprocess.clips_config import ClipsConfig
from pipelines.preprocess.tracks import (
    DroppedTracks,
    Track,
    convert_source_tracks,
    find_scene_cuts,
    find_search_span,
    split_at_cuts,
    split_long_track,
)

if TYPE_CHECKING:
    from pipelines.media.probe_schema import Probe
    from pipelines.preprocess.sources.common.rows import AnnotatedFaceTrack

FRAMES_PER_DETECTION = 16
"""Shown to the detector at once."""


def find_median_box_tracks(
    path: Path,
    probed: Probe,
    settings: ClipsConfig,
    detector: FaceDetector,
    dropped: DroppedTracks,
    given: Sequence[AnnotatedFaceTrack] = (),
    cuts: Sequence[int] = (),
    span: Sequence[float] = (),
) -> list[Track]:
    """The tracks of a recording, each framed by its median box, in pieces of at most `max_frames`.

    given: the source's tracks, parted at the ticks `cuts`. span: without tracks, first and last second of the
    recording that count; none = all of it.
    """
    out: list[Track] = []
    for track in _tracks_to_frame(path, probed, settings, dropped, given, cuts, span):
        face = track.boxes[0] if len(given) else None
        found = detect_largest_faces(path, probed, settings, detector, (track.start, track.stop), face)
        framed = frame_by_median_box(track, found, probed, settings)
        if isinstance(framed, Rejected):
            dropped.add(track.frame_count, framed)
        else:
            out += split_long_track(framed, settings.max_frames)
    if not out:
        dropped.reject_recording()
    return out


def _tracks_to_frame(
    path: Path,
    probed: Probe,
    settings: ClipsConfig,
    dropped: DroppedTracks,
    given: Sequence[AnnotatedFaceTrack],
    cuts: Sequence[int],
    span: Sequence[float],
) -> list[Track]:
    """Tracks without a region, whose boxes tell which face, where the source does."""
    if len(given):
        whole = replace(settings, max_frames=sys.maxsize)  # pieces of a track share its box
        return convert_source_tracks(given, probed, whole, dropped, cuts)
    first, last, _ = find_search_span(span, probed)
    if settings.scene_cuts != "off":
        cuts = find_scene_cuts(path, probed, (first, last), settings)
    boxes = np.full((last - first, 4), np.nan, np.float32)
    return split_at_cuts(Track(first, last, boxes, np.full(4, np.nan), None), cuts)


def detect_largest_faces(
    path: Path,
    probed: Probe,
    settings: ClipsConfig,
    detector: FaceDetector,
    span: tuple[int, int],
    face: np.ndarray | None = None,
) -> np.ndarray:
    """The largest face in one of `detect_every` frames from tick span[0] to before span[1] -> (n,4) float32
    in pixels of the recording, NaN where there is none.

    face: box (4,) in which the face's centre must lie.
    """
    size, scale = shrink_frame(probed["width"], probed["height"], settings.detect_size)
    ticks = np.arange(span[0], span[1], settings.detect_every)
    boxes = np.full((len(ticks), 4), np.nan, np.float32)
    at = 0
    for frames in _batches(media.stream_frames_at_ticks(path, probed, size, None, ticks, [])):
        for found in detector.detect(frames):
            known = found[:, :4] * scale
            if face is not None:
                centres = (known[:, :2] + known[:, 2:]) / 2
                known = known[((centres >= face[:2]) & (centres <= face[2:])).all(1)]
            if len(known):
                boxes[at] = largest_box(known)
            at += 1
    return boxes


def _batches(frames: Iterator[tuple[int, np.ndarray]]) -> Iterator[np.ndarray]:
    """Frames, each overwritten once the next is asked for -> (n,H,W,3)."""
    some: list[np.ndarray] = []
    for _, frame in frames:
        some.append(frame.copy())
        if len(some) == FRAMES_PER_DETECTION:
            yield np.stack(some)
            some = []
    if some:
        yield np.stack(some)


def frame_by_median_box(
    track: Track, found: np.ndarray, probed: Probe, settings: ClipsConfig
) -> Track | Rejected:
    """found (n,4): boxes of one in `detect_every` of the track's frames, NaN where no face was seen -> the
    track with a box a frame and its region, or why it makes no clip."""
    seen = np.isfinite(found).all(1)
    if not seen.any():
        return Rejected("no_face", f"{settings.detector} sees no face in {len(found)} frames of the track")
    filled = fill_missing_boxes(found)
    drift = float(np.ptp(filled, axis=0).max()) / ((probed["width"] + probed["height"]) / 2)
    if drift > settings.max_drift:
        apart = f"an edge of the face's box lies {drift:.2f} of the frame apart in two frames"
        return Rejected("face_drifts", f"{apart}, more than clips.max_drift {settings.max_drift}")
    boxes = np.repeat(filled, settings.detect_every, axis=0)[: track.frame_count]
    region = median_box_region(filled, settings.increase)
    return Track(track.start, track.stop, boxes, region, float(seen.mean()))


def fill_missing_boxes(boxes: np.ndarray) -> np.ndarray:
    """boxes (n,4), NaN where there is none, at least one known -> those, each missing one the next that is
    known, or the last."""
    seen = np.flatnonzero(np.isfinite(boxes).all(1))
    nearest = np.searchsorted(seen, np.arange(len(boxes)))
    return boxes[seen[np.minimum(nearest, len(seen) - 1)]]


def median_box_region(boxes: np.ndarray, increase: float) -> np.ndarray:
    """boxes (T,4) -> (4,) float64: their median, as wide as it is high about its centre, each side moved out
    by `increase` of it."""
    box = np.median(boxes.astype(np.float64), axis=0)
    middle, half = (box[0] + box[2]) / 2, (box[3] - box[1]) / 2
    return enlarge_box(np.array([middle - half, box[1], middle + half, box[3]]), increase, "stretch")
