"""Faces over time: the tracks that a source gives, and those found by detecting and linking.

Two sets of rules are here; HeadGAN's is in median_box.py. `steady` is our own: detections grown by a margin
are linked by their overlap with a track's first box, smoothed, and framed by a square about their union.
`voxceleb` is that of the published cropper (video-preprocessing): plain boxes in inclusive pixels, a new tube
wherever a box overlaps the tube's first by less than `iou`, the union grown by `increase` of its sides, edges
cut to whole pixels. A source's tracks have one box each, the union already (`sources/voxceleb.py` makes tubes
of the published boxes); they grow by what the track says.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from models.perception.interfaces import FaceDetector, FaceEmbedder
from pipelines import media
from pipelines.errors import Rejected
from pipelines.media import FPS
from pipelines.preprocess.boxes import enlarge_box, median_filter_boxes, pad_box, shrink_frame
from pipelines.preprocess.clips_config import ClipsConfig
from pipelines.preprocess.sources.common.source_tracks import (
    box_iou,
    box_union,
    find_tube_spans,
    scale_track_box,
    track_time_span,
)

if TYPE_CHECKING:
    from pipelines.media.probe_schema import Probe
    from pipelines.preprocess.sources.common.rows import AnnotatedFaceTrack

T = TypeVar("T")
EMBEDDED_MAX_YAW = 40.0
"""Degrees by the mesh, some 45 of the head's: rendered heads are .35 from their own front there and .44 from
others', and .57 and .59 at 70."""
SCENE_THUMBNAIL_SIZE = 16
SCENE_CUT_THRESHOLD = 8.0
"""Mean difference in grey levels of two thumbnails of one side, at least, for a change to be a cut."""


@dataclass(slots=True)
class Track:
    """A face over ticks start..stop-1 of the recording's 25 fps clock."""

    start: int
    stop: int
    boxes: np.ndarray
    """(stop-start, 4) float32, the face in pixels of the recording."""
    region: np.ndarray
    """(4,) what becomes the frame, before it is fitted into the recording."""
    detected: float | None
    """Share of the sampled frames in which the detector saw this face; None for tracks of the source."""
    face: int = 0
    """0 for a recording's main face; others are numbered from 1."""

    @property
    def frame_count(self) -> int:
        return self.stop - self.start


class DroppedTracks:
    """The tracks of a recording that make no clip, and why."""

    def __init__(self) -> None:
        self._reasons: list[tuple[int, Rejected]] = []

    def add(self, length: int, reason: Rejected) -> None:
        self._reasons.append((length, reason))

    def count_by_code(self) -> dict[str, int]:
        """Reject code -> tracks."""
        return dict(sorted(Counter(reason.code for _, reason in self._reasons).items()))

    def reject_recording(self) -> None:
        """The recording has no clip: it is rejected for the reason of its longest track."""
        raise max(self._reasons, key=lambda one: (one[0], one[1].code, one[1].sentence))[1]


# --- from the source ----------------------------------------------------------------------------------------
def convert_source_tracks(
    tracks: Sequence[AnnotatedFaceTrack],
    probed: Probe,
    settings: ClipsConfig,
    dropped: DroppedTracks,
    cuts: Sequence[int] = (),
) -> list[Track]:
    """The source's tracks on the 25 fps clock and in pixels of this copy of the recording; those that lie
    outside of it are `dropped`.

    cuts: ticks at which tracks part because the scene changes.
    """
    first, last = media.video_tick_range(probed)
    out: list[Track] = []
    for track in tracks:
        begin, end = track_tick_range(track, probed)
        start, stop = max(begin, first), min(end, last)
        if stop <= start:  # such as a copy of the video that ends before the track begins
            span = f"a track from tick {begin} to {end} of a recording from {first} to {last}"
            dropped.add(end - begin, Rejected("tracks_outside", span))
            continue
        box = np.array(scale_track_box(track, probed["width"], probed["height"]))
        grow = track.get("grow", 0.0)  # tables that were pinned earlier have none
        region = enlarge_box(box, grow, settings.aspect)
        boxes = np.tile(box, (stop - start, 1)).astype(np.float32)
        parts = split_at_cuts(Track(start, stop, boxes, region, None), cuts)
        out += [piece for part in parts for piece in split_long_track(part, settings.max_frames)]
    if not out:
        raise Rejected(
            "tracks_outside",
            f"none of {len(tracks)} tracks has a frame between ticks {first} and {last} of the recording",
        )
    return out


def track_tick_range(track: AnnotatedFaceTrack, probed: Probe) -> tuple[int, int]:
    """First tick of a source's track and the one past its last: source frame i is in it iff start <= i < end,
    and tick k shows second k / 25."""
    begin, end = track_time_span(track, probed["fps"])
    return math.ceil(begin * FPS - 1e-6), math.ceil(end * FPS - 1e-6)


# --- found by a detector ------------------------------------------------------------------------------------
@dataclass(slots=True)
class FrameFaces:
    """What is kept of a frame that the detector was shown."""

    boxes: np.ndarray
    """(n,4) float32, pixels of the recording."""
    thumb: np.ndarray
    """(16,16) float32 grey levels."""
    faces: np.ndarray | None
    """(n,D) embeddings, of some frames only."""


class FaceScanner:
    """Shows frames to the detector and, now and then, their faces to the embedder."""

    def __init__(
        self, detector: FaceDetector, embedder: FaceEmbedder | None, embed_every: int, scale: np.ndarray
    ):
        self._detector, self._embedder = detector, embedder
        self._every, self._scale, self._seen = embed_every, scale, 0

    def __call__(self, frames: np.ndarray) -> list[FrameFaces]:
        """frames (n,H,W,3) uint8 -> what is kept of each."""
        out = []
        for frame, found in zip(frames, self._detector.detect(frames), strict=True):
            faces = None
            if self._embedder is not None and self._seen % self._every == 0 and len(found):
                embedded = np.repeat(frame[None], len(found), axis=0)
                faces = self._embedder.embed(embedded, found[:, :4], max_yaw=EMBEDDED_MAX_YAW)
            out.append(FrameFaces(found[:, :4] * self._scale, grey_thumbnail(frame), faces))
            self._seen += 1
        return out


def detect_tracks(
    path: Path,
    probed: Probe,
    settings: ClipsConfig,
    detector: FaceDetector,
    embedder: FaceEmbedder | None = None,
    span: Sequence[float] = (),
) -> list[Track]:
    """Detect, part at cuts and changes of identity, link, interpolate, smooth. Raises Rejected no_face when
    nothing is seen.

    span: first and last second of the recording that are searched; none = all of it.
    """
    first, last, seconds = find_search_span(span, probed)
    size, scale = shrink_frame(probed["width"], probed["height"], settings.detect_size)
    every = max(1, round(settings.detect_every * probed["fps"] / FPS))
    embed_every = max(1, round(settings.identity_every * probed["fps"] / FPS / every))
    scanner = FaceScanner(detector, embedder, embed_every, scale)
    change = settings.scene_change if settings.scene_cuts != "off" else 0.0
    seen = media.map_frame_batches(path, probed, size, every, scanner, span=seconds, change=change)
    begin, end = seconds or (0.0, probed["seconds"])
    media.check_frames_complete(seen.times, max(begin, probed.get("begin", 0.0)), end, every, probed)
    cuts = find_lasting_cuts(seen, [one.thumb for one in seen.results], probed)
    cuts = sorted(
        {*cuts, *(edge for span in find_frozen_spans(probed) for edge in span if first < edge < last)}
    )
    ticks = np.round((seen.times + probed.get("offset", 0.0)) * FPS).astype(int)
    frames_seen = seen.results
    if seconds:  # what was read holds a margin on either side
        inside = np.flatnonzero((ticks >= first) & (ticks < last))
        frames_seen, ticks = [frames_seen[n] for n in inside], ticks[inside]
    if not any(len(one.boxes) for one in frames_seen):
        raise Rejected(
            "no_face", f"{detector.name} sees no face in {len(frames_seen)} frames, one in {every}"
        )
    tracks: list[Track] = []
    for chain in link_detections([one.boxes for one in frames_seen], ticks, settings, cuts):
        for part in split_at_identity_changes(
            chain, [one.faces for one in frames_seen], settings.identity_distance
        ):
            tracks += _tracks_of(part, ticks, [first, last, *cuts], settings)
    return _main_tracks(tracks) if settings.faces == "largest" else _number_faces(tracks)


def find_search_span(span: Sequence[float], probed: Probe) -> tuple[int, int, tuple[float, float] | None]:
    """Seconds of the recording -> the first tick of them that the file has, the one past the last, and both
    in seconds of the file; None where that is all of it."""
    first, last = ends = media.video_tick_range(probed)
    if len(span):
        first = max(first, math.ceil(span[0] * FPS - 1e-6))
        last = min(last, math.ceil(span[1] * FPS - 1e-6))
    if first >= last:
        named = f"the source names seconds {span[0]:g} to {span[1]:g} of the recording"
        raise Rejected("span_outside", f"{named}; the file has {ends[0] / FPS:g} to {ends[1] / FPS:g}")
    if (first, last) == ends:
        return first, last, None
    begin, end = (media.ticks_to_seconds(tick, probed) for tick in (first, last))
    return first, last, (max(0.0, begin), end)


@dataclass(slots=True)
class FaceTracklet:
    """Detections of one face: the samples they came from, which of each sample's boxes, and the boxes."""

    samples: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)


def link_detections(
    detections: Sequence[np.ndarray], ticks: np.ndarray, settings: ClipsConfig, cuts: Sequence[int] = ()
) -> list[FaceTracklet]:
    """Boxes (n,4) of each sample -> chains. A box joins the chain whose first box it overlaps most, above
    `iou`; no chain runs over a cut.

    The rule was made for boxes of S3FD, which hold the head; dlib's hold brows to chin and part when a head
    turns.
    """
    chains: list[FaceTracklet] = []
    alive: list[FaceTracklet] = []  # one that a gap or a cut has ended stays ended
    inclusive = settings.rules == "voxceleb"
    grow, iou, max_gap = (0.0 if inclusive else settings.margin), settings.iou, settings.max_gap
    scene = np.searchsorted(np.asarray(cuts, int), ticks, side="right")
    for sample, boxes in enumerate(detections):
        # a sample may lie further than max_gap behind the one before it: that alone is no gap
        since = min(ticks[max(0, sample - 1)], ticks[sample] - max_gap)
        alive = [c for c in alive if ticks[c.samples[-1]] >= since and scene[c.samples[-1]] == scene[sample]]
        pairs = [
            (box_iou(pad_box(c.boxes[0], grow), pad_box(box, grow), inclusive), i, j)
            for i, c in enumerate(alive)
            for j, box in enumerate(boxes)
        ]
        chain_of: dict[int, int] = {}
        for value, i, j in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
            if value > iou and j not in chain_of and i not in chain_of.values():
                chain_of[j] = i
        begun: list[FaceTracklet] = []
        for j, box in enumerate(boxes):
            chain = alive[chain_of[j]] if j in chain_of else FaceTracklet()
            if j not in chain_of:
                begun.append(chain)
            chain.samples.append(sample)
            chain.places.append(j)
            chain.boxes.append(box)
        alive += begun
        chains += begun
    return chains


def split_at_identity_changes(
    chain: FaceTracklet, faces: Sequence[np.ndarray | None], apart: float
) -> list[FaceTracklet]:
    """Part a chain where its face becomes another: two embeddings in a row further than `apart` from the
    first of the part. What lies between the last of one person and the first of the next belongs to neither.
    A face that is not seen well enough to be embedded, or is turned too far (NaN), is nobody.
    """
    at = [n for n, sample in enumerate(chain.samples) if faces[sample] is not None]
    own_faces = [(n, cast("np.ndarray", faces[chain.samples[n]])[chain.places[n]]) for n in at]
    embedded = [(n, face) for n, face in own_faces if np.isfinite(face).all()]
    if len(embedded) < 3:
        return [chain]
    parts: list[tuple[int, int]] = []
    begin, last, reference = 0, embedded[0][0], embedded[0][1]
    strangers: list[tuple[int, np.ndarray]] = []
    for n, face in embedded[1:]:
        if np.linalg.norm(face - reference) <= apart:
            last, strangers = n, []
            continue
        strangers.append((n, face))
        if len(strangers) == 2:
            parts.append((begin, last))
            begin, last, reference, strangers = strangers[0][0], n, strangers[0][1], []
    parts.append((begin, len(chain.samples) - 1))
    return [
        FaceTracklet(chain.samples[a : b + 1], chain.places[a : b + 1], chain.boxes[a : b + 1])
        for a, b in parts
    ]


def _tracks_of(
    chain: FaceTracklet, ticks: np.ndarray, edges: Sequence[int], settings: ClipsConfig
) -> list[Track]:
    """A chain of detections -> the pieces of its track, framed. edges: the file's first tick, the one past
    its last, and the cuts; a track is taken to reach an edge before the next frame that was looked at."""
    seen, last = ticks[chain.samples], min(chain.samples[-1] + 1, len(ticks) - 1)
    before = int(ticks[chain.samples[0] - 1]) if chain.samples[0] else edges[0] - 1
    after = int(ticks[last]) if last > chain.samples[-1] else edges[1]
    start = max((e for e in edges if before < e <= seen[0]), default=max(int(seen[0]), edges[0]))
    stop = min((e for e in edges if seen[-1] < e <= after), default=min(int(seen[-1]) + 1, edges[1]))
    stop = max(stop, start + 1)
    clock = np.arange(start, stop)
    known = np.stack(chain.boxes)
    boxes = np.stack([np.interp(clock, seen, known[:, edge]) for edge in range(4)], axis=1)
    detected = len(chain.samples) / (chain.samples[-1] - chain.samples[0] + 1)
    if settings.rules == "voxceleb":
        return split_into_tubes(boxes, start, detected, settings)
    track = Track(
        start, stop, median_filter_boxes(boxes.astype(np.float32), settings.smooth), np.zeros(4), detected
    )
    return [add_track_crop_region(piece, settings) for piece in split_long_track(track, settings.max_frames)]


def split_into_tubes(boxes: np.ndarray, start: int, detected: float, settings: ClipsConfig) -> list[Track]:
    """boxes (n,4) of ticks start.. -> tubes, each framed by the union of its boxes, grown by `increase`."""
    out: list[Track] = []
    for begin, end in find_tube_spans(boxes, settings.iou, settings.max_frames, inclusive=True):
        known = median_filter_boxes(boxes[begin:end].astype(np.float32), settings.smooth)
        region = enlarge_box(box_union(known), settings.increase, settings.aspect)
        out.append(Track(start + begin, start + end, known, region, detected))
    return out


def add_track_crop_region(track: Track, settings: ClipsConfig) -> Track:
    """Square about the union of the boxes, grown and lifted."""
    extent = box_union(track.boxes)
    face = float(np.median(track.boxes[:, 2:] - track.boxes[:, :2]))
    centre = (extent[:2] + extent[2:]) / 2 - [0, settings.lift * face]
    half = max(extent[2:] - extent[:2]) / 2 + settings.margin * face
    return replace(track, region=np.concatenate([centre - half, centre + half]))


def _main_tracks(tracks: list[Track]) -> list[Track]:
    """Largest summed area first; a track that overlaps a kept one in time goes."""
    kept: list[Track] = []
    for track in sorted(tracks, key=_summed_area, reverse=True):
        if all(track.stop <= other.start or other.stop <= track.start for other in kept):
            kept.append(track)
    return sorted(kept, key=lambda track: track.start)


def _number_faces(tracks: list[Track]) -> list[Track]:
    """Tracks that overlap a larger one in time get the lowest face number that is free there."""
    done: list[Track] = []
    for track in sorted(tracks, key=_summed_area, reverse=True):
        used = {other.face for other in done if other.start < track.stop and track.start < other.stop}
        track.face = next(n for n in range(len(done) + 1) if n not in used)
        done.append(track)
    return sorted(done, key=lambda track: (track.start, track.face))


def _summed_area(track: Track) -> float:
    return float(np.prod(track.boxes[:, 2:] - track.boxes[:, :2], axis=1).sum())


# --- cuts ---------------------------------------------------------------------------------------------------
def find_scene_cuts(path: Path, probed: Probe, span: tuple[int, int], settings: ClipsConfig) -> list[int]:
    """Ticks of a span at which another scene begins: one pass over its frames, at a thumbnail's size."""
    seconds = tuple(max(0.0, media.ticks_to_seconds(tick, probed)) for tick in span)
    every = max(1, round(settings.detect_every * probed["fps"] / FPS))
    seen = media.map_frame_batches(
        path, probed, (64, 64), every, lambda frames: [grey_thumbnail(frame) for frame in frames],
        span=(seconds[0], seconds[1]), change=settings.scene_change,
    )  # fmt: skip
    return find_lasting_cuts(seen, seen.results, probed)


def grey_thumbnail(frame: np.ndarray) -> np.ndarray:
    """frame (H,W,3) uint8 -> (16,16) float32 grey levels 0 to 255, at the middles of a grid of averages."""
    rows, columns = (
        np.linspace(0, side, SCENE_THUMBNAIL_SIZE + 1).astype(int)[:-1] for side in frame.shape[:2]
    )
    green = frame[:, :, 1].astype(np.float32)
    sums = np.add.reduceat(np.add.reduceat(green, rows, axis=0), columns, axis=1)
    areas = np.outer(np.diff([*rows, frame.shape[0]]), np.diff([*columns, frame.shape[1]]))
    return sums / np.maximum(areas, 1)


def find_lasting_cuts(seen: media.FrameResults[T], thumbs: Sequence[np.ndarray], probed: Probe) -> list[int]:
    """Ticks of the changes that last: a flash changes the picture twice, but not what is before and after.

    thumbs: of the frames at seen.times. A change counts if the frames on either side of it differ, also when
    the frame next to it on one side is passed over.
    """
    ticks: list[int] = []
    for change in seen.changes:
        after = int(np.searchsorted(seen.times, change - 1e-3))
        pairs = [(after - 1, after), (after - 1, after + 1), (after - 2, after)]
        apart = [np.abs(thumbs[a] - thumbs[b]).mean() for a, b in pairs if a >= 0 and b < len(thumbs)]
        if not apart or min(apart) >= SCENE_CUT_THRESHOLD:
            # the first tick that is nearer to the new picture than to the one before it
            moment = change - 0.5 / probed["fps"] + probed.get("offset", 0.0)
            ticks.append(math.ceil(moment * FPS + 1e-3))
    return sorted(set(ticks))


def split_at_cuts(track: Track, cuts: Sequence[int]) -> list[Track]:
    """A track with one region, cut at ticks."""
    edges = [track.start, *(cut for cut in sorted(cuts) if track.start < cut < track.stop), track.stop]
    return [
        replace(track, start=a, stop=b, boxes=track.boxes[a - track.start : b - track.start])
        for a, b in pairwise(edges)
    ]


def find_frozen_spans(probed: Probe) -> list[tuple[int, int]]:
    """Spans of ticks, first and one past the last, over which a frame is only held: it is the frame of the
    tick before."""
    offset = probed.get("offset", 0.0)
    spans = [((a + offset) * FPS, (b + offset) * FPS) for a, b in probed.get("held", ())]
    return [(math.floor(a + 0.5 + 1e-6) + 1, math.ceil(b - 1e-6)) for a, b in spans]


def cut_frozen_spans_from_tracks(
    tracks: Sequence[Track], probed: Probe, dropped: DroppedTracks
) -> list[Track]:
    """Tracks parted where a frame is held, and what shows the held frame `dropped`: a face that stands still
    beside a voice that talks teaches a model the wrong thing."""
    frozen = find_frozen_spans(probed)
    out: list[Track] = []
    for track in tracks:
        for piece in split_at_cuts(track, sorted({edge for span in frozen for edge in span})):
            if any(start <= piece.start < stop for start, stop in frozen):
                begin, end = piece.start / FPS, piece.stop / FPS
                reason = Rejected("frozen", f"one frame is held from {begin:.2f} to {end:.2f} s")
                dropped.add(piece.frame_count, reason)
            else:
                out.append(piece)
    return out


def split_long_track(track: Track, longest: int) -> list[Track]:
    """A track as parts of at most `longest` frames."""
    return split_at_cuts(track, range(track.start + longest, track.stop, longest))
