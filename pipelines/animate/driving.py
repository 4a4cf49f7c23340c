"""What `reenact animate` reads: the faces of its sources, and what drives (a video, a picture or arrays) with
its times and the motion that a model reads from it.

Two passes over a driving video, neither of which holds it: one finds the face, one reads motion from the
face's square.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from models.perception.file_arrays import READ_ERRORS
from models.perception.interfaces import FaceDetector, Landmarker
from models.reenactor import MAX_FACELESS_SHARE, FaceFrames, Motion, Reenactor
from pipelines import media
from pipelines.animate.face_points import drop_slipped_landmarks, place_landmarks
from pipelines.animate.sound import audio_features_at, silence_features
from pipelines.errors import UserError, error_meaning
from pipelines.media.encoding import FrameTimeline
from pipelines.preprocess.clips_config import ClipsConfig

if TYPE_CHECKING:
    from pipelines.animate.face import FaceTrack, SourcePortrait
    from pipelines.animate.perception import PerceptionNets
    from pipelines.media.probe_schema import Probe
    from pipelines.media.still_image import DecodedPicture

T = TypeVar("T")
Log = Callable[[str], None]
FacesCallback = Callable[[FaceFrames], None]

PREFETCH_BATCHES = 2
"""Batches of driving frames decoded before they are asked for."""
WIDE_CROP_WARNING_RATIO = 1.7
"""A driving square this much wider than one frame needs is reported."""
SMALL_SQUARE_RATIO = 0.5
"""Faces whose square is smaller than this share of the model's image side are reported."""
ARRAYS_SUFFIX = ".npz"
"""Suffix of files of arrays that drive."""
MAX_MOTION_ARRAY_FPS = 240
"""Frames a second, at most, of arrays."""


class Driver(Protocol):
    """What drives."""

    times: FrameTimeline
    indices: list[int]
    """Which frame of the timeline each frame of motion is; grows as `motions` yields them."""
    has_face: list[bool]
    """Whether it shows a face; grows likewise."""

    def motions(self, on_faces: FacesCallback | None = None) -> Iterator[Motion]:
        """The motion of every frame, in batches. on_faces: called with the frames that show a face."""
        ...


# --- sources ------------------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFace:
    """A source picture and its face."""

    path: Path
    picture: np.ndarray
    """(H,W,3) uint8: all of it"""
    portrait: SourcePortrait


def read_source_face(
    path: Path, clips: ClipsConfig, detector: FaceDetector, side: int, log: Log
) -> SourceFace:
    """The largest face of a picture's file. UserError where it shows none."""
    from pipelines.media.still_image import read_picture

    return find_largest_face(path, read_picture(path), clips, detector, side, log)


def find_largest_face(
    path: Path, picture: DecodedPicture, clips: ClipsConfig, detector: FaceDetector, side: int, log: Log
) -> SourceFace:
    """A picture's largest face. side: of the model's pictures. UserError where it shows none."""
    from pipelines.animate.face import cut_portrait

    for note in picture.notes:
        log(f"{path}: {note}")
    found = cut_portrait(picture.pixels, clips, detector)
    height, width = picture.pixels.shape[:2]
    if found is None:
        raise UserError(f"{path}: {detector.name} sees no face in its {width} x {height} pixels")
    if found.others:
        log(f"{path}: {found.others + 1} faces; the largest is used")
    across = int(found.square[2] - found.square[0])
    if across < SMALL_SQUARE_RATIO * side:
        log(f"{path}: the face's square is {across} px wide, the model's pictures are {side} px")
    return SourceFace(path=path, picture=picture.pixels, portrait=found)


def source_face_frames(
    sources: Sequence[SourceFace], nets: PerceptionNets, log: Log, reads: Collection[str]
) -> FaceFrames:
    """Sources as a model reads them, those whose landmarks slip too: a picture has no other frame, so it is
    said. reads: of the reenactor."""
    landmarker = nets.landmarker if "landmarks" in reads else None
    crops = np.stack([source.portrait.crop for source in sources])
    boxes = np.stack([source.portrait.box for source in sources])
    faces, slipped = place_landmarks(FaceFrames(frames=crops, boxes=boxes), landmarker, reads, nets.max_slip)
    for at in np.flatnonzero(slipped).tolist():
        log(f"{sources[at].path}: its landmarks depend on the box they are looked for in, and may be wrong")
    return faces


def keep_first_frame(faces: FaceFrames) -> FaceFrames:
    """The first of the frames."""
    return select_face_frames(faces, np.arange(len(faces.frames)) == 0)


# --- a video ------------------------------------------------------------------------------------------------
def track_driving_face(
    path: Path,
    probed: Probe,
    times: FrameTimeline,
    clips: ClipsConfig,
    detector: FaceDetector,
    log: Log,
    bridged: bool = False,
) -> tuple[FaceTrack, int]:
    """The driving face's track, and the number of frames without it. bridged: the model itself finds motion
    for those (`Reenactor.needs_full_video`). UserError where most frames have none.
    """
    from pipelines.animate.face import track_face

    track = track_face(path, probed, clips, detector)
    if track is None:
        raise UserError(f"{path}: {detector.name} finds no face in any frame")
    missing, count = (
        int((~face_presence_mask(track.boxes_at_seconds(times.seconds))).sum()),
        len(times.stamps),
    )
    if missing > MAX_FACELESS_SHARE * count:
        raise UserError(f"{path}: no face in {missing} of {count} frames, more than {MAX_FACELESS_SHARE:.0%}")
    if missing:
        motion = "" if bridged else "; each keeps the last face's motion"
        log(f"{path}: no face in {missing} of {count} frames{motion}")
    if track.others:
        log(f"{path}: up to {track.others + 1} faces at a time; the largest drives")
    growth = clips.margin if clips.rules == "steady" else clips.increase
    across = float(np.median(track.boxes[:, 2:] - track.boxes[:, :2])) * (1 + 2 * growth)
    side = track.square[2] - track.square[0]
    # headgan rules frame the median box: however far a face moves, its square is as wide
    if clips.rules != "headgan" and side > WIDE_CROP_WARNING_RATIO * across:
        log(
            f"{path}: the face moves far: its square is {side} px wide, {across:.0f} would do for one frame; "
            "the model learned from closer crops, so a video cut into parts will look better"
        )
    return track, missing


class VideoDriver:
    """The driving video as batches of its face's square, decoded ahead in a thread.

    landmarker: places landmarks, where the model reads them, and max_slip says which are used. speech (T,A):
    audio features at each frame of the timeline, where the model reads them.
    """

    def __init__(
        self,
        path: Path,
        probed: Probe,
        times: FrameTimeline,
        track: FaceTrack,
        side: int,
        reenactor: Reenactor,
        landmarker: Landmarker | None = None,
        speech: np.ndarray | None = None,
        max_slip: float | None = None,
    ):
        self.path, self.probed, self.times, self.track = path, probed, times, track
        self.side, self.reenactor = side, reenactor
        self.landmarker, self.speech, self.max_slip = landmarker, speech, max_slip
        self.indices: list[int] = []
        self.has_face: list[bool] = []
        self.slipped = 0
        """Frames whose landmarks depend on the box they were found in; they count as without a face."""

    def faces(self) -> Iterator[FaceFrames]:
        """Batches of all frames, in order; boxes are NaN where there is no face."""
        from pipelines.animate.face import boxes_in_crop, plan_padded_crop

        cut = plan_padded_crop(self.track.square, self.probed["width"], self.probed["height"], self.side)
        decoded = media.stream_frames(self.path, self.probed, cut.size, cut.box)
        after = -1
        while batch := [
            (cut.pad_crop(frame), second) for frame, second in islice(decoded, self.reenactor.batch)
        ]:
            frames, seconds, indices = [], [], []
            for frame, second in batch:
                at = self.times.nearest_frame(second, after)
                if at > after:  # else a frame more than the index of the file knows
                    frames.append(frame)
                    seconds.append(second)
                    indices.append(after := at)
            if not frames:
                return
            boxes = boxes_in_crop(self.track, self.track.boxes_at_seconds(np.array(seconds)), self.side)
            speech = None if self.speech is None else self.speech[indices]
            faces = FaceFrames(frames=np.stack(frames), boxes=boxes, audio_features=speech)
            reads = self.reenactor.reads
            faces, slipped = drop_slipped_landmarks(faces, self.landmarker, reads, self.max_slip)
            self.slipped += slipped
            self.indices += indices
            self.has_face += face_presence_mask(faces.boxes).tolist()
            yield faces

    def motions(self, on_faces: FacesCallback | None = None) -> Iterator[Motion]:
        """Models that want the whole video are given all frames as they are. For others, frames without a
        face have the motion of the last one with a face, those at the start that of the first.
        """
        if self.reenactor.needs_full_video:
            yield from map(self.reenactor.extract_motion, prefetch(self.faces(), PREFETCH_BATCHES))
        else:
            yield from self._repeat_last(on_faces)

    def _repeat_last(self, on_faces: FacesCallback | None) -> Iterator[Motion]:
        last: Motion | None = None
        waiting = 0  # frames before the first face
        for batch in prefetch(self.faces(), PREFETCH_BATCHES):
            visible = face_presence_mask(batch.boxes)
            if not visible.any():
                if last is None:
                    waiting += len(visible)
                else:
                    yield select_motion_frames(last, [0] * len(visible))
                continue
            faces = select_face_frames(batch, visible)
            if on_faces is not None:
                on_faces(faces)
            motion = self.reenactor.extract_motion(faces)
            place = np.cumsum(visible) - 1  # of each frame's motion; -1 before the batch's first face
            if last is None:
                yield select_motion_frames(motion, [0] * waiting + np.maximum(place, 0).tolist())
            else:
                yield select_motion_frames(concat_motions([last, motion]), (place + 1).tolist())
            last = select_motion_frames(motion, [-1])
        if last is None and waiting:
            raise UserError(
                f"{self.path}: none of {waiting} frames has a face that drives; in {self.slipped} of them "
                "landmarks depend on the box they are looked for in"
            )


def face_presence_mask(boxes: np.ndarray) -> np.ndarray:
    """boxes (T,4), NaN where there is no face -> (T,) bool"""
    return ~np.isnan(boxes[:, 0])


def select_motion_frames(motion: Motion, at: Sequence[int]) -> Motion:
    """The motion of some of its frames."""
    return {name: values[list(at)] for name, values in motion.items()}


def concat_motions(motions: Sequence[Motion]) -> Motion:
    """One after the other."""
    import torch

    return {name: torch.cat([motion[name] for motion in motions]) for name in motions[0]}


def select_face_frames(faces: FaceFrames, mask: np.ndarray) -> FaceFrames:
    """The frames where mask (T,) bool is true."""
    parts: dict[str, np.ndarray] = {
        one.name: part[mask] for one in fields(faces) if (part := getattr(faces, one.name)) is not None
    }
    return FaceFrames(**parts)


# --- pictures and arrays ------------------------------------------------------------------------------------
class ImageDriver:
    """Pictures, each a face's square, as frames of a video."""

    def __init__(self, faces: FaceFrames, reenactor: Reenactor):
        self.faces, self.reenactor = faces, reenactor
        self.times = constant_timeline(len(faces.frames))
        self.indices: list[int] = []
        self.has_face: list[bool] = []

    def motions(self, on_faces: FacesCallback | None = None) -> Iterator[Motion]:
        """One batch."""
        self.indices += range(len(self.faces.frames))
        self.has_face += face_presence_mask(self.faces.boxes).tolist()
        if on_faces is not None:
            on_faces(self.faces)
        yield self.reenactor.extract_motion(self.faces)


class ArrayDriver:
    """Motion from a file: an npz of the arrays that the model's README lists, and `fps` ().

    silence: number of frames -> audio features where the file has no field `speech`. UserError, which names
    the file and the field, for wrong arrays.
    """

    def __init__(
        self,
        path: Path,
        reenactor: Reenactor,
        silence: Callable[[int], np.ndarray | None] = lambda count: None,
    ):
        fields = read_motion_arrays(path)
        try:
            rate = parse_fps_array(fields.pop("fps", None))
            self._motion = reenactor.motion_from_arrays(fields)
            quiet = silence(len(next(iter(self._motion.values()))))
            if quiet is not None and "speech" not in fields:
                self._motion = reenactor.motion_from_arrays(fields | {"speech": quiet})
        except Exception as error:
            if error_meaning(error) != "user":
                raise
            raise UserError(f"{path}: {error}") from None
        self.times = constant_timeline(len(next(iter(self._motion.values()))), rate)
        self.indices: list[int] = []
        self.has_face: list[bool] = []

    def motions(self, on_faces: FacesCallback | None = None) -> Iterator[Motion]:
        """One batch."""
        count = len(self.times.stamps)
        self.indices += range(count)
        self.has_face += [True] * count
        yield self._motion


def read_motion_arrays(path: Path) -> dict[str, np.ndarray]:
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
    except READ_ERRORS as error:
        problem = f"{field}: {error}" if field else str(error)
        raise UserError(f"{path} is no file of arrays: {problem}") from None


def parse_fps_array(value: np.ndarray | None) -> Fraction:
    """fps () -> frames a second; 25 if not given."""
    if value is None:
        return Fraction(media.FPS)
    if value.shape or value.dtype.kind not in "fiu" or not 1 <= value <= MAX_MOTION_ARRAY_FPS:
        raise UserError(
            f"fps: found {value.dtype} {value.shape}, expected one number from 1 to {MAX_MOTION_ARRAY_FPS}"
        )
    return Fraction(float(value)).limit_denominator(1001)


def constant_timeline(frames: int, rate: Fraction = Fraction(media.FPS)) -> FrameTimeline:
    """Times of frames of a constant rate."""
    base, step = Fraction(1, rate.numerator * 1000), rate.denominator * 1000
    return FrameTimeline(base, tuple(range(0, frames * step, step)), frames * step, rate, True)


# --- what drives --------------------------------------------------------------------------------------------
def open_driving_input(
    reenactor: Reenactor,
    driving: Path | None,
    sources: FaceFrames,
    clips: ClipsConfig,
    nets: PerceptionNets,
    log: Log,
) -> Driver:
    """What drives: arrays by the suffix of their file, a picture or a video by what is in it; None: the first
    source itself."""
    from pipelines.media.encoding import read_timeline
    from pipelines.media.still_image import DecodedPicture, read_picture_or_probe

    landmarker = nets.landmarker if "landmarks" in reenactor.reads else None

    def silence(frames: int) -> np.ndarray | None:
        return silence_features(frames, reenactor, nets)

    if driving is None:
        return ImageDriver(replace(keep_first_frame(sources), audio_features=silence(1)), reenactor)
    if driving.suffix.lower() == ARRAYS_SUFFIX:
        return ArrayDriver(driving, reenactor, silence)
    probed = read_picture_or_probe(driving)
    if isinstance(probed, DecodedPicture):
        face = find_largest_face(driving, probed, clips, nets.detector, reenactor.image_size, log)
        return ImageDriver(
            replace(source_face_frames([face], nets, log, reenactor.reads), audio_features=silence(1)),
            reenactor,
        )
    times = read_timeline(driving, probed["start"], probed["video_index"])
    track, _ = track_driving_face(
        driving, probed, times, clips, nets.detector, log, reenactor.needs_full_video
    )
    speech = audio_features_at(driving, probed, times, reenactor, nets, log)
    if reenactor.needs_full_video:
        log(f"{driving}: the motion of all {len(times.stamps)} frames is read before the first is rendered")
    return VideoDriver(
        driving, probed, times, track, clips.size, reenactor, landmarker, speech, nets.max_slip
    )


# --- decoding ahead ----------------------------------------------------------------------------------------
END_OF_ITEMS = object()


def prefetch(items: Iterator[T], depth: int) -> Iterator[T]:
    """The same items, up to `depth` of them computed in a thread before they are asked for."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[Any]] = deque(pool.submit(next, items, END_OF_ITEMS) for _ in range(depth))
        while (item := waiting.popleft().result()) is not END_OF_ITEMS:
            waiting.append(pool.submit(next, items, END_OF_ITEMS))
            yield item
