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
from typing import TYPE_CHECKING

import numpy as np

from models.reenactor import Motion, MotionTransfer, Reenactor
from pipelines.animate.best_frame import get_motions_and_start_frame
from pipelines.animate.driving import (
    ARRAYS_SUFFIX,
    Driver,
    VideoDriver,
    concat_motions,
    open_driving_input,
    read_motion_arrays,
    read_source_face,
    select_motion_frames,
    source_face_frames,
)
from pipelines.animate.face_points import POINT_FIELDS
from pipelines.animate.paste_back import PortraitCanvas
from pipelines.animate.sound import trained_speech_config
from pipelines.errors import Rejected, UserError, error_meaning
from pipelines.preprocess.clips_config import ClipsConfig
from pipelines.preprocess.keypoints import EXTRA_LANDMARKER_OUTPUT_FIELDS

if TYPE_CHECKING:
    from pipelines.animate.perception import PerceptionNets
    from pipelines.media.encoding import Mp4Writer, SinglePngWriter
    from pipelines.media.sound_track import Mp4SoundTrack

Log = Callable[[str], None]

MAX_QUEUED_IMAGES = 16
"""Images that may wait to be encoded."""
PICTURE_SUFFIX = ".png"
"""Name of an output that is one picture, not a video."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimateOptions:
    """What to make of sources and driving video."""

    transfer: MotionTransfer = field(default_factory=MotionTransfer)
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
    def edit_descriptions(self) -> list[str]:
        """What is changed of the motion, for people."""
        lender = ["expression of another picture"] if self.expression_of else []
        return [*lender, *self.transfer.edit.changes]


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimateResult:
    """What was written."""

    frames: int
    missing: int
    """Driving frames without a face"""
    seconds: float
    size: tuple[int, int]
    rate: str
    sound: str
    start: int
    """Driving frame where relative motion starts; 0 of absolute motion"""


def write_animation(
    reenactor: Reenactor,
    sources: Sequence[Path],
    driving: Path | None,
    out: Path,
    options: AnimateOptions,
    nets: PerceptionNets,
    tags: Mapping[str, str],
    log: Log = lambda text: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> AnimateResult:
    """Write `out`, a video or one picture. driving: a video, a picture or arrays; None: the first source
    itself, edited. tags: metadata of the output. progress: called with the frames written and their total.

    Raises UserError, InvalidSettings or InvalidFile: no face in a source, or in most of the driving frames;
    motion that the model cannot transfer; files that cannot be read.
    """
    check_animate_options(reenactor, options, driving)
    found = [
        read_source_face(path, options.clips, nets.detector, reenactor.image_size, log) for path in sources
    ]
    faces = source_face_frames(found, nets, log, reenactor.reads)
    if options.expression_of is not None:
        options = replace(options, transfer=add_picture_expression_to_transfer(reenactor, options, nets, log))
    with add_path_to_errors(sources[0]):
        scene = reenactor.encode_sources(faces)
    with add_path_to_errors(driving or sources[0]):
        driver = open_driving_input(reenactor, driving, faces, options.clips, nets, log)
        total = len(driver.times.stamps)
        if out.suffix.lower() == PICTURE_SUFFIX and total != 1:
            raise UserError(f"{total} frames drive, and {out.name} holds one; name it .mp4")
        source = found[0].portrait
        motions, first, start = get_motions_and_start_frame(
            driver, source, options.best_frame, nets.landmarker, log
        )
        canvas = PortraitCanvas(found[0].picture, source.square) if options.paste_back else None
        size = (reenactor.image_size, reenactor.image_size) if canvas is None else canvas.size
        images = render_frames(reenactor, scene, motions, first, options.transfer, log)
        images = images if canvas is None else map(canvas.paste_face, images)
        with open_video_or_png_writer(out, size, driver, tags) as writer:
            count = write_frames(writer, images, driver.indices, lambda done: progress(done, total))
    if count != total:
        log(f"{driving}: {count} of {total} frames could be decoded")
    if isinstance(driver, VideoDriver) and driver.slipped:
        slipped = f"landmarks slip in {driver.slipped} of {total} frames"
        log(f"{driving}: {slipped}, which count as frames without a face")
    times, sound = driver.times, "no sound" if writer.sound is None else writer.sound.summary
    rate = f"{times.rate} frames/s" if times.constant else f"{float(times.rate):.3f} frames/s on average"
    seconds = (times.end - times.stamps[0]) * float(times.base)
    return AnimateResult(frames=count, missing=driver.has_face.count(False), seconds=seconds, size=size,
    rate=rate,
                  sound=sound, start=start)  # fmt: skip


def check_input_files(pictures: Sequence[Path], driving: Path | None) -> None:
    """UserError for a file that cannot be read, before a model is loaded. pictures: sources, and others that
    must be pictures."""
    from pipelines.media.still_image import read_picture, read_picture_or_probe

    for path in pictures:
        read_picture(path)
    if driving is not None and driving.suffix.lower() == ARRAYS_SUFFIX:
        read_motion_arrays(driving)
    elif driving is not None:
        read_picture_or_probe(driving)


def check_animate_options(reenactor: Reenactor, options: AnimateOptions, driving: Path | None) -> None:
    """UserError or InvalidSettings for options that the model cannot fulfil, before any work."""
    reenactor.check_transfer(options.transfer)
    if options.best_frame and reenactor.needs_full_video:
        raise UserError(
            "best-frame: this model's relative motion is measured from the mean of the whole driving video, "
            "not from one frame"
        )
    if driving is None and not options.edit_descriptions:
        raise UserError(
            "nothing drives: give --driving, or an edit (--frontal, --pose, --turn, --expression, --identity)"
        )


def required_perception_nets(
    reenactor: Reenactor, options: AnimateOptions, landmarker: str
) -> dict[str, str]:
    """Uses -> names in models.perception.NETS of all that `animate` and the model need. UserError for a
    landmarker that does not give the points that the model reads."""
    given = EXTRA_LANDMARKER_OUTPUT_FIELDS.get(landmarker, ())
    if missing := [points for points in POINT_FIELDS if points in reenactor.reads and points not in given]:
        others = [net for net, found in EXTRA_LANDMARKER_OUTPUT_FIELDS.items() if missing[0] in found]
        raise UserError(
            f"the model's 3D face was fitted to points {missing[0]}, and landmarker {landmarker} gives none; "
            f"those do: {', '.join(others)} (those of the mesh only without perception.faces dlib)"
        )
    nets = {"detector": options.clips.detector} | {name: name for name in reenactor.nets}
    if options.best_frame or "landmarks" in reenactor.reads:
        nets["landmarker"] = landmarker
    encoder = trained_speech_config(reenactor)
    if encoder is not None and encoder.net is not None:
        nets[encoder.net] = encoder.net
    return nets


@contextmanager
def add_path_to_errors(path: Path) -> Iterator[None]:
    """Errors about a file's content get its path in front, where they do not name it."""
    try:
        yield
    except Rejected as error:
        raise UserError(f"{path}: {error.sentence}") from error
    except Exception as error:
        if error_meaning(error) != "user" or str(path) in str(error):
            raise
        raise UserError(f"{path}: {error}") from error


def open_video_or_png_writer(
    out: Path, size: tuple[int, int], driver: Driver, tags: Mapping[str, str]
) -> Mp4Writer | SinglePngWriter:
    """The writer of a video or of one picture, by the suffix of its name."""
    from pipelines.media.encoding import Mp4Writer, SinglePngWriter

    if out.suffix.lower() == PICTURE_SUFFIX:
        return SinglePngWriter(out, tags)
    return Mp4Writer(out, size, driver.times, tags, driving_sound(driver))


def driving_sound(driver: Driver) -> Mp4SoundTrack | None:
    """The sound that the output gets, where a video with sound drives."""
    from pipelines.media.sound_track import Mp4SoundTrack

    if not isinstance(driver, VideoDriver) or not driver.probed["audio_rate"]:
        return None
    return Mp4SoundTrack(driver.path, driver.probed)


def add_picture_expression_to_transfer(
    reenactor: Reenactor, options: AnimateOptions, nets: PerceptionNets, log: Log
) -> MotionTransfer:
    """The options' transfer, with the expression of the picture `expression_of`."""
    assert options.expression_of is not None
    found = read_source_face(options.expression_of, options.clips, nets.detector, reenactor.image_size, log)
    faces = source_face_frames([found], nets, log, reenactor.reads)
    edit = replace(options.transfer.edit, expression_of=reenactor.extract_motion(faces))
    transfer = replace(options.transfer, edit=edit)
    reenactor.check_transfer(transfer)
    with add_path_to_errors(found.path):  # errors of a transfer would name the driving file
        reenactor.encode_sources(faces)
    return transfer


# --- pictures -----------------------------------------------------------------------------------------------
def render_frames(
    reenactor: Reenactor,
    scene: object,
    motions: Iterable[Motion],
    first: Motion | None,
    how: MotionTransfer,
    log: Log = lambda text: None,
) -> Iterator[np.ndarray]:
    """Batches of motion -> images (I,I,3) uint8. first: where relative motion starts; None = the first
    frame."""
    if reenactor.needs_full_video:
        motions = [concat_motions(list(motions))]
    for motion in motions:
        first = select_motion_frames(motion, [0]) if first is None else first
        moved = reenactor.transfer_motion(scene, motion, first, how)
        for note in reenactor.notes:
            log(note)
        reenactor.notes.clear()
        count = len(next(iter(moved.values())))
        for at in range(0, count, reenactor.batch):
            part = {name: values[at : at + reenactor.batch] for name, values in moved.items()}
            yield from (reenactor.render(scene, part) * 255 + 0.5).astype(np.uint8)


def write_frames(
    writer: Mp4Writer | SinglePngWriter,
    images: Iterable[np.ndarray],
    indices: Sequence[int],
    progress: Callable[[int], None],
) -> int:
    """Encode the images in a thread, each at the time of its frame -> their number."""
    count = 0
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[None]] = deque()
        for image in images:
            waiting.append(pool.submit(writer.write, image, indices[count]))
            count += 1
            if len(waiting) > MAX_QUEUED_IMAGES:
                waiting.popleft().result()
            progress(count)
        while waiting:
            waiting.popleft().result()
    return count
