"""Stage `clips`: a recording -> one clip a track, the face in a square that stands still, at 25 fps, with its
sound.

Tracks come with the source, or from a detector (`pipelines/preprocess/tracks.py`). A clip's square is the
same over the clip, so that what moves is the head and not the crop. Clips are cut one at a time: a
recording's length costs time, not memory. Tracks that are too short, too small, or fail a gate make no clip;
what became of them stands in the clips of the same recording, or, if none is left, in the reason of its
rejection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from models.perception.interfaces import FaceDetector, FaceEmbedder, InferenceConfigurable
from pipelines import media
from pipelines.dataset.recording_table import recording_row_from_inputs
from pipelines.engine.node import Inputs
from pipelines.errors import Rejected
from pipelines.media import FPS
from pipelines.preprocess.box_frame import find_box_frame_size
from pipelines.preprocess.clip_quality import ClipQualityMeter, audible_share
from pipelines.preprocess.clips_config import ClipsConfig, FrameCodecConfig
from pipelines.preprocess.keypoints import perception_inference_settings
from pipelines.preprocess.median_box import find_median_box_tracks
from pipelines.preprocess.sources.common.files import shorten_name
from pipelines.preprocess.tracks import (
    DroppedTracks,
    Track,
    convert_source_tracks,
    cut_frozen_spans_from_tracks,
    detect_tracks,
    find_scene_cuts,
    track_tick_range,
)
from storage import frame_codec
from storage.shards import Sample

if TYPE_CHECKING:
    from pipelines.cluster.runtime import RuntimeConfig
    from pipelines.dataset.recording_table import Recording
    from pipelines.media.probe_schema import Probe
    from pipelines.preprocess.sources.common.rows import AnnotatedFaceTrack


def cut_clips(
    inputs: Inputs,
    config: ClipsConfig,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """A row of recordings and its download -> clips, one at a time: frames, sound, boxes, crop, clip."""
    row, raw = recording_row_from_inputs(inputs), inputs["download"][0]
    settings, probed = config, raw["probe"]
    detector = cast("FaceDetector", nets.get(settings.detector))  # boxes of a source may need none
    embedder = cast("FaceEmbedder | None", nets.get(settings.identity))
    for net in (detector, embedder):
        if isinstance(net, InferenceConfigurable):
            net.configure_inference(perception_inference_settings(runtime, "float32"))
    with media.open_as_local_file(raw["video"]) as path:
        dropped, frame, given, cuts = DroppedTracks(), None, row["tracks"], []
        if len(given):
            given, frame = find_box_frame_size(path, probed, given, settings, detector)
            cuts = _cuts_in_source_tracks(path, probed, given, settings)
        span = row.get("span", ())
        if settings.rules == "headgan":
            tracks = find_median_box_tracks(path, probed, settings, detector, dropped, given, cuts, span)
        elif len(given):
            tracks = convert_source_tracks(given, probed, settings, dropped, cuts)
        else:
            tracks = detect_tracks(path, probed, settings, detector, embedder, span)
        usable = _crop_tracks(
            cut_frozen_spans_from_tracks(tracks, probed, dropped), probed, settings, dropped
        )
        source = _ClipSource(path, probed, row, settings, detector, frame)
        yield from _gate_clips(source, usable, dropped)


class _ClipSource(NamedTuple):
    path: Path
    probed: Probe
    row: Recording
    settings: ClipsConfig
    detector: FaceDetector
    box_frame: tuple[int, int] | None = None
    """Width and height of the frame that the source's boxes are in, where that had to be found."""


def _cuts_in_source_tracks(
    path: Path, probed: Probe, tracks: Sequence[AnnotatedFaceTrack], settings: ClipsConfig
) -> list[int]:
    """Scene cuts inside the source's tracks, where they are asked for; each second is decoded once."""
    if settings.scene_cuts != "all":
        return []
    first, last = media.video_tick_range(probed)
    cuts: list[int] = []
    seen = first
    for start, stop in sorted(track_tick_range(track, probed) for track in tracks):
        begin, end = max(seen, start), min(last, stop)
        if end > begin:
            cuts += find_scene_cuts(path, probed, (begin, end), settings)
            seen = end
    return cuts


# --- crops --------------------------------------------------------------------------------------------------
def _crop_tracks(
    tracks: list[Track], probed: Probe, settings: ClipsConfig, dropped: DroppedTracks
) -> list[tuple[Track, np.ndarray]]:
    """The tracks that can be cut out, each with its crop (4,) int; Rejected if there is none."""
    crops: list[tuple[Track, np.ndarray]] = []
    used: set[tuple[int, int, int]] = set()
    for track in tracks:
        if track.frame_count < settings.min_frames and probed["frames"] > 1:  # a still picture has but one
            length = f"the longest track has {track.frame_count} frames, fewer than clips.min_frames"
            dropped.add(track.frame_count, Rejected("too_short", f"{length} {settings.min_frames}"))
            continue
        if (track.start, track.stop, track.face) in used:
            span = f"two tracks of one person from tick {track.start} to {track.stop}"
            dropped.add(track.frame_count, Rejected("duplicate", span))
            continue
        crop = _crop_of(track, probed, settings)
        if isinstance(crop, Rejected):
            dropped.add(track.frame_count, crop)
        else:
            used.add((track.start, track.stop, track.face))
            crops.append((track, crop))
    if not crops:
        dropped.reject_recording()
    return crops


def _crop_of(track: Track, probed: Probe, settings: ClipsConfig) -> np.ndarray | Rejected:
    """A track's crop (4,) int, or why there is none."""
    region, frame = track.region, np.array([probed["width"], probed["height"]])
    voxceleb = settings.rules == "voxceleb"
    if not np.isfinite(region).all() or (region[2:] - region[:2] < 2).any():
        return Rejected("too_small", f"the box {region.round().tolist()} is empty")
    whole_pixels = settings.rules != "steady"
    crop = fit_box_into_frame(region, probed["width"], probed["height"], settings.out_of_frame, whole_pixels)
    middle = (region[:2] + region[2:]) / 2
    if crop is None or (middle < 0).any() or (middle > frame).any():
        return Rejected("out_of_frame", f"the square {region.round().tolist()} leaves the frame")
    sides = track.boxes[:, 2:].max(0) - track.boxes[:, :2].min(0) if voxceleb else crop[2:] - crop[:2]
    side = int(max(sides) if voxceleb else min(sides))
    if side < settings.min_size:
        what = "box" if voxceleb else "crop"
        size = f"the {what} is {side} px, smaller than clips.min_size {settings.min_size}"
        return Rejected("too_small", size)
    return crop


def fit_box_into_frame(
    region: np.ndarray, width: int, height: int, policy: str, whole_pixels: bool = False
) -> np.ndarray | None:
    """x0, y0, x1, y1 -> int, by the policy inside width x height; None = dropped.

    Edges become even, because chroma is halved; whole_pixels: they are cut to whole pixels, as the VoxCeleb
    scripts and HeadGAN's do.
    """
    step = 1 if whole_pixels else 2
    if whole_pixels:
        edges = np.trunc(region).astype(int)
        corner, sides = edges[:2], edges[2:] - edges[:2]
    else:
        corner, sides = (
            2 * np.floor(pair / 2 + 0.5).astype(int) for pair in (region[:2], region[2:] - region[:2])
        )
    frame = np.array([width, height])
    inside = (corner >= 0).all() and (corner + sides <= frame).all()
    if policy == "drop" and not inside:
        return None
    if policy == "clip" and not inside:
        edges = np.clip([corner, corner + sides], 0, frame // step * step)
        corner, sides = edges[0], edges[1] - edges[0]
    if policy == "clamp" and not inside:
        # shrink both sides alike, then move inside
        small = (sides * min(1.0, *(frame / sides)) / step).astype(int) * step
        corner = (corner + (sides - small) / 2) // step * step
        corner = np.clip(corner, 0, (frame - small) // step * step).astype(int)
        sides = small
    return np.concatenate([corner, corner + sides])


def stream_crop(
    path: Path, probed: Probe, crop: np.ndarray, size: int, start: int, stop: int
) -> Iterator[np.ndarray]:
    """Ticks start..stop-1 of a crop -> T frames (size,size,3) uint8, each to be used before the next is asked
    for; what lies outside the recording is mirrored.

    Rejected, after the last frame, where the span has a hole or an end too few.
    """
    step = 2 if not (crop % 2).any() else 1
    low = np.maximum(crop[:2], 0)
    high = np.minimum(crop[2:], np.array([probed["width"], probed["height"]]) // step * step)
    zoom = size / (crop[2:] - crop[:2])
    before = np.round((low - crop[:2]) * zoom).astype(int)
    inner = np.clip(np.round((high - low) * zoom).astype(int), 1, size - before)
    box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    after = size - inner - before
    margins = ((before[1], after[1]), (before[0], after[0]), (0, 0))
    times: list[float] = []
    ticks = np.arange(start, stop)
    for _, frame in media.stream_frames_at_ticks(
        path, probed, (int(inner[0]), int(inner[1])), box, ticks, times
    ):
        yield frame if (inner == size).all() else np.pad(frame, margins, mode="symmetric")
    begin, end = (float(media.ticks_to_seconds(tick, probed)) for tick in (start, stop))
    media.check_frames_complete(np.array(times), max(begin, probed.get("begin", 0.0)), end, 1, probed)


def encode_frames(images: Iterable[np.ndarray], settings: FrameCodecConfig) -> frame_codec.EncodedFrames:
    """images (H,W,3) uint8 -> the field `frames`, one after the other."""
    return frame_codec.encode_images(images, settings.codec, settings.quality)


# --- clips --------------------------------------------------------------------------------------------------
def _gate_clips(
    source: _ClipSource, usable: Sequence[tuple[Track, np.ndarray]], dropped: DroppedTracks
) -> Iterator[Sample]:
    """The clips that pass the gates. With gates on, a clip is held back until the next one is known, so that
    a recording's last clip counts every track that was dropped."""
    settings = source.settings
    gated = bool(settings.min_sharpness or settings.min_visible or settings.min_audible)
    waiting: Sample | None = None
    any_left = False
    for track, crop in usable:
        sample = _clip(source, track, crop, dropped)
        if sample is None:
            continue
        any_left = True
        if not gated:
            sample["clip"]["dropped"] = dropped.count_by_code()
            yield sample
            del sample  # before the next is there
            continue
        if waiting is not None:
            waiting["clip"]["dropped"] = dropped.count_by_code()
            yield waiting
        waiting = sample
    if waiting is not None:
        waiting["clip"]["dropped"] = dropped.count_by_code()
        yield waiting
    if not any_left:
        dropped.reject_recording()


def _clip(source: _ClipSource, track: Track, crop: np.ndarray, dropped: DroppedTracks) -> Sample | None:
    """One clip with its scores; None where a gate drops it."""
    path, probed, row, settings, detector, box_frame = source
    sound = media.read_sound(path, probed, track.start, track.stop)
    audible = audible_share(sound, settings.sound_floor)
    if audible < settings.min_audible:
        share = f"{audible:.0%} of the frames have sound, fewer than clips.min_audible {settings.min_audible}"
        dropped.add(track.frame_count, Rejected("silent", share))
        return None
    stats = ClipQualityMeter(
        (track.boxes - np.tile(crop[:2], 2)) * np.tile(settings.size / (crop[2:] - crop[:2]), 2),
        detector if track.detected is None and settings.min_visible else None,
        settings.detect_every,
    )
    images = stream_crop(path, probed, crop, settings.size, track.start, track.stop)
    stored = encode_frames(stats.observe(images), settings.frames)
    sharp = stats.sharpness()
    if sharp < settings.min_sharpness:
        variance = f"the face's Laplacian varies by {sharp:.1f}, less than clips.min_sharpness"
        dropped.add(track.frame_count, Rejected("blurred", f"{variance} {settings.min_sharpness}"))
        return None
    visible = stats.face_visible_share() if track.detected is None else track.detected
    if visible is not None and visible < settings.min_visible:
        share = f"{detector.name} sees the face in {visible:.0%} of the frames"
        reason = Rejected("not_visible", f"{share}, clips.min_visible is {settings.min_visible}")
        dropped.add(track.frame_count, reason)
        return None
    identity = row["identity"] if track.face == 0 else shorten_name(f"{row['identity']}-face{track.face}")
    return {
        "__key__": f"{identity}#{row['id']}#{track.start:06d}#{track.stop:06d}",
        "frames": stored,
        "sound": sound,
        "boxes": track.boxes,
        "crop": np.tile(crop.astype(np.float32), (track.frame_count, 1)),
        "clip": {
            "identity": identity,
            "recording": row["id"],
            "start": track.start,
            "end": track.stop,
            "fps": FPS,
            "size": settings.size,
            "frames": track.frame_count,
            "detector": "given" if track.detected is None else detector.name,
            "detected": 1.0 if track.detected is None else round(track.detected, 4),
            "visible": None if visible is None else round(visible, 4),
            "sharpness": round(sharp, 2),
            "audible": round(audible, 4),
            "has_sound": bool(probed["audio_rate"]),
            "side": int(min(crop[2:] - crop[:2])),
            **({"box_frame": list(box_frame)} if box_frame else {}),
        },
    }
