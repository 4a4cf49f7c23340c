"""`reenact animate`: a portrait moves as the person in a video does; the same frames, times and sound.

Two passes over the driving video, neither of which holds it: one finds the face, one reads motion from the
face's square while the model renders and the frames before are encoded. With `--best-frame` the motion of the
whole video (a few kB a frame) is read before the first frame is rendered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from models.animation import Motion, Reenactor, Shown, Transfer
from pipelines.engine.node import Rejected
from pipelines.preprocess import media
from pipelines.preprocess.clips import ClipsConfig

if TYPE_CHECKING:
    from pipelines.preprocess.media.writing import Timeline
    from pipelines.preprocess.one_face import FaceTrack, Portrait

T = TypeVar("T")
Say = Callable[[str], None]

MOST_LOST = 0.5
"""Share of the driving frames without a face beyond which there is nothing to drive with."""
AHEAD = 2
"""Batches of driving frames decoded before they are asked for."""
WAITING = 16
"""Images that may wait to be encoded."""
LONGEST = 1920
"""Longest side of a picture that is pasted back into, in pixels; larger ones are scaled down."""
FEATHER = 0.12
"""Of the square's side: over this width the rendered face fades into the portrait."""
FAR = 1.7
"""A driving square this much wider than one frame needs is told of."""
SMALL = 0.5
"""Faces whose square is smaller than this share of the model's image side are told of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What to make of sources and driving video."""

    transfer: Transfer = field(default_factory=Transfer)
    best_frame: bool = False
    """Relative motion starts at the driving frame whose face is most like the source's, not at the first."""
    paste_back: bool = False
    """The whole portrait, with the face moving in it, in place of the model's square."""
    clips: ClipsConfig = field(default_factory=ClipsConfig)
    """How faces are found and cut: as the training clips were."""

    def __post_init__(self) -> None:
        if self.best_frame and self.transfer.motion != "relative":
            raise ValueError("best-frame is where relative motion starts; add --motion relative")


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What was written."""

    frames: int
    lost: int
    """Frames without a face, shown with the motion of the last one with a face"""
    seconds: float
    size: tuple[int, int]
    rate: str
    sound: str
    start: int
    """Driving frame where relative motion starts; 0 of absolute motion"""


def animate(
    reenactor: Reenactor,
    sources: Sequence[Path],
    driving: Path,
    out: Path,
    wish: Wish,
    nets: Mapping[str, Any],
    tags: Mapping[str, str],
    say: Say = lambda text: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Made:
    """Write `out`. nets: a FaceDetector as "detector", with best_frame a Landmarker as "landmarker".

    Raises ValueError: no face in a source, or in most of the driving frames; motion that the model cannot
    transfer; files that cannot be read.
    """
    from pipelines.preprocess.media.writing import Mp4Writer, timeline

    reenactor.check(wish.transfer)
    found = [find_source(path, wish.clips, nets["detector"], reenactor.image_size, say) for path in sources]
    portraits = [portrait for portrait, _ in found]
    try:
        probed = media.probe(driving)
        times = timeline(driving, probed["start"])
        track, lost = find_driving(driving, probed, times, wish.clips, nets["detector"], say)
        shown = Shown(
            frames=np.stack([p.crop for p in portraits]), boxes=np.stack([p.box for p in portraits])
        )
        scene = reenactor.scene(shown)
        film = Film(driving, probed, times, track, wish.clips.size, reenactor)
        motions, first, start = plan_motion(film, portraits[0], wish, nets, say)
        canvas = Canvas(found[0][1], portraits[0].square) if wish.paste_back else None
        size = (reenactor.image_size, reenactor.image_size) if canvas is None else canvas.size
        faces = rendered(reenactor, scene, motions, first, wish.transfer)
        images = faces if canvas is None else map(canvas.with_face, faces)
        sound_of = driving if probed["audio_rate"] else None
        with Mp4Writer(out, size, times, tags, sound_of, probed["start"]) as writer:
            count = written(writer, images, film.indices, lambda done: progress(done, len(times.shown)))
    except Rejected as error:
        raise ValueError(f"{driving}: {error.sentence}") from error
    if count != len(times.shown):
        say(f"{driving}: {count} of {len(times.shown)} frames could be decoded")
    sound = "no sound" if writer.sound is None else writer.sound.told
    rate = f"{times.rate} frames/s" if times.constant else f"{float(times.rate):.3f} frames/s on average"
    return Made(frames=count, lost=lost, seconds=(times.end - times.shown[0]) * float(times.base), size=size,
                rate=rate, sound=sound, start=start)  # fmt: skip


# --- faces --------------------------------------------------------------------------------------------------
def find_source(
    path: Path, clips: ClipsConfig, detector: Any, side: int, say: Say
) -> tuple[Portrait, np.ndarray]:
    """A source's face, and the whole picture. ValueError where it shows none."""
    from pipelines.preprocess.media.picture import read_picture
    from pipelines.preprocess.one_face import portrait

    picture = read_picture(path)
    for note in picture.notes:
        say(f"{path}: {note}")
    found = portrait(picture.pixels, clips, detector)
    height, width = picture.pixels.shape[:2]
    if found is None:
        raise ValueError(f"{path}: {detector.name} sees no face in its {width} x {height} pixels")
    if found.others:
        say(f"{path}: {found.others + 1} faces; the largest is used")
    across = int(found.square[2] - found.square[0])
    if across < SMALL * side:
        say(f"{path}: the face's square is {across} px wide, the model's pictures are {side} px")
    return found, picture.pixels


def find_driving(
    path: Path, probed: Mapping[str, Any], times: Timeline, clips: ClipsConfig, detector: Any, say: Say
) -> tuple[FaceTrack, int]:
    """The driving face, and in how many frames it is not there. ValueError where that is most of them."""
    from pipelines.preprocess.one_face import face_track

    track = face_track(path, probed, clips, detector)
    if track is None:
        raise ValueError(f"{path}: {detector.name} sees no face in any frame it was shown")
    there = face_shown(track.at(times.seconds))
    lost = int((~there).sum())
    if lost > MOST_LOST * len(there):
        raise ValueError(f"{path}: no face in {lost} of {len(there)} frames, more than {MOST_LOST:.0%}")
    if lost:
        say(f"{path}: no face in {lost} of {len(there)} frames; each keeps the last face's motion")
    if track.others:
        say(f"{path}: up to {track.others + 1} faces at a time; the largest drives")
    across = float(np.median(track.boxes[:, 2:] - track.boxes[:, :2])) * (1 + 2 * clips.margin)
    if (side := track.square[2] - track.square[0]) > FAR * across:
        say(
            f"{path}: the face moves far: its square is {side} px wide, {across:.0f} would do for one frame; "
            "the model learned from closer crops, so a video cut into parts will look better"
        )
    return track, lost


# --- motion -------------------------------------------------------------------------------------------------
class Film:
    """The driving video as batches of its face's square, decoded ahead in a thread.

    `indices` and `there` grow with what is handed out: which frame of the timeline each decoded frame is, and
    whether it shows a face.
    """

    def __init__(
        self,
        path: Path,
        probed: Mapping[str, Any],
        times: Timeline,
        track: FaceTrack,
        side: int,
        reenactor: Reenactor,
    ):
        self.path, self.probed, self.times, self.track = path, probed, times, track
        self.side, self.reenactor = side, reenactor
        self.indices: list[int] = []
        self.there: list[bool] = []

    def shown(self) -> Iterator[Shown]:
        """Batches of all frames, in order; boxes are NaN where there is no face."""
        from pipelines.preprocess.one_face import cut_of, in_crop

        cut = cut_of(self.track.square, self.probed["width"], self.probed["height"], self.side)
        decoded = media.stream_frames(self.path, self.probed, cut.size, cut.box)
        after = -1
        while batch := [
            (cut.whole(frame), second) for frame, second in islice(decoded, self.reenactor.batch)
        ]:
            frames, seconds = [], []
            for frame, second in batch:
                at = self.times.nearest(second, after)
                if at > after:  # else a frame more than the index of the file knows
                    frames.append(frame)
                    seconds.append(second)
                    self.indices.append(after := at)
            if not frames:
                return
            boxes = in_crop(self.track, self.track.at(np.array(seconds)), self.side)
            self.there += face_shown(boxes).tolist()
            yield Shown(frames=np.stack(frames), boxes=boxes)

    def motions(self, seen: Callable[[Shown], None] | None = None) -> Iterator[Motion]:
        """The motion of every frame, in batches; frames without a face have that of the last one with a face,
        those at the start that of the first. seen: called with the frames of each batch that show a face."""
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
            faces = Shown(frames=batch.frames[there], boxes=batch.boxes[there])
            if seen is not None:
                seen(faces)
            motion = self.reenactor.motion(faces)
            place = np.cumsum(there) - 1  # of each frame's motion; -1 before the batch's first face
            if last is None:
                yield taken(motion, [0] * waiting + np.maximum(place, 0).tolist())
            else:
                yield taken(joined(last, motion), (place + 1).tolist())
            last = taken(motion, [-1])


def face_shown(boxes: np.ndarray) -> np.ndarray:
    """boxes (T,4), NaN where there is no face -> (T,) bool"""
    return ~np.isnan(boxes[:, 0])


def taken(motion: Motion, at: Sequence[int]) -> Motion:
    """The motion of some of its frames."""
    return {name: values[list(at)] for name, values in motion.items()}


def joined(one: Motion, other: Motion) -> Motion:
    import torch

    return {name: torch.cat([values, other[name]]) for name, values in one.items()}


def plan_motion(
    film: Film, source: Portrait, wish: Wish, nets: Mapping[str, Any], say: Say
) -> tuple[Iterable[Motion], Motion | None, int]:
    """Batches of motion, the motion where relative motion starts (None: that of the first frame), and its
    frame."""
    if not wish.best_frame:
        return film.motions(), None, 0
    likeness = Likeness(source, nets["landmarker"])
    motions = list(film.motions(likeness.look))
    start = int(np.flatnonzero(film.there)[likeness.best()])
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
            raise ValueError(f"{landmarker.name} places no landmarks on the source; leave out --best-frame")
        self._distances: list[float] = []

    def look(self, driving: Shown) -> None:
        for points in self._landmarker.landmarks(driving.frames, driving.boxes):
            shape = normalised(points)
            gap = np.inf if shape is None else float(np.square(shape - self._wanted).sum())
            self._distances.append(gap)

    def best(self) -> int:
        """Number, among the frames with a face, of the most alike; the earliest of equals."""
        return int(np.argmin(self._distances))


def normalised(points: np.ndarray) -> np.ndarray | None:
    """Landmarks (68,2) -> about 0, their hull of area 1; None where they are missing or in a line."""
    from pipelines.preprocess.keypoints import hull_area

    area = hull_area(points)
    return (points - points.mean(0)) / area**0.5 if area > 0 else None


# --- pictures -----------------------------------------------------------------------------------------------
def rendered(
    reenactor: Reenactor, scene: Any, motions: Iterable[Motion], first: Motion | None, how: Transfer
) -> Iterator[np.ndarray]:
    """Batches of motion -> images (I,I,3) uint8. first: where relative motion starts; None = the first
    frame."""
    for motion in motions:
        first = taken(motion, [0]) if first is None else first
        moved = reenactor.transfer(scene, motion, first, how)
        count = len(next(iter(moved.values())))
        for at in range(0, count, reenactor.batch):
            part = {name: values[at : at + reenactor.batch] for name, values in moved.items()}
            yield from (reenactor.render(scene, part) * 255 + 0.5).astype(np.uint8)


class Canvas:
    """The whole portrait, into which the rendered square fades; even sides, as 4:2:0 wants them."""

    def __init__(self, picture: np.ndarray, square: np.ndarray):
        from PIL import Image

        height, width = picture.shape[:2]
        zoom = min(1.0, LONGEST / max(height, width))
        if zoom < 1:
            size = max(2, round(width * zoom)), max(2, round(height * zoom))
            picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
        self._picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
        height, width = self._picture.shape[:2]
        edges = np.clip(np.round(square * zoom).astype(int), 0, [width, height] * 2)
        x0, y0, x1, y1 = (int(edge) for edge in edges)
        self._place = slice(y0, y1), slice(x0, x1)
        across = fading(x1 - x0, left=x0 > 0, right=x1 < width)
        down = fading(y1 - y0, left=y0 > 0, right=y1 < height)
        self._mask = (down[:, None] * across)[..., None].astype(np.float32)
        self._under = self._picture[self._place] * (1 - self._mask) + 0.5

    @property
    def size(self) -> tuple[int, int]:
        """(W,H)"""
        return self._picture.shape[1], self._picture.shape[0]

    def with_face(self, image: np.ndarray) -> np.ndarray:
        """image (I,I,3) uint8 -> (H,W,3) uint8"""
        from PIL import Image

        out = self._picture.copy()
        size = self._mask.shape[1], self._mask.shape[0]
        patch = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        out[self._place] = (self._under + patch * self._mask).astype(np.uint8)
        return out


def fading(length: int, left: bool, right: bool) -> np.ndarray:
    """(length,) weights: 1 inside, falling to 0 at the ends that are asked for, without a kink."""
    at = np.arange(length) + 0.5
    weight = np.ones(length)
    for wanted, distance in ((left, at), (right, length - at)):
        share = np.clip(distance / (FEATHER * length), 0, 1)
        weight *= share**2 * (3 - 2 * share) if wanted else 1
    return weight


# --- side by side with rendering ----------------------------------------------------------------------------
END = object()


def ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """The same items, made in a thread up to `depth` of them before they are asked for."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[Any]] = deque(pool.submit(next, items, END) for _ in range(depth))
        while (item := waiting.popleft().result()) is not END:
            waiting.append(pool.submit(next, items, END))
            yield item


def written(
    writer: Any, images: Iterable[np.ndarray], indices: Sequence[int], progress: Callable[[int], None]
) -> int:
    """Encode the images in a thread, each at the time of its frame -> how many there were."""
    count = 0
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[None]] = deque()
        for image in images:
            waiting.append(pool.submit(writer.write, image, indices[count]))
            count += 1
            if len(waiting) > WAITING:
                waiting.popleft().result()
            progress(count)
        while waiting:
            waiting.popleft().result()
    return count
