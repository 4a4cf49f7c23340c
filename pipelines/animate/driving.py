"""What drives `reenact animate`: a video, a picture, or numbers; its times, and the motion that a model reads
from it.

Two passes over a driving video, neither of which holds it: one finds the face, one reads motion from the
face's square.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from models.perception.file_arrays import UNREADABLE
from models.perception.head.hull import hull_area
from models.reenactor import MOST_LOST, Motion, Reenactor, Shown
from pipelines import media
from pipelines.errors import UserError, meaning
from pipelines.media.encoding import Timeline
from pipelines.preprocess.clips import ClipsConfig

if TYPE_CHECKING:
    from pipelines.animate.face import FaceTrack, Portrait

T = TypeVar("T")
Say = Callable[[str], None]
Seen = Callable[[Shown], None]

AHEAD = 2
"""Batches of driving frames decoded before they are asked for."""
FAR = 1.7
"""A driving square this much wider than one frame needs is told of."""
NUMBERS = ".npz"
"""Name of files that drive by numbers."""
FASTEST = 240
"""Frames a second, at most, of numbers."""


class Driving(Protocol):
    """What drives."""

    times: Timeline
    indices: list[int]
    """Which frame of the timeline each frame of motion is; grows with what is handed out."""
    there: list[bool]
    """Whether it shows a face; grows likewise."""

    def motions(self, seen: Seen | None = None) -> Iterator[Motion]:
        """The motion of every frame, in batches. seen: called with the frames that show a face."""
        ...


# --- a video ------------------------------------------------------------------------------------------------
def find_driving(
    path: Path,
    probed: Mapping[str, Any],
    times: Timeline,
    clips: ClipsConfig,
    detector: Any,
    say: Say,
    whole: bool = False,
) -> tuple[FaceTrack, int]:
    """The driving face, and in how many frames it is not there. whole: `Reenactor.whole`. UserError where no
    face is there in most frames.
    """
    from pipelines.animate.face import face_track

    track = face_track(path, probed, clips, detector)
    if track is None:
        raise UserError(f"{path}: {detector.name} sees no face in any frame it was shown")
    there = face_shown(track.at(times.seconds))
    lost = int((~there).sum())
    if lost > MOST_LOST * len(there):
        raise UserError(f"{path}: no face in {lost} of {len(there)} frames, more than {MOST_LOST:.0%}")
    if lost:
        mended = "" if whole else "; each keeps the last face's motion"
        say(f"{path}: no face in {lost} of {len(there)} frames{mended}")
    if track.others:
        say(f"{path}: up to {track.others + 1} faces at a time; the largest drives")
    across = float(np.median(track.boxes[:, 2:] - track.boxes[:, :2])) * (1 + 2 * clips.margin)
    if (side := track.square[2] - track.square[0]) > FAR * across:
        say(
            f"{path}: the face moves far: its square is {side} px wide, {across:.0f} would do for one frame; "
            "the model learned from closer crops, so a video cut into parts will look better"
        )
    return track, lost


class Film:
    """The driving video as batches of its face's square, decoded ahead in a thread.

    landmarker: places landmarks, where the model reads them. heard (T,A): at each frame of the timeline,
    where the model hears.
    """

    def __init__(
        self,
        path: Path,
        probed: Mapping[str, Any],
        times: Timeline,
        track: FaceTrack,
        side: int,
        reenactor: Reenactor,
        landmarker: Any = None,
        heard: np.ndarray | None = None,
    ):
        self.path, self.probed, self.times, self.track = path, probed, times, track
        self.side, self.reenactor = side, reenactor
        self.landmarker, self.heard = landmarker, heard
        self.indices: list[int] = []
        self.there: list[bool] = []

    def shown(self) -> Iterator[Shown]:
        """Batches of all frames, in order; boxes are NaN where there is no face."""
        from pipelines.animate.face import cut_of, in_crop

        cut = cut_of(self.track.square, self.probed["width"], self.probed["height"], self.side)
        decoded = media.stream_frames(self.path, self.probed, cut.size, cut.box)
        after = -1
        while batch := [
            (cut.whole(frame), second) for frame, second in islice(decoded, self.reenactor.batch)
        ]:
            frames, seconds, indices = [], [], []
            for frame, second in batch:
                at = self.times.nearest(second, after)
                if at > after:  # else a frame more than the index of the file knows
                    frames.append(frame)
                    seconds.append(second)
                    indices.append(after := at)
            if not frames:
                return
            boxes = in_crop(self.track, self.track.at(np.array(seconds)), self.side)
            self.indices += indices
            self.there += face_shown(boxes).tolist()
            heard = None if self.heard is None else self.heard[indices]
            yield dressed(Shown(frames=np.stack(frames), boxes=boxes, speech=heard), self.landmarker)

    def motions(self, seen: Seen | None = None) -> Iterator[Motion]:
        """Models that want the whole video are given all frames as they are. For others, frames without a
        face have the motion of the last one with a face, those at the start that of the first.
        """
        if self.reenactor.whole:
            yield from map(self.reenactor.motion, ahead(self.shown(), AHEAD))
        else:
            yield from self._held(seen)

    def _held(self, seen: Seen | None) -> Iterator[Motion]:
        last: Motion | None = None
        waiting = 0
        for batch in ahead(self.shown(), AHEAD):
            there = face_shown(batch.boxes)
            if not there.any():
                if last is None:
                    waiting += len(there)
                else:
                    yield taken(last, [0] * len(there))
                continue
            faces = with_faces(batch, there)
            if seen is not None:
                seen(faces)
            motion = self.reenactor.motion(faces)
            place = np.cumsum(there) - 1  # of each frame's motion; -1 before the batch's first face
            if last is None:
                yield taken(motion, [0] * waiting + np.maximum(place, 0).tolist())
            else:
                yield taken(joined([last, motion]), (place + 1).tolist())
            last = taken(motion, [-1])


def face_shown(boxes: np.ndarray) -> np.ndarray:
    """boxes (T,4), NaN where there is no face -> (T,) bool"""
    return ~np.isnan(boxes[:, 0])


def taken(motion: Motion, at: Sequence[int]) -> Motion:
    """The motion of some of its frames."""
    return {name: values[list(at)] for name, values in motion.items()}


def joined(motions: Sequence[Motion]) -> Motion:
    """One after the other."""
    import torch

    return {name: torch.cat([motion[name] for motion in motions]) for name in motions[0]}


def dressed(shown: Shown, landmarker: Any) -> Shown:
    """With landmarks, if there is a landmarker."""
    if landmarker is None:
        return shown
    return replace(shown, landmarks=landmarker.landmarks(shown.frames, shown.boxes))


def with_faces(shown: Shown, there: np.ndarray) -> Shown:
    """Only the frames `there` (T,) bool."""
    landmarks, speech = (None if part is None else part[there] for part in (shown.landmarks, shown.speech))
    return Shown(frames=shown.frames[there], boxes=shown.boxes[there], landmarks=landmarks, speech=speech)


# --- pictures and numbers -----------------------------------------------------------------------------------
class Still:
    """Pictures, each a face's square, as frames of a video."""

    def __init__(self, shown: Shown, reenactor: Reenactor):
        self.frames, self.reenactor = shown, reenactor
        self.times = steady(len(shown.frames))
        self.indices: list[int] = []
        self.there: list[bool] = []

    def motions(self, seen: Seen | None = None) -> Iterator[Motion]:
        """One batch."""
        self.indices += range(len(self.frames.frames))
        self.there += face_shown(self.frames.boxes).tolist()
        if seen is not None:
            seen(self.frames)
        yield self.reenactor.motion(self.frames)


class Numbers:
    """Motion that a file states: an npz of arrays, as the model says it wants them, and `fps` ().

    silence: what the model hears where the file has no field `speech`, by the number of frames. Raises
    ValueError naming the file and the field.
    """

    def __init__(
        self,
        path: Path,
        reenactor: Reenactor,
        silence: Callable[[int], np.ndarray | None] = lambda count: None,
    ):
        fields = read_numbers(path)
        try:
            rate = stated_rate(fields.pop("fps", None))
            self._motion = reenactor.stated(fields)
            quiet = silence(len(next(iter(self._motion.values()))))
            if quiet is not None and "speech" not in fields:
                self._motion = reenactor.stated(fields | {"speech": quiet})
        except Exception as error:
            if meaning(error) != "user":
                raise
            raise UserError(f"{path}: {error}") from None
        self.times = steady(len(next(iter(self._motion.values()))), rate)
        self.indices: list[int] = []
        self.there: list[bool] = []

    def motions(self, seen: Seen | None = None) -> Iterator[Motion]:
        """One batch."""
        count = len(self.times.shown)
        self.indices += range(count)
        self.there += [True] * count
        yield self._motion


def read_numbers(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file; nothing in it is unpickled. UserError, naming the field, if it is none."""
    field = ""
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            raise ValueError("it holds one array, expected an npz of several")
        arrays = {}
        with found as file:
            for field in file.files:
                arrays[field] = file[field]
                if not isinstance(arrays[field], np.ndarray):  # numpy hands over what else lies in the zip
                    raise ValueError("found other bytes, expected an array")
        return arrays
    except UNREADABLE as error:
        told = f"{field}: {error}" if field else str(error)
        raise UserError(f"{path} is no file of numbers: {told}") from None


def stated_rate(value: np.ndarray | None) -> Fraction:
    """fps () -> frames a second; 25 if not given."""
    if value is None:
        return Fraction(media.FPS)
    if value.shape or value.dtype.kind not in "fiu" or not 1 <= value <= FASTEST:
        raise UserError(f"fps: found {value.dtype} {value.shape}, expected one number from 1 to {FASTEST}")
    return Fraction(float(value)).limit_denominator(1001)


def steady(frames: int, rate: Fraction = Fraction(media.FPS)) -> Timeline:
    """Times of frames of a constant rate."""
    base, step = Fraction(1, rate.numerator * 1000), rate.denominator * 1000
    return Timeline(base, tuple(range(0, frames * step, step)), frames * step, rate, True)


# --- where relative motion starts ---------------------------------------------------------------------------
def plan_motion(
    driving: Driving, source: Portrait, best_frame: bool, nets: Mapping[str, Any], say: Say
) -> tuple[Iterable[Motion], Motion | None, int]:
    """Batches of motion, the motion where relative motion starts (None: that of the first frame), and its
    frame."""
    if not best_frame:
        return driving.motions(), None, 0
    likeness = Likeness(source, nets["landmarker"])
    motions = list(driving.motions(likeness.look))
    start = int(np.flatnonzero(driving.there)[likeness.best()])
    say(f"relative motion starts at driving frame {start}, whose face is most like the source's")
    before = 0
    for motion in motions:
        count = len(next(iter(motion.values())))
        if start < before + count:
            return motions, taken(motion, [start - before]), start
        before += count
    raise AssertionError(f"frame {start} of {before}")


class Likeness:
    """How much the face of each driving frame is posed as the source's (supplement 7.3).

    68 landmarks less their mean, over the root of their hull's area; the sum of squared differences.
    """

    def __init__(self, source: Portrait, landmarker: Any):
        self._landmarker = landmarker
        points = landmarker.landmarks(source.crop[None], source.box[None])[0]
        self._wanted = normalised(points)
        if self._wanted is None:
            raise UserError(f"{landmarker.name} places no landmarks on the source; leave out --best-frame")
        self._distances: list[float] = []

    def look(self, driving: Shown) -> None:
        for points in self._landmarker.landmarks(driving.frames, driving.boxes):
            shape = normalised(points)
            gap = np.inf if shape is None else float(np.square(shape - self._wanted).sum())
            self._distances.append(gap)

    def best(self) -> int:
        """Number, among the frames with a face, of the most alike; the earliest of equals. UserError where
        none has landmarks.
        """
        if not np.isfinite(self._distances).any():
            raise UserError(
                f"{self._landmarker.name} places no landmarks on any driving frame; leave out --best-frame"
            )
        return int(np.argmin(self._distances))


def normalised(points: np.ndarray) -> np.ndarray | None:
    """Landmarks (68,2) -> about 0, their hull of area 1; None where they are missing or in a line."""
    area = hull_area(points)
    return (points - points.mean(0)) / area**0.5 if area > 0 else None


# --- ahead of what is asked for -----------------------------------------------------------------------------
END = object()


def ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """The same items, made in a thread up to `depth` of them before they are asked for."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[Any]] = deque(pool.submit(next, items, END) for _ in range(depth))
        while (item := waiting.popleft().result()) is not END:
            waiting.append(pool.submit(next, items, END))
            yield item
