"""What a worker does for an evaluation: load the model, drive it with clips, sum every metric, draw some of
them.

T = driving frames of a clip, S = the model's image size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.reenactor import ClipFrames
from pipelines.dataset.clips import Clips, StoredClip
from pipelines.errors import UserError
from pipelines.eval.captions import caption, column_titles
from pipelines.eval.methods import CODEC, COPY
from pipelines.eval.metrics import METRICS, Sums
from pipelines.eval.metrics.akd import FRAME_SIZE, found
from pipelines.figures import pictures
from storage.checkpoints import CHECKPOINTS
from storage.errors import InvalidInput

if TYPE_CHECKING:
    from models.reenactor import Reenactor
    from models.task import Clip
    from pipelines.eval.evaluate import EvalConfig

NETS_OF_LANDMARKS = ("dlib_hog", "dlib68")
LANDMARK_BACKEND = f"{' + '.join(NETS_OF_LANDMARKS)} on frames resized to {FRAME_SIZE} px, largest face"
CELL = 192
"""Side, in pixels, that pictures of small models are enlarged to at least, by whole factors."""

Landmarks = Callable[[np.ndarray], np.ndarray]
"""(T,256,256,3) uint8 -> (T,68,2) pixels, NaN where no face."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What the sample grid and the video show of one clip."""

    titles: list[str]
    row: list[np.ndarray]
    """The middle frame under those titles, (S',S',3) uint8 each: source, driving, what the model shows of its
    own work, output, error."""
    video: bytes
    """MP4 of source, driving, output and error with the weights' label baked in; empty if none was asked
    for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipScore:
    clip: str
    frames: int
    size: int
    """Side of the frames scored, in pixels."""
    labels: dict[str, str]
    """Parts of the model whose weights are not the published ones, and what they are instead."""
    sums: dict[tuple[str, str], Sums]
    """(method, metric) -> state."""
    each: dict[tuple[str, str], np.ndarray]
    """The same of metrics that compare faces: the value of every driving frame (T,), NaN without a face."""
    lacking: dict[str, str]
    """Metric that could not be computed -> the weight id it needs."""
    cell: Cell | None = None


def score_clips(
    model: str,
    checkpoint: Any,
    clips: Clips,
    store: Any,
    drawn: Mapping[str, bool],
    config: EvalConfig,
    device: str,
    keys: Sequence[str],
) -> list[ClipScore]:
    """Load the model and score clips. `checkpoint`: artifact of a training phase. `store`: where weights are.
    `drawn`: clips that get a picture -> whether also a video."""
    from pipelines.nets import load_nets

    reenactor = load_reenactor(model, checkpoint.path(CHECKPOINTS[config.checkpoint]), device)
    reenactor.set_nets(load_nets(reenactor.nets, store))
    landmarks, lacking = None, ""
    if any(METRICS[name].reads == "landmarks" for name in config.metrics):
        landmarks, lacking = load_landmarks(store)
    scores = []
    for key in keys:
        clip = HeldClip(StoredClip(clips, key))
        sources = source_indices(clip.length, config.sources)
        indices = driving_indices(clip.length, config.frame_stride, config.max_frames, sources)
        methods, truth = drive(model, reenactor, clip, sources, indices)
        cell = None
        if key in drawn:
            own = explained(reenactor, clip, sources, indices)
            cell = draw(model, methods, truth, reenactor.labels, own, video=drawn[key])
        sums, each = scored(methods, truth, config.metrics, landmarks)
        scores.append(
            ClipScore(
                clip=key,
                frames=len(truth),
                size=reenactor.image_size,
                labels=dict(reenactor.labels),
                sums=sums,
                each=each,
                lacking={n: lacking for n in config.metrics if METRICS[n].reads == "landmarks" and lacking},
                cell=cell,
            )
        )
    return scores


class HeldClip:
    """A clip whose frames are held once they are decoded: the model and the baselines look at the same."""

    def __init__(self, clip: Clip) -> None:
        self.clip, self.key, self.length = clip, clip.key, clip.length
        self._held: dict[int, np.ndarray] = {}

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        if wanted := [i for i in dict.fromkeys(indices) if i not in self._held]:
            self._held |= zip(wanted, self.clip.frames(wanted), strict=True)
        return np.stack([self._held[i] for i in indices])

    def read(self, name: str) -> Any:
        return self.clip.read(name)


def source_indices(frames: int, sources: int) -> list[int]:
    """Frames of a clip that the model is shown: the first; first and last; first, middle and last; and so
    on."""
    return [int(i) for i in np.linspace(0, frames - 1, sources).round()]


def driving_indices(frames: int, stride: int, most: int | None, sources: Sequence[int] = (0,)) -> list[int]:
    """Frames of a clip that are driven and scored; never a source, which would score a copy."""
    return [i for i in range(1, frames) if i not in sources][::stride][:most]


def drive(
    model: str, reenactor: Reenactor, clip: Clip, sources: Sequence[int], driving: Sequence[int]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A clip, numbers of its source and of its T driving frames -> the model's and the baselines' (T,S,S,3)
    uint8, and the truth."""
    frames = clip.frames([*sources, *driving])
    generated = reenactor.drive(ClipFrames(clip, sources), ClipFrames(clip, driving))  # (T,S,S,3) in [0,1]
    size = reenactor.image_size
    expected = (len(driving), size, size, 3)
    if generated.shape != expected:
        raise ValueError(
            f"{model} gave {generated.shape} for {len(driving)} driving frames; expected {expected}"
        )
    if not np.isfinite(generated).all():
        raise UserError(f"{model} gave values that are not finite; its checkpoint is unusable")
    resized = pictures.to_uint8(pictures.resize(frames, size))
    truth = resized[len(sources) :]
    methods = {
        model: pictures.to_uint8(generated),
        COPY: np.broadcast_to(resized[:1], truth.shape),
        CODEC: pictures.through_codec(truth),
    }
    return methods, truth


def score(
    methods: Mapping[str, np.ndarray], truth: np.ndarray, metrics: Sequence[str], landmarks: Landmarks | None
) -> dict[tuple[str, str], Sums]:
    """Every method against the truth, (T,S,S,3) uint8 each -> (method, metric) -> sums over the same T
    frames."""
    return scored(methods, truth, metrics, landmarks)[0]


def scored(
    methods: Mapping[str, np.ndarray], truth: np.ndarray, metrics: Sequence[str], landmarks: Landmarks | None
) -> tuple[dict[tuple[str, str], Sums], dict[tuple[str, str], np.ndarray]]:
    """The same, and of metrics that compare faces also the value of every frame (T,)."""
    wanted = [METRICS[name] for name in metrics]
    target = truth / 255.0
    sums: dict[tuple[str, str], Sums] = {}
    for method, images in methods.items():
        prediction = images / 255.0
        for metric in wanted:
            if metric.reads == "frames":
                sums[method, metric.name] = metric.update(prediction, target)
    by_landmarks = [metric for metric in wanted if metric.reads == "landmarks"]
    if not by_landmarks or landmarks is None:
        return sums, {}
    of_method, of_truth = _points(methods, truth, landmarks)
    keep = np.logical_and.reduce([found(points) for points in (of_truth, *of_method.values())])
    each: dict[tuple[str, str], np.ndarray] = {}
    for metric in by_landmarks:
        for method, points in of_method.items():
            sums[method, metric.name] = metric.update(points, of_truth, keep)
            if metric.each:
                each[method, metric.name] = metric.each(points, of_truth)
    return sums, each


def _points(
    methods: Mapping[str, np.ndarray], truth: np.ndarray, landmarks: Landmarks
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """-> the landmarks (T,68,2) of every method, and of the truth."""

    def points(images: np.ndarray) -> np.ndarray:
        return landmarks(pictures.to_uint8(pictures.resize(images, FRAME_SIZE)))

    of_method = {
        # the copied source is one picture T times
        method: np.repeat(points(images[:1]), len(images), axis=0) if method == COPY else points(images)
        for method, images in methods.items()
    }
    return of_method, points(truth)


# --- pictures -----------------------------------------------------------------------------------------------
def draw(
    model: str,
    methods: Mapping[str, np.ndarray],
    truth: np.ndarray,
    labels: Mapping[str, str],
    own: Mapping[str, np.ndarray],
    video: bool,
) -> Cell:
    """own: further pictures of the middle frame by their titles, (S,S,3) uint8 each."""
    made = methods[model]
    errors = pictures.error_map(made / 255.0, truth / 255.0)
    shown = [pictures.enlarge(images, CELL) for images in (methods[COPY], truth, made, errors)]
    titles = column_titles(model)
    data = b""
    if video:
        data = pictures.mp4(pictures.side_by_side(shown, titles, caption(model, labels)))
    source, driving, output, error = (images[middle_of(truth)] for images in shown)
    between = [pictures.enlarge(image[None], CELL)[0] for image in own.values()]
    return Cell(
        titles=[*titles[:2], *own, *titles[2:]], row=[source, driving, *between, output, error], video=data
    )


def explained(
    reenactor: Reenactor, clip: Clip, sources: Sequence[int], driving: Sequence[int]
) -> dict[str, np.ndarray]:
    """What the model shows of how it made the middle frame: title -> (S,S,3) uint8."""
    own = reenactor.visualize(ClipFrames(clip, sources), ClipFrames(clip, [driving[middle_of(driving)]]))
    expected = (reenactor.image_size,) * 2 + (3,)
    for title, image in own.items():
        if image.shape != expected or image.dtype != np.uint8:
            raise ValueError(f"picture {title!r}: {image.dtype} {image.shape}, expected uint8 {expected}")
    return dict(own)


def middle_of(frames: Sequence[Any] | np.ndarray) -> int:
    return len(frames) // 2


# --- nets ---------------------------------------------------------------------------------------------------
def load_reenactor(model: str, path: Path, device: str) -> Reenactor:
    """The model of a checkpoint, ready to drive."""
    from models.checkpoint import read_checkpoint
    from models.loading import load_reenactor as load_model
    from models.spec import load_spec

    files = {"renderer": read_checkpoint(path)}
    return load_model(load_spec(model), files, device, "fp32")  # scores must not depend on a device


def load_landmarks(store: Any) -> tuple[Landmarks | None, str]:
    """The landmark finder, or None and the id of the weights it lacks."""
    from pipelines.nets import load_nets
    from storage.weight_files import path_of

    for weights_id in {w for metric in METRICS.values() for w in metric.needs}:
        try:
            path_of(store, weights_id)
        except InvalidInput:
            return None, weights_id
    detector, landmarker = load_nets(NETS_OF_LANDMARKS, store).values()
    return lambda frames: landmarker.landmarks(frames, largest_faces(detector.detect(frames))), ""


def largest_faces(found_boxes: Sequence[np.ndarray]) -> np.ndarray:
    """Boxes of each frame (n,5) -> (T,4) float32: the one of largest area, NaN where there is none."""
    boxes = np.full((len(found_boxes), 4), np.nan, np.float32)
    for t, rows in enumerate(found_boxes):
        if len(rows):
            area = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
            boxes[t] = rows[int(area.argmax()), :4]
    return boxes
