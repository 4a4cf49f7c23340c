"""`reenact animate`: a portrait moves as the person in a video does; the same frames, times and sound.

The driving video is read while the model renders and the frames before are encoded. For models that want it
whole, and with `--best-frame`, its motion (a few kB a frame) is read before the first frame is rendered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.reenactor import Motion, Reenactor, Shown, Transfer
from pipelines.animate.canvas import Canvas
from pipelines.animate.driving import (
    NUMBERS,
    Driving,
    Film,
    Numbers,
    Still,
    dressed,
    find_driving,
    joined,
    plan_motion,
    read_numbers,
    taken,
    with_faces,
)
from pipelines.animate.sound import heard_at, silence
from pipelines.errors import Rejected, UserError, meaning
from pipelines.preprocess.clips import ClipsConfig

if TYPE_CHECKING:
    from pipelines.animate.face import Portrait
    from pipelines.media.sound_track import Sound
    from pipelines.media.still_image import Picture

Say = Callable[[str], None]

WAITING = 16
"""Images that may wait to be encoded."""
SMALL = 0.5
"""Faces whose square is smaller than this share of the model's image side are told of."""
PICTURE = ".png"
"""Name of an output that is one picture, not a video."""


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
    expression_of: Path | None = None
    """A picture whose expression every frame gets."""

    def __post_init__(self) -> None:
        if self.best_frame and self.transfer.motion != "relative":
            raise UserError("best-frame is where relative motion starts; add --motion relative")

    @property
    def edits(self) -> list[str]:
        """What is changed of the motion, for people."""
        lent = ["expression of another picture"] if self.expression_of else []
        return [*lent, *self.transfer.edit.told]


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What was written."""

    frames: int
    lost: int
    """Driving frames without a face"""
    seconds: float
    size: tuple[int, int]
    rate: str
    sound: str
    start: int
    """Driving frame where relative motion starts; 0 of absolute motion"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A portrait that was found."""

    path: Path
    picture: np.ndarray
    """(H,W,3) uint8: all of it"""
    portrait: Portrait


def animate(
    reenactor: Reenactor,
    sources: Sequence[Path],
    driving: Path | None,
    out: Path,
    wish: Wish,
    nets: Mapping[str, Any],
    tags: Mapping[str, str],
    say: Say = lambda text: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    device: str = "cpu",
) -> Made:
    """Write `out`, a video or one picture. driving: a video, a picture or numbers; None: the first source
    itself, edited. nets: a FaceDetector as "detector"; with best_frame, and for models that read landmarks,
    a Landmarker as "landmarker"; a speech encoder that is a net, by its name, which runs on `device`.

    Raises ValueError: no face in a source, or in most of the driving frames; motion that the model cannot
    transfer; files that cannot be read.
    """
    from pipelines.media.encoding import Mp4Writer, PngWriter

    check(reenactor, wish, driving)
    found = [find_source(path, wish.clips, nets["detector"], reenactor.image_size, say) for path in sources]
    landmarker = nets["landmarker"] if "landmarks" in reenactor.reads else None
    shown = shown_of(found, landmarker)
    if wish.expression_of is not None:
        wish = replace(wish, transfer=lent(reenactor, wish, nets["detector"], landmarker, say))
    with blamed(sources[0]):
        scene = reenactor.scene(shown)
    with blamed(driving or sources[0]):
        reel = opened(reenactor, driving, shown, wish, nets, device, say)
        if out.suffix.lower() == PICTURE and len(reel.times.shown) != 1:
            raise UserError(f"{len(reel.times.shown)} frames drive, and {out.name} holds one; name it .mp4")
        motions, first, start = plan_motion(reel, found[0].portrait, wish.best_frame, nets, say)
        canvas = Canvas(found[0].picture, found[0].portrait.square) if wish.paste_back else None
        size = (reenactor.image_size, reenactor.image_size) if canvas is None else canvas.size
        faces = rendered(reenactor, scene, motions, first, wish.transfer, say)
        images = faces if canvas is None else map(canvas.with_face, faces)
        if out.suffix.lower() == PICTURE:
            file = PngWriter(out, tags)
        else:
            file = Mp4Writer(out, size, reel.times, tags, sound_of(reel))
        with file as writer:
            total = len(reel.times.shown)
            count = written(writer, images, reel.indices, lambda done: progress(done, total))
    if count != total:
        say(f"{driving}: {count} of {total} frames could be decoded")
    times, sound = reel.times, "no sound" if writer.sound is None else writer.sound.summary
    rate = f"{times.rate} frames/s" if times.constant else f"{float(times.rate):.3f} frames/s on average"
    return Made(frames=count, lost=reel.there.count(False), seconds=(times.end - times.shown[0]) *
                float(times.base), size=size, rate=rate, sound=sound, start=start)  # fmt: skip


def check_files(pictures: Sequence[Path], driving: Path | None) -> None:
    """UserError for a file that cannot be read, before a model is loaded. pictures: sources, and others that
    must be pictures."""
    from pipelines.media.still_image import picture_or_video, read_picture

    for path in pictures:
        read_picture(path)
    if driving is not None and driving.suffix.lower() == NUMBERS:
        read_numbers(driving)
    elif driving is not None:
        picture_or_video(driving)


def check(reenactor: Reenactor, wish: Wish, driving: Path | None) -> None:
    """UserError or InvalidSettings for a wish that cannot be met, before any work."""
    reenactor.check(wish.transfer)
    if wish.best_frame and reenactor.whole:
        raise UserError(
            "best-frame: this model's relative motion is measured from the mean of the whole driving video, "
            "not from one frame"
        )
    if driving is None and not wish.edits:
        raise UserError(
            "nothing drives: give --driving, or an edit (--frontal, --pose, --turn, --expression, --identity)"
        )


@contextmanager
def blamed(path: Path) -> Iterator[None]:
    """Errors about a file's content name it."""
    try:
        yield
    except Rejected as error:
        raise UserError(f"{path}: {error.sentence}") from error
    except Exception as error:
        if meaning(error) != "user" or str(path) in str(error):
            raise
        raise UserError(f"{path}: {error}") from error


def opened(
    reenactor: Reenactor,
    driving: Path | None,
    sources: Shown,
    wish: Wish,
    nets: Mapping[str, Any],
    device: str,
    say: Say,
) -> Driving:
    """What drives: numbers by the name of their file, a picture or a video by what is in it."""
    from pipelines.media.encoding import timeline
    from pipelines.media.still_image import Picture, picture_or_video

    landmarker = nets["landmarker"] if "landmarks" in reenactor.reads else None

    def quiet(frames: int) -> np.ndarray | None:
        return silence(frames, reenactor, nets, device)

    if driving is None:
        return Still(replace(only_first(sources), speech=quiet(1)), reenactor)
    if driving.suffix.lower() == NUMBERS:
        return Numbers(driving, reenactor, quiet)
    probed = picture_or_video(driving)
    if isinstance(probed, Picture):
        found = face_of(driving, probed, wish.clips, nets["detector"], reenactor.image_size, say)
        return Still(replace(shown_of([found], landmarker), speech=quiet(1)), reenactor)
    times = timeline(driving, probed["start"], probed["video_index"])
    track, _ = find_driving(driving, probed, times, wish.clips, nets["detector"], say, reenactor.whole)
    heard = heard_at(driving, probed, times, reenactor, nets, device, say)
    if reenactor.whole:
        say(f"{driving}: the motion of all {len(times.shown)} frames is read before the first is rendered")
    return Film(driving, probed, times, track, wish.clips.size, reenactor, landmarker, heard)


def sound_of(reel: Driving) -> Sound | None:
    """The sound that the output gets, where a video with sound drives."""
    from pipelines.media.sound_track import Sound

    if not isinstance(reel, Film) or not reel.probed["audio_rate"]:
        return None
    return Sound(reel.path, reel.probed)


# --- faces --------------------------------------------------------------------------------------------------
def find_source(path: Path, clips: ClipsConfig, detector: Any, side: int, say: Say) -> Source:
    """The face of a picture's file. UserError where it shows none."""
    from pipelines.media.still_image import read_picture

    return face_of(path, read_picture(path), clips, detector, side, say)


def face_of(path: Path, picture: Picture, clips: ClipsConfig, detector: Any, side: int, say: Say) -> Source:
    """A picture's face. UserError where it shows none."""
    from pipelines.animate.face import portrait

    for note in picture.notes:
        say(f"{path}: {note}")
    found = portrait(picture.pixels, clips, detector)
    height, width = picture.pixels.shape[:2]
    if found is None:
        raise UserError(f"{path}: {detector.name} sees no face in its {width} x {height} pixels")
    if found.others:
        say(f"{path}: {found.others + 1} faces; the largest is used")
    across = int(found.square[2] - found.square[0])
    if across < SMALL * side:
        say(f"{path}: the face's square is {across} px wide, the model's pictures are {side} px")
    return Source(path=path, picture=picture.pixels, portrait=found)


def shown_of(found: Sequence[Source], landmarker: Any) -> Shown:
    """Portraits as a model sees them."""
    crops = np.stack([one.portrait.crop for one in found])
    boxes = np.stack([one.portrait.box for one in found])
    return dressed(Shown(frames=crops, boxes=boxes), landmarker)


def only_first(shown: Shown) -> Shown:
    """Its first frame."""
    return with_faces(shown, np.arange(len(shown.frames)) == 0)


def lent(reenactor: Reenactor, wish: Wish, detector: Any, landmarker: Any, say: Say) -> Transfer:
    """The wish's transfer, with the expression of its picture."""
    assert wish.expression_of is not None
    found = find_source(wish.expression_of, wish.clips, detector, reenactor.image_size, say)
    shown = shown_of([found], landmarker)
    edit = replace(wish.transfer.edit, expression_of=reenactor.motion(shown))
    how = replace(wish.transfer, edit=edit)
    reenactor.check(how)
    with blamed(found.path):
        reenactor.scene(
            shown
        )  # whose errors are about this picture; those of a transfer name the driving one
    return how


# --- pictures -----------------------------------------------------------------------------------------------
def rendered(
    reenactor: Reenactor,
    scene: Any,
    motions: Iterable[Motion],
    first: Motion | None,
    how: Transfer,
    say: Say = lambda text: None,
) -> Iterator[np.ndarray]:
    """Batches of motion -> images (I,I,3) uint8. first: where relative motion starts; None = the first
    frame."""
    if reenactor.whole:
        motions = [joined(list(motions))]
    for motion in motions:
        first = taken(motion, [0]) if first is None else first
        moved = reenactor.transfer(scene, motion, first, how)
        for note in reenactor.notes:
            say(note)
        reenactor.notes.clear()
        count = len(next(iter(moved.values())))
        for at in range(0, count, reenactor.batch):
            part = {name: values[at : at + reenactor.batch] for name, values in moved.items()}
            yield from (reenactor.render(scene, part) * 255 + 0.5).astype(np.uint8)


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
