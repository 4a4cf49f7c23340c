"""The largest face of a picture or of a whole video, in a square as the clips' rules cut it for training.

For inference: every frame of the video counts, at its own times, and is expected to show the same person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from models.perception.interfaces import FaceDetector
from pipelines import media
from pipelines.media import FPS
from pipelines.preprocess.boxes import enlarge_box, largest_box, median_filter_boxes
from pipelines.preprocess.clips import fit_box_into_frame
from pipelines.preprocess.clips_config import ClipsConfig
from pipelines.preprocess.median_box import median_box_region
from pipelines.preprocess.tracks import (
    FaceTracklet,
    Track,
    add_track_crop_region,
    link_detections,
)

if TYPE_CHECKING:
    from PIL import Image

    from pipelines.media.probe_schema import Probe

DETECTION_IMAGE_SIDES = (512, 1024, 2048)
"""Longest sides to which a picture is scaled for the detector, one after the other until it finds a face:
small faces in large pictures are rare, and large pictures slow."""
MAX_DETECTION_GAP = 2
"""A face counts as visible between two detections that are at most so many sampled frames apart: the detector
may miss it in one."""
TIME_TOLERANCE = 0.002
"""Seconds by which a frame's time may differ from that of the same frame: Matroska's are rounded."""


@dataclass(frozen=True, slots=True)
class SourcePortrait:
    """A picture's largest face."""

    crop: np.ndarray
    """(S,S,3) uint8: the square at the clips' size"""
    box: np.ndarray
    """(4,) float32: the face in pixels of the crop"""
    square: np.ndarray
    """(4,) int: the square in pixels of the picture"""
    others: int
    """Smaller faces"""


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """The largest face of a video: where it was seen, and one square that holds it all along."""

    seconds: np.ndarray
    """(n,) of the frames it was detected in, ascending"""
    samples: np.ndarray
    """(n,) int: their numbers among the frames that the detector was run on"""
    boxes: np.ndarray
    """(n,4) pixels of the video"""
    square: np.ndarray
    """(4,) int, pixels of the video, even. Where the face moves further than the frame is high or wide, it
    leaves the frame; what lies outside is mirrored."""
    others: int
    """Most other faces in one frame"""

    def boxes_at_seconds(self, seconds: np.ndarray) -> np.ndarray:
        """seconds (T,) -> boxes (T,4) float32 in pixels of the video, NaN where the face is not there."""
        boxes = [np.interp(seconds, self.seconds, self.boxes[:, edge]) for edge in range(4)]
        out = np.stack(boxes, axis=1).astype(np.float32)
        near = np.searchsorted(self.seconds, seconds + TIME_TOLERANCE) - 1  # last detection up to then
        later = np.minimum(near + 1, len(self.samples) - 1)
        exact = (near >= 0) & (np.abs(self.seconds[near] - seconds) < TIME_TOLERANCE)
        inside = (near >= 0) & (near < len(self.samples) - 1)
        inside &= self.samples[later] - self.samples[near] <= MAX_DETECTION_GAP
        out[~(exact | inside)] = np.nan
        return out


# --- pictures -----------------------------------------------------------------------------------------------
def cut_portrait(pixels: np.ndarray, settings: ClipsConfig, detector: FaceDetector) -> SourcePortrait | None:
    """pixels (H,W,3) uint8 -> its largest face, cut as a clip's frame; None where the detector sees none."""
    from PIL import Image

    image = Image.fromarray(pixels)
    boxes = _detect(image, detector)
    if not len(boxes):
        return None
    box = largest_box(boxes)[:4].astype(np.float64)
    square = _square(box[None].astype(np.float32), image.width, image.height, settings)
    size = settings.size
    # as ffmpeg's area averaging does for clips; it would show blocks when enlarging
    kernel = Image.Resampling.BOX if square[2] - square[0] >= size else Image.Resampling.BICUBIC
    crop = image.resize((size, size), kernel, box=tuple(square.astype(float)))
    return SourcePortrait(np.asarray(crop), _inside(box, square, size), square, len(boxes) - 1)


def _detect(image: Image.Image, detector: FaceDetector) -> np.ndarray:
    """(n,5) boxes in pixels of the picture."""
    from PIL import Image

    longest = max(image.size)
    for side in DETECTION_IMAGE_SIDES:
        zoom = min(1.0, side / longest)
        size = max(2, round(image.width * zoom)), max(2, round(image.height * zoom))
        small = image if zoom == 1 else image.resize(size, Image.Resampling.BOX)
        found = detector.detect(np.asarray(small)[None])[0]
        if len(found) or zoom == 1:
            return found[:, :5] * [*[image.width / size[0], image.height / size[1]] * 2, 1.0]
    return np.zeros((0, 5))


# --- videos -------------------------------------------------------------------------------------------------
def track_face(path: Path, probed: Probe, settings: ClipsConfig, detector: FaceDetector) -> FaceTrack | None:
    """Detect in one frame of `detect_every` (at 25 fps) and in the last, link, take the largest -> its track;
    None where no face is seen. One pass over the video, at most `detect_size` pixels wide."""
    zoom = min(1.0, settings.detect_size / max(probed["width"], probed["height"]))
    width, height = (max(2, round(probed[side] * zoom / 2) * 2) for side in ("width", "height"))
    scale = np.array([probed["width"] / width, probed["height"] / height] * 2, np.float32)
    every = max(1, round(settings.detect_every * probed["fps"] / FPS))
    seen = media.map_frame_batches(
        path,
        probed,
        (width, height),
        every,
        lambda frames: [b[:, :4] * scale for b in detector.detect(frames)],
    )
    ticks = np.round(seen.times * FPS).astype(int)
    chains = link_detections(seen.results, ticks, settings)
    if not chains:
        return None
    kept = _main(chains)
    found = sorted(
        (sample, box)
        for chain in kept
        for sample, box in zip(chain.samples, map(tuple, chain.boxes), strict=True)
    )
    samples, boxes = np.array([s for s, _ in found]), np.array([b for _, b in found], np.float32)
    clock = np.arange(int(ticks[samples[0]]), int(ticks[samples[-1]]) + 1)
    steady = np.stack([np.interp(clock, ticks[samples], boxes[:, edge]) for edge in range(4)], axis=1)
    size = probed["width"], probed["height"]
    known = median_filter_boxes(steady.astype(np.float32), settings.smooth)
    square = _square(known, *size, settings)
    union = np.clip(np.concatenate([known[:, :2].min(0), known[:, 2:].max(0)]), 0, [*size, *size])
    if (union[:2] < square[:2]).any() or (union[2:] > square[2:]).any():
        square = _square(known, *size, settings, "pad")
    beside = max(len(boxes) for boxes in seen.results) - 1
    return FaceTrack(seen.times[samples], samples, boxes, square, beside)


def _main(chains: Sequence[FaceTracklet]) -> list[FaceTracklet]:
    """The largest by summed area, and those before and after it: a face that moves far is linked in parts."""
    kept: list[FaceTracklet] = []
    for chain in sorted(chains, key=_area, reverse=True):
        begin, end = chain.samples[0], chain.samples[-1]
        if all(end < other.samples[0] or other.samples[-1] < begin for other in kept):
            kept.append(chain)
    return kept


def _area(chain: FaceTracklet) -> float:
    return float(sum(np.prod(box[2:] - box[:2]) for box in chain.boxes))


# --- squares ------------------------------------------------------------------------------------------------
def _square(
    boxes: np.ndarray, width: int, height: int, settings: ClipsConfig, policy: str = "clamp"
) -> np.ndarray:
    """boxes (T,4) -> (4,) int, even: what the clips' rules make of them, moved and shrunk into the frame."""
    if settings.rules == "voxceleb":
        union = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)]).astype(np.float64)
        region = enlarge_box(union, settings.increase, "square")
    elif settings.rules == "headgan":
        region = median_box_region(boxes, settings.increase)
    else:
        region = add_track_crop_region(Track(0, len(boxes), boxes, np.zeros(4), None), settings).region
    square = fit_box_into_frame(region, width, height, policy)
    assert square is not None  # neither policy drops anything
    return square


class PaddedCrop(NamedTuple):
    """How a square that may leave the frame is cut out at a size."""

    box: tuple[int, int, int, int]
    """The part inside the frame, even edges"""
    size: tuple[int, int]
    """(W,H) of that part in the crop"""
    margins: tuple[tuple[int, int], ...]
    """Rows and columns to mirror around it, as np.pad takes them"""

    def pad_crop(self, frame: np.ndarray) -> np.ndarray:
        """The part (H,W,3) -> the crop (S,S,3), a copy."""
        return np.pad(frame, self.margins, mode="symmetric")


def plan_padded_crop(square: np.ndarray, width: int, height: int, size: int) -> PaddedCrop:
    """square (4,) int in a frame of width x height -> how to cut it out at `size`."""
    low = np.maximum(square[:2], 0)
    high = np.minimum(square[2:], np.array([width, height]) // 2 * 2)
    zoom = size / (square[2:] - square[:2])
    before = np.round((low - square[:2]) * zoom).astype(int)
    inner = np.clip(np.round((high - low) * zoom).astype(int), 1, size - before)
    (left, top), (right, bottom) = before.tolist(), (size - inner - before).tolist()
    box = int(low[0]), int(low[1]), int(high[0]), int(high[1])
    return PaddedCrop(box, (int(inner[0]), int(inner[1])), ((top, bottom), (left, right), (0, 0)))


def _inside(boxes: np.ndarray, square: np.ndarray, size: int) -> np.ndarray:
    """Boxes (...,4) in pixels of the whole -> of the crop."""
    zoom = size / (square[2] - square[0])
    return ((boxes - np.tile(square[:2], 2)) * zoom).astype(np.float32)


def boxes_in_crop(track: FaceTrack, boxes: np.ndarray, size: int) -> np.ndarray:
    """Boxes (T,4) in pixels of the video -> in pixels of the track's square at `size`."""
    return _inside(boxes, track.square, size)
