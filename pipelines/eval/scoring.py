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

from pipelines.eval import pictures
from pipelines.eval.metrics import METRICS, Metric, Sums
from pipelines.eval.metrics.akd import FRAME_SIZE, found

if TYPE_CHECKING:
    from pipelines.eval.reenact import EvalConfig

COPY, CODEC = "copy_source", "codec"
BASELINES: dict[str, str] = {
    COPY: "the source frame, unchanged: what a model must beat",
    CODEC: "the ground truth through our MP4 (H.264 crf 18): as good as a video file can look",
}
CHECKPOINTS = {"last": "model.safetensors", "best": "best.safetensors"}
NETS_OF_LANDMARKS = ("dlib_hog", "dlib68")
LANDMARK_BACKEND = f"{' + '.join(NETS_OF_LANDMARKS)} on frames resized to {FRAME_SIZE} px, largest face"
CELL = 192
"""Side, in pixels, that pictures of small models are enlarged to at least, by whole factors."""

Landmarks = Callable[[np.ndarray], np.ndarray]
"""(T,256,256,3) uint8 -> (T,68,2) pixels, NaN where no face."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What the sample grid and the video show of one clip."""

    row: list[np.ndarray]
    """source, driving, model, error at the middle frame: (S',S',3) uint8 each."""
    video: bytes
    """MP4 of the same four with the weights' label baked in; empty if none was asked for."""


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
    lacking: dict[str, str]
    """Metric that could not be computed -> the weight id it needs."""
    cell: Cell | None = None


def score_clips(
    model: str,
    checkpoint: Any,
    clips: Any,
    drawn: Mapping[str, bool],
    config: EvalConfig,
    device: str,
    keys: Sequence[str],
) -> list[ClipScore]:
    """Load the model and score clips. `checkpoint`: artifact of a training phase. `clips`: a family.
    `drawn`: clips that get a picture -> whether also a video."""
    reenactor = load_reenactor(model, checkpoint.path(CHECKPOINTS[config.checkpoint]), device)
    landmarks, lacking = None, ""
    if any(METRICS[name].reads == "landmarks" for name in config.metrics):
        landmarks, lacking = load_landmarks(clips.store)
    scores = []
    for key in keys:
        sources = source_indices(clips.frames_of(key), config.sources)
        indices = driving_indices(clips.frames_of(key), config.frame_stride, config.max_frames, sources)
        methods, truth = drive(model, reenactor, clips.frames(key, [*sources, *indices]), len(sources))
        cell = draw(model, methods, truth, reenactor.labels, video=drawn[key]) if key in drawn else None
        sums = score(methods, truth, config.metrics, landmarks)
        scores.append(
            ClipScore(
                clip=key,
                frames=len(truth),
                size=reenactor.image_size,
                labels=dict(reenactor.labels),
                sums=sums,
                lacking={n: lacking for n in config.metrics if METRICS[n].reads == "landmarks" and lacking},
                cell=cell,
            )
        )
    return scores


def source_indices(frames: int, sources: int) -> list[int]:
    """Frames of a clip that the model is shown: the first; first and last; first, middle and last; and so
    on."""
    return [int(i) for i in np.linspace(0, frames - 1, sources).round()]


def driving_indices(frames: int, stride: int, most: int | None, sources: Sequence[int] = (0,)) -> list[int]:
    """Frames of a clip that are driven and scored; never a source, which would score a copy."""
    return [i for i in range(1, frames) if i not in sources][::stride][:most]


def drive(
    model: str, reenactor: Any, frames: np.ndarray, sources: int = 1
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """frames (sources+T,H,W,3) uint8, sources first -> the model's and the baselines' (T,S,S,3) uint8, and
    the truth."""
    driving = len(frames) - sources
    shown = frames[0] if sources == 1 else frames[:sources]
    generated = reenactor.reenact(shown, frames[sources:])  # (T,S,S,3) in [0,1]
    size = reenactor.image_size
    expected = (driving, size, size, 3)
    if generated.shape != expected:
        raise ValueError(f"{model} gave {generated.shape} for {driving} driving frames; expected {expected}")
    if not np.isfinite(generated).all():
        raise FloatingPointError(f"{model} gave values that are not finite; its checkpoint is unusable")
    resized = pictures.to_uint8(pictures.resize(frames, size))
    truth = resized[sources:]
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
    wanted = [METRICS[name] for name in metrics]
    target = truth / 255.0
    sums: dict[tuple[str, str], Sums] = {}
    for method, images in methods.items():
        prediction = images / 255.0
        for metric in wanted:
            if metric.reads == "frames":
                sums[method, metric.name] = metric.update(prediction, target)
    by_landmarks = [metric for metric in wanted if metric.reads == "landmarks"]
    if by_landmarks and landmarks is not None:
        sums |= _landmark_sums(by_landmarks, methods, truth, landmarks)
    return sums


def _landmark_sums(
    metrics: Sequence[Metric], methods: Mapping[str, np.ndarray], truth: np.ndarray, landmarks: Landmarks
) -> dict[tuple[str, str], Sums]:
    def points(images: np.ndarray) -> np.ndarray:
        return landmarks(pictures.to_uint8(pictures.resize(images, FRAME_SIZE)))

    of_truth = points(truth)
    of_method = {
        # the copied source is one picture T times
        method: np.repeat(points(images[:1]), len(images), axis=0) if method == COPY else points(images)
        for method, images in methods.items()
    }
    keep = np.logical_and.reduce([found(p) for p in (of_truth, *of_method.values())])
    return {
        (method, metric.name): metric.update(p, of_truth, keep)
        for method, p in of_method.items()
        for metric in metrics
    }


# --- pictures -----------------------------------------------------------------------------------------------
def draw(
    model: str, methods: Mapping[str, np.ndarray], truth: np.ndarray, labels: Mapping[str, str], video: bool
) -> Cell:
    made = methods[model]
    errors = pictures.error_map(made / 255.0, truth / 255.0)
    shown = [pictures.enlarge(images, CELL) for images in (methods[COPY], truth, made, errors)]
    data = b""
    if video:
        data = pictures.mp4(pictures.side_by_side(shown, column_titles(model), caption(model, labels)))
    middle = len(truth) // 2
    return Cell(row=[images[middle] for images in shown], video=data)


def column_titles(model: str) -> list[str]:
    return ["source", "driving = truth", model, f"error x{pictures.ERROR_GAIN}"]


def caption(model: str, labels: Mapping[str, str]) -> str:
    """The honesty line under every picture: which parts do not carry the published weights."""
    return " · ".join(
        [model, *(f"{part.replace('_', ' ')}: {what}" for part, what in sorted(labels.items()))]
    )


# --- nets ---------------------------------------------------------------------------------------------------
def load_reenactor(model: str, path: Path, device: str) -> Any:
    """An object with image_size, labels and reenact(source (H,W,3), driving (T,H,W,3)) -> (T,S,S,3) in
    [0,1]."""
    from importlib import import_module

    from models import MODELS

    module = import_module(f"{MODELS[model]}.reenact")
    return module.load_reenactor(path, device=device, precision="fp32")  # scores must not depend on a device


def load_landmarks(store: Any) -> tuple[Landmarks | None, str]:
    """The landmark finder, or None and the id of the weights it lacks."""
    from pipelines.executor import load_nets
    from storage.weights import path_of

    for weights_id in {w for metric in METRICS.values() for w in metric.needs}:
        try:
            path_of(store, weights_id)
        except FileNotFoundError:
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
