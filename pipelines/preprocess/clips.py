"""Stage `clips`: a recording -> one clip a track, the face in a square that stands still, at 25 fps, with its
sound.

Tracks come with the source, or from a detector: detections of every few frames are linked by their overlap
with a track's first box, interpolated and smoothed (the rules of video-preprocessing and its successor in
FOMM). A clip's square is constant over the clip, so that what moves is the head and not the crop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipelines.engine.node import Rejected, Sample
from pipelines.preprocess import media
from pipelines.preprocess.media import FPS, SAMPLES_A_FRAME

LONGEST_HOLE = 0.5
"""Seconds without a frame, beyond those that sampling leaves, from which a file counts as damaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipsConfig:
    size: int = 256
    """Side of a clip's frames in pixels."""
    min_frames: int = 64
    """Shorter tracks are dropped."""
    max_frames: int = 1024
    """Longer tracks are cut into pieces."""
    min_size: int = 128
    """Tracks whose square is smaller, in pixels of the recording, are dropped."""
    detector: Literal["dlib_hog", "dlib_ladder"] = "dlib_hog"
    """Net that finds faces where the source gives no tracks; dlib_ladder tries a CNN where HOG sees none."""
    detect_every: int = 5
    """Frames between detections; boxes between them are interpolated."""
    detect_size: int = 512
    """Longest side of the frames shown to the detector; smaller recordings are shown as they are."""
    max_gap: int = 15
    """Frames a track survives without a detection."""
    iou: float = 0.25
    """Least overlap with a track's first box, both grown by `margin`; less starts a new track."""
    smooth: int = 13
    """Frames of the median filter over boxes."""
    margin: float = 0.35
    """Growth of the box on each side in boxes; boxes given by the source have theirs already."""
    lift: float = 0.12
    """Shift of the square upwards in boxes: detectors frame the face, a clip shows the head."""
    faces: Literal["largest", "all"] = "largest"
    """Of tracks that overlap in time, keep the one with the larger face, or all, each as an identity of its
    own."""
    aspect: Literal["square", "stretch"] = "square"
    """Boxes given by the source: made square about their centre, or squeezed as the VoxCeleb loaders of FOMM
    do."""
    out_of_frame: Literal["drop", "pad", "clamp"] = "clamp"
    """A square that leaves the frame: drop the track, mirror the border, or move (and if need be shrink) the
    square."""

    def __post_init__(self) -> None:
        if not (32 <= self.size <= 1024 and self.size % 2 == 0):
            raise ValueError(f"size {self.size}: expected an even number from 32 to 1024")
        if not 1 <= self.min_frames <= self.max_frames:
            raise ValueError(f"min_frames {self.min_frames}: expected 1 to max_frames {self.max_frames}")
        if not 1 <= self.detect_every <= 50:
            raise ValueError(f"detect_every {self.detect_every}: expected 1 to 50")
        if not 128 <= self.detect_size <= 2048:
            raise ValueError(f"detect_size {self.detect_size}: expected 128 to 2048")
        if self.max_gap < 0 or self.min_size < 2:
            raise ValueError(f"max_gap {self.max_gap}, min_size {self.min_size}: expected at least 0 and 2")
        if not 0 < self.iou < 1:
            raise ValueError(f"iou {self.iou}: expected a number between 0 and 1")
        if self.smooth < 1 or self.smooth % 2 == 0:
            raise ValueError(f"smooth {self.smooth}: expected an odd number of frames")
        if not (0 <= self.margin <= 3 and -1 <= self.lift <= 1):
            raise ValueError(f"margin {self.margin}, lift {self.lift}: expected 0 to 3 and -1 to 1")


@dataclass(slots=True)
class Track:
    """A face over ticks start..stop-1 of the 25 fps clock."""

    start: int
    stop: int
    boxes: np.ndarray
    """(stop-start, 4) float32, the face in pixels of the recording."""
    region: np.ndarray
    """(4,) what becomes the frame, before it is fitted into the recording."""
    detected: float
    """Share of the frames looked at in which the detector saw this face; 1 for given tracks."""
    face: int = 0
    """0 for a recording's main face; others are numbered from 1."""


def cut_clips(inputs: Mapping[str, list[Sample]], config: Any, nets: Mapping[str, Any]) -> list[Sample]:
    """A row of recordings and its download -> clips: frames, sound, boxes, crop, clip."""
    row, raw = inputs["recordings"][0], inputs["download"][0]
    settings, probed = config.clips, raw["probe"]
    with media.as_file(raw["video"]) as path:
        if len(row["tracks"]):
            tracks, detector = given_tracks(row["tracks"], probed, settings), "given"
        else:
            net = nets[settings.detector]
            tracks, detector = found_tracks(path, probed, settings, net), net.name
        crops = _usable(tracks, probed, settings)
        sound = media.read_sound(path, probed)
        return [
            _clip(path, probed, row, track, crop, sound, detector, settings.size) for track, crop in crops
        ]


# --- tracks -------------------------------------------------------------------------------------------------
def given_tracks(
    tracks: Sequence[Mapping[str, Any]], probed: Mapping[str, Any], settings: Any
) -> list[Track]:
    """The source's tracks on the 25 fps clock and in pixels of this copy of the recording."""
    last = media.frames_at_25(probed)
    out = []
    for track in tracks:
        # source frame i is in the clip iff start <= i < end; tick k shows second k / 25
        start, stop = (int(np.ceil(track[end] * FPS / track["fps"] - 1e-6)) for end in ("start", "end"))
        stop = min(stop, last)
        if stop <= start:
            continue  # this copy of the video ends before the track begins
        scale = np.array([probed["width"] / track["width"], probed["height"] / track["height"]] * 2)
        box = np.array(track["box"], np.float64) * scale
        region = _squared(box) if settings.aspect == "square" else box
        boxes = np.tile(box, (stop - start, 1)).astype(np.float32)
        out += _pieces(Track(start, stop, boxes, region, 1.0), settings.max_frames)
    if not out:
        raise Rejected(
            "tracks_outside", f"all {len(tracks)} tracks begin after the recording's {last} frames"
        )
    return out


def found_tracks(path: Path, probed: dict[str, Any], settings: Any, detector: Any) -> list[Track]:
    """Detect, link, interpolate, smooth. Raises Rejected no_face when nothing is seen."""
    zoom = min(1.0, settings.detect_size / max(probed["width"], probed["height"]))
    width, height = (max(2, round(probed[side] * zoom / 2) * 2) for side in ("width", "height"))
    every = max(1, round(settings.detect_every * probed["fps"] / FPS))
    found, times = media.map_frames(path, probed, (width, height), every, detector.detect)
    _check_whole(times, 0.0, probed["seconds"], every, probed)
    scale = np.array([probed["width"] / width, probed["height"] / height] * 2, np.float32)
    boxes = [one[:, :4] * scale for one in found]
    if not any(len(one) for one in boxes):
        raise Rejected("no_face", f"{detector.name} sees no face in {len(boxes)} frames, one in {every}")
    ticks = np.round(times * FPS).astype(int)
    last = media.frames_at_25(probed)
    tracks: list[Track] = []
    for chain in link(boxes, ticks, settings):
        track = _interpolated(chain, ticks, last, settings.smooth)
        tracks += [_framed(piece, settings) for piece in _pieces(track, settings.max_frames)]
    return _main_faces(tracks) if settings.faces == "largest" else _numbered(tracks)


@dataclass(slots=True)
class Chain:
    """Detections of one face: the samples they came from, and the boxes."""

    samples: list[int] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)


def link(detections: Sequence[np.ndarray], ticks: np.ndarray, settings: Any) -> list[Chain]:
    """Boxes (n,4) of each sample -> chains. A box joins the chain whose first box it overlaps most, above
    `iou`.

    The rule was made for boxes of S3FD, which hold the head; dlib's hold brows to chin and part when a head
    turns.
    """
    chains: list[Chain] = []
    grow, iou, max_gap = settings.margin, settings.iou, settings.max_gap
    for sample, boxes in enumerate(detections):
        # a sample may lie further than max_gap behind the one before it: that alone is no gap
        since = ticks[max(0, sample - 1)]
        alive = [c for c in chains if ticks[c.samples[-1]] >= min(since, ticks[sample] - max_gap)]
        pairs = [
            (overlap(grown(c.boxes[0], grow), grown(box, grow)), i, j)
            for i, c in enumerate(alive)
            for j, box in enumerate(boxes)
        ]
        chain_of: dict[int, int] = {}
        for value, i, j in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
            if value > iou and j not in chain_of and i not in chain_of.values():
                chain_of[j] = i
        for j, box in enumerate(boxes):
            chain = alive[chain_of[j]] if j in chain_of else Chain()
            if j not in chain_of:
                chains.append(chain)
            chain.samples.append(sample)
            chain.boxes.append(box)
    return chains


def grown(box: np.ndarray, margin: float) -> np.ndarray:
    """(4,) with `margin` of its sides added on each."""
    side = margin * (box[2:] - box[:2])
    return np.concatenate([box[:2] - side, box[2:] + side])


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (4,)."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - shared)


def smoothed(boxes: np.ndarray, window: int) -> np.ndarray:
    """(T,4) -> (T,4): median over `window` frames, the ends repeated. A detector's box sizes come in
    steps."""
    if window == 1:
        return boxes
    half = window // 2
    padded = np.pad(boxes, ((half, half), (0, 0)), mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, window, axis=0), axis=-1).astype(
        np.float32
    )


def _interpolated(chain: Chain, ticks: np.ndarray, last: int, window: int) -> Track:
    seen = ticks[chain.samples]
    start, stop = int(seen[0]), min(int(seen[-1]) + 1, last)
    stop = max(stop, start + 1)
    clock = np.arange(start, stop)
    known = np.stack(chain.boxes)
    boxes = np.stack([np.interp(clock, seen, known[:, edge]) for edge in range(4)], axis=1).astype(np.float32)
    looked_at = chain.samples[-1] - chain.samples[0] + 1
    return Track(start, stop, smoothed(boxes, window), np.zeros(4), len(chain.samples) / looked_at)


def _pieces(track: Track, longest: int) -> list[Track]:
    return [
        Track(
            at,
            min(at + longest, track.stop),
            track.boxes[at - track.start :][:longest],
            track.region,
            track.detected,
        )
        for at in range(track.start, track.stop, longest)
    ]


def _framed(track: Track, settings: Any) -> Track:
    """Square about the union of the boxes, grown and lifted."""
    union = np.concatenate([track.boxes[:, :2].min(0), track.boxes[:, 2:].max(0)]).astype(np.float64)
    face = float(np.median(track.boxes[:, 2:] - track.boxes[:, :2]))
    centre = (union[:2] + union[2:]) / 2 - [0, settings.lift * face]
    half = max(union[2:] - union[:2]) / 2 + settings.margin * face
    track.region = np.concatenate([centre - half, centre + half])
    return track


def _main_faces(tracks: list[Track]) -> list[Track]:
    """Largest summed area first; a track that overlaps a kept one in time goes."""
    kept: list[Track] = []
    for track in sorted(tracks, key=_summed_area, reverse=True):
        if all(track.stop <= other.start or other.stop <= track.start for other in kept):
            kept.append(track)
    return sorted(kept, key=lambda track: track.start)


def _numbered(tracks: list[Track]) -> list[Track]:
    """Tracks that overlap a larger one in time get the lowest face number that is free there."""
    done: list[Track] = []
    for track in sorted(tracks, key=_summed_area, reverse=True):
        taken = {other.face for other in done if other.start < track.stop and track.start < other.stop}
        track.face = next(n for n in range(len(done) + 1) if n not in taken)
        done.append(track)
    return sorted(done, key=lambda track: (track.start, track.face))


def _summed_area(track: Track) -> float:
    return float(np.prod(track.boxes[:, 2:] - track.boxes[:, :2], axis=1).sum())


def _squared(box: np.ndarray) -> np.ndarray:
    centre, half = (box[:2] + box[2:]) / 2, max(box[2:] - box[:2]) / 2
    return np.concatenate([centre - half, centre + half])


# --- crops --------------------------------------------------------------------------------------------------
def _usable(tracks: list[Track], probed: Mapping[str, Any], settings: Any) -> list[tuple[Track, np.ndarray]]:
    """The tracks that make clips, each with its crop (4,) int; Rejected if none does, for the reason of the
    longest."""
    reasons: list[tuple[int, str, str]] = []
    crops = []
    for track in tracks:
        frames = track.stop - track.start
        if frames < settings.min_frames:
            sentence = (
                f"the longest track has {frames} frames, fewer than clips.min_frames {settings.min_frames}"
            )
            reasons.append((frames, "too_short", sentence))
            continue
        crop = fit_into(track.region, probed["width"], probed["height"], settings.out_of_frame)
        side = int(min(crop[2:] - crop[:2])) if crop is not None else 0
        if crop is None:
            reasons.append(
                (frames, "out_of_frame", f"the square {track.region.round().tolist()} leaves the frame")
            )
        elif side < settings.min_size:
            sentence = f"the crop is {side} px wide, smaller than clips.min_size {settings.min_size}"
            reasons.append((frames, "too_small", sentence))
        else:
            crops.append((track, crop))
    if not crops:
        _, code, sentence = max(reasons)
        raise Rejected(code, sentence)
    return crops


def fit_into(region: np.ndarray, width: int, height: int, policy: str) -> np.ndarray | None:
    """x0, y0, x1, y1 -> int, even (chroma is halved), by the policy inside width x height; None = dropped."""
    corner, sides = (
        2 * np.floor(pair / 2 + 0.5).astype(int) for pair in (region[:2], region[2:] - region[:2])
    )
    frame = np.array([width, height])
    inside = (corner >= 0).all() and (corner + sides <= frame).all()
    if policy == "drop" and not inside:
        return None
    if policy == "clamp" and not inside:
        # shrink both sides alike, then move inside
        small = (sides * min(1.0, *(frame / sides)) / 2).astype(int) * 2
        corner = np.clip((corner + (sides - small) / 2) // 2 * 2, 0, (frame - small) // 2 * 2).astype(int)
        sides = small
    return np.concatenate([corner, corner + sides])


def read_crop(
    path: Path, probed: dict[str, Any], crop: np.ndarray, size: int, start: int, stop: int
) -> np.ndarray:
    """Ticks start..stop-1 of a crop -> (T,size,size,3) uint8; what lies outside the recording is mirrored."""
    low = np.maximum(crop[:2], 0)
    high = np.minimum(crop[2:], [probed["width"], probed["height"]]) // 2 * 2
    zoom = size / (crop[2:] - crop[:2])
    before = np.round((low - crop[:2]) * zoom).astype(int)
    inner = np.maximum(np.round((high - low) * zoom).astype(int), 1)
    box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    span = (start / FPS, stop / FPS)
    frames, times = media.read_frames(path, probed, (int(inner[0]), int(inner[1])), box, span)
    _check_whole(times, *span, 1, probed)
    frames = frames[media.nearest(times, start, stop)]
    if (inner == size).all():
        return frames
    after = size - inner - before
    return np.pad(frames, ((0, 0), (before[1], after[1]), (before[0], after[0]), (0, 0)), mode="symmetric")


def _check_whole(times: np.ndarray, begin: float, end: float, every: int, probed: Mapping[str, Any]) -> None:
    """A damaged file decodes to fewer frames than its index promises."""
    allowed = 2 * every / probed["fps"] + 0.2
    if times[-1] < min(end, probed["seconds"]) - allowed or times[0] > begin + allowed:
        have, want = f"{times[0]:.2f} to {times[-1]:.2f} s", f"{begin:.2f} to {end:.2f} s"
        raise Rejected("truncated", f"frames from {have} can be decoded, of {want}")
    hole = int(np.diff(times).argmax()) if len(times) > 1 else 0
    if len(times) > 1 and times[hole + 1] - times[hole] > allowed + LONGEST_HOLE:
        raise Rejected(
            "damaged", f"no frame between {times[hole]:.2f} and {times[hole + 1]:.2f} s can be decoded"
        )


def _clip(
    path: Path,
    probed: dict[str, Any],
    row: Mapping[str, Any],
    track: Track,
    crop: np.ndarray,
    sound: np.ndarray,
    detector: str,
    size: int,
) -> Sample:
    identity = row["identity"] if track.face == 0 else f"{row['identity']}-face{track.face}"
    frames = track.stop - track.start
    piece = sound[track.start * SAMPLES_A_FRAME :]
    return {
        "__key__": f"{identity}#{row['id']}#{track.start:06d}#{track.stop:06d}",
        "frames": read_crop(path, probed, crop, size, track.start, track.stop),
        "sound": media.fit_length(piece, frames * SAMPLES_A_FRAME),
        "boxes": track.boxes,
        "crop": np.tile(crop.astype(np.float32), (frames, 1)),
        "clip": {
            "identity": identity,
            "recording": row["id"],
            "start": track.start,
            "end": track.stop,
            "fps": FPS,
            "size": size,
            "frames": frames,
            "detector": detector,
            "detected": round(track.detected, 4),
        },
    }
