"""Stage `keypoints`: the face box and its 68 landmarks in every frame of a clip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, cast

import numpy as np
from msgspec import Struct

from models.perception.head.hull import hull_area
from models.perception.interfaces import FaceDetector, InferenceConfigurable, InferenceSettings, Landmarker
from pipelines.engine.node import Inputs
from pipelines.errors import Rejected
from pipelines.preprocess.landmark_slips import find_slip, slip_limit
from pipelines.preprocess.sources.common.source_tracks import box_iou
from storage.shards import Sample

if TYPE_CHECKING:
    from pipelines.cluster.runtime import RuntimeConfig

EXISTING_CLIP_BOXES = "clip"
EXTRA_LANDMARKER_OUTPUT_FIELDS = {
    "fan2d": ("confidence",),
    "fan2d_flip": ("confidence",),
    "fan25d": ("confidence",),
    "fan3d": ("confidence", "landmarks3d"),
    "mesh468": ("confidence", "landmarks3d", "dense"),
    "mesh468_iris": ("confidence", "landmarks3d", "dense", "iris"),
    "retinaface_dense1103": ("landmarks3d", "dense"),
}
"""What a landmarker says besides the landmarks."""
NETS_WITH_DTYPE = ("fan", "s3fd")
"""How the nets that `dtype` is for begin."""
WHOLE_PIXEL_FIELDS = ("landmarks", "landmarks3d")
MIN_TRACK_OVERLAP = 0.1
"""Intersection over union of a detection and the box by which the clip's own face was tracked; less is
another face."""
FACES_PER_LANDMARK_BATCH = 32
"""Faces placed at once to find the largest of several in their frames."""


class KeypointsConfig(Struct, frozen=True, kw_only=True):
    as_before: ClassVar[Mapping[str, object]] = {"max_slip": 0.0, "max_slipped": 1.0}

    detector: Literal["mp_face", "dlib_hog", "dlib_ladder", "s3fd", "clip"] = "mp_face"
    """Net that finds the face again in the crop: landmarks want its box, not the one that the source gave.
    clip: no net, the boxes that the clip was cut by; for fan* (dlib68 wants boxes such as dlib_hog's) and for
    sources with a face box in every frame (a CSV of crops has one for the whole clip)."""
    landmarker: Literal[
        "mesh468_iris",
        "mesh468",
        "dlib68",
        "dlib68_precise",
        "fan2d",
        "fan2d_flip",
        "fan25d",
        "fan3d",
        "retinaface_dense1103",
    ] = "mesh468_iris"
    """Net that places the landmarks. mesh468: MediaPipe's 468 points, and 68 of them; mesh468_iris: with the
    eyelids, which the mesh alone does not see close (models/perception/faces/face_mesh.py). dlib68_precise
    jitters 30 % less than dlib68 and makes the stage three times as slow. fan*: face-alignment, see
    models/perception/faces/fan.py; `reenact weights import fan2d FILE`. retinaface_dense1103: HeadGAN's own
    dense points, of LSFM's mesh; `reenact weights import retinaface_dense1103 A3-0070.params`."""
    detect_every: int = 3
    """Frames between detections; boxes between them are interpolated. Not smoothed: a box that lags behind a
    fast head costs far more (4.4 px with a median over 13 frames, 1.3 px without) than a box that jitters."""
    max_gap: int = 15
    """Most frames from one detection to the next that are bridged: 6 bridges five frames without one. In
    longer gaps there are no landmarks."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """fan* and s3fd: numbers the nets work with. bfloat16 is for GPUs, and 1.7 times as fast on a core."""
    whole_pixels: bool = False
    """Truncate landmarks to whole pixels as face-alignment does: the numbers that FSRT was trained on. They
    lie half a pixel further left and up in the mean."""
    smoothing: Literal["none", "gaussian"] = "none"
    """gaussian: over time, without lag. Motion at constant speed is kept; blinks and lips get flatter."""
    smoothing_sigma: float = 1.0
    """gaussian: its width in frames; 1 leaves 53 % of the jitter, 2 leaves 38 %."""

    max_slip: float | None = None
    """Slip, how far landmarks move when they are found again from another box (landmark_slips.py), in lengths
    of the face, beyond which a frame has none: NaN, bridged by whoever bridges frames without a face. None =
    the landmarker's own limit; 0 = they are found once, and no slip is told."""
    max_slipped: float = 0.5
    """Share of a clip's frames with landmarks that may slip so far; a clip with more is left out."""

    def __post_init__(self) -> None:
        if self.max_slip is not None and not 0 <= self.max_slip <= 10:
            raise ValueError(f"max_slip {self.max_slip}: expected 0 to 10 lengths of the face, or none")
        if not 0 <= self.max_slipped <= 1:
            raise ValueError(f"max_slipped {self.max_slipped}: expected a share from 0 to 1")
        if not 1 <= self.detect_every <= 50:
            raise ValueError(f"detect_every {self.detect_every}: expected 1 to 50")
        if self.max_gap < self.detect_every:
            raise ValueError(f"max_gap {self.max_gap}: expected at least detect_every {self.detect_every}")
        if not 0.3 <= self.smoothing_sigma <= 10:
            raise ValueError(f"smoothing_sigma {self.smoothing_sigma}: expected 0.3 to 10 frames")

    @property
    def nets(self) -> tuple[str, ...]:
        """Those of models.perception.NETS."""
        return tuple(name for name in (self.detector, self.landmarker) if name != EXISTING_CLIP_BOXES)

    @property
    def reads(self) -> tuple[str, ...]:
        """Fields of the clips."""
        return ("frames", "clip", "boxes", "crop")

    @property
    def writes(self) -> tuple[str, ...]:
        slip = () if self.max_slip == 0 else ("slip",)
        extra = EXTRA_LANDMARKER_OUTPUT_FIELDS.get(self.landmarker, ())
        return ("landmarks", "score", "face_box", *slip, *extra)


def find_keypoints(
    inputs: Inputs,
    config: KeypointsConfig,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """Clips -> landmarks, score, face_box and slip of each, and what else the landmarker says, without clips
    whose landmarks slip in more than `max_slipped` of the frames; Rejected, after the last clip, when none of
    the recording's clips shows a face, or none is left."""
    detector = None if config.detector == EXISTING_CLIP_BOXES else cast("FaceDetector", nets[config.detector])
    landmarker = cast("Landmarker", nets[config.landmarker])
    for name, net in ((config.detector, detector), (config.landmarker, landmarker)):
        if isinstance(net, InferenceConfigurable):
            dtype = config.dtype if name.startswith(NETS_WITH_DTYPE) else "float32"
            net.configure_inference(perception_inference_settings(runtime, dtype))
    clips = seen = kept = 0
    worst = 0.0
    for clip in inputs["clips"]:
        sample = _keypoints(clip, config, detector, landmarker)
        slipped = slipped_share(sample)
        clips, seen = clips + 1, seen + bool((sample["score"] > 0).any())
        worst = max(worst, slipped)
        if slipped <= config.max_slipped:
            kept += 1
            yield sample
    if clips and not kept:
        raise Rejected(
            "landmarks_slip",
            f"{landmarker.name}: landmarks depend on the box they are looked for in, in {worst:.0%} of the "
            f"frames of a clip; more than keypoints.max_slipped {config.max_slipped:g} do in every clip",
        )
    if not seen:
        asked = " + ".join(net.name for net in (detector, landmarker) if net is not None)
        raise Rejected("no_landmarks", f"{asked}: no face in any of the {clips} clips")


def slipped_share(sample: Sample) -> float:
    """Share of the frames in which landmarks were found where they slip, and so are not given."""
    if "slip" not in sample:
        return 0.0
    found = np.isfinite(sample["slip"])
    return float((found & np.isnan(sample["landmarks"]).any((1, 2))).sum() / max(1, found.sum()))


def perception_inference_settings(runtime: RuntimeConfig, dtype: str) -> InferenceSettings:
    """Where and how this run wants its nets in torch: on the GPU if its workers are given a share of one."""
    return InferenceSettings(
        device="cuda" if runtime.gpu_share else "cpu",
        dtype="bfloat16" if dtype == "bfloat16" else "float32",
        batch=runtime.net_batch,
        compile=runtime.net_compile,
    )


def _keypoints(
    clip: Sample, settings: KeypointsConfig, detector: FaceDetector | None, landmarker: Landmarker
) -> Sample:
    frames = clip["frames"]
    boxes = (
        read_clip_boxes(clip)
        if detector is None
        else _detect_boxes(frames, _tracked_boxes(clip), settings, detector, landmarker)
    )
    points = landmarker.predict(frames, boxes.boxes, boxes.rolls, boxes.detected)
    lost = ~np.isfinite(points.landmarks).all((1, 2))  # no box, or no face in it
    score = boxes.scores if points.score is None else points.score
    limit = slip_limit(settings.landmarker, settings.max_slip)
    slip = None
    if limit:
        looked_at = _looked_at(boxes, settings.detect_every)
        slip = find_slip(frames, boxes.boxes, boxes.rolls, looked_at, points, landmarker, limit)
    boxes.boxes[lost], score[lost] = np.nan, 0
    placed = {
        "landmarks": points.landmarks,
        "landmarks3d": points.landmarks3d,
        "dense": points.dense,
        "iris": points.iris,
    }
    if slip is not None and (slipped := slip > limit).any():
        placed = {name: _without_frames(p, slipped) for name, p in placed.items() if p is not None}
    if settings.smoothing == "gaussian":
        placed = {
            name: smooth_landmarks(p, settings.smoothing_sigma) for name, p in placed.items() if p is not None
        }
    if settings.whole_pixels:
        placed |= {name: truncate_to_whole_pixels(p) for name in WHOLE_PIXEL_FIELDS
                   if (p := placed.get(name)) is not None}  # fmt: skip
    sample = {
        "__key__": clip["__key__"],
        "score": score,
        "face_box": boxes.boxes,
        "confidence": points.confidence,
        "slip": slip,
    }
    return {name: value for name, value in (sample | placed).items() if value is not None}


def _looked_at(boxes: FaceBoxes, every: int) -> np.ndarray:
    """(T,) bool: frames whose landmarks are found a second time in any case: those with a detection."""
    if boxes.detected is not None:
        return boxes.detected
    count = len(boxes.boxes)
    return np.isin(np.arange(count), [*range(0, count, every), count - 1])


def _without_frames(points: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """points (T,...), frames (T,) bool -> the same, NaN in these frames."""
    out = points.copy()
    out[frames] = np.nan
    return out


# --- boxes --------------------------------------------------------------------------------------------------
class FaceBoxes(NamedTuple):
    """The main face of a clip, NaN and score 0 where there is none."""

    boxes: np.ndarray
    """(T,4) float32 pixels."""
    scores: np.ndarray
    """(T,) float32."""
    rolls: np.ndarray | None = None
    """(T,) float32 radians, of detectors that see the roll."""
    detected: np.ndarray | None = None
    """(T,) bool: the frames whose boxes were detected, where the others are interpolated."""


def read_clip_boxes(clip: Sample) -> FaceBoxes:
    """The boxes that the clip was cut by, in its own pixels; scores are 1 where there is one."""
    crop = clip["crop"].astype(np.float64)
    height, width = clip["frames"].shape[1:3]
    zoom = np.array([width, height]) / (crop[:, 2:] - crop[:, :2])  # (T,2)
    boxes = (clip["boxes"] - np.tile(crop[:, :2], 2)) * np.tile(zoom, 2)
    return FaceBoxes(boxes.astype(np.float32), np.isfinite(boxes).all(1).astype(np.float32))


def _tracked_boxes(clip: Sample) -> np.ndarray | None:
    """The boxes (T,4) of the face that was followed to cut the clip; None where the source gave one box for
    all of it, which tells no face from another."""
    return None if clip["clip"].get("detector") in (None, "given") else read_clip_boxes(clip).boxes


def _detect_boxes(
    frames: np.ndarray,
    tracked: np.ndarray | None,
    settings: KeypointsConfig,
    detector: FaceDetector,
    landmarker: Landmarker,
) -> FaceBoxes:
    """Those of the main face, detected in some frames, interpolated between them. Of a clip whose face was
    tracked it is that one, whoever else is in the picture."""
    detect_at = np.unique([*range(0, len(frames), settings.detect_every), len(frames) - 1])
    found = detector.detect(frames[detect_at])
    if tracked is not None:
        found = [_tracked_face(tracked[at], boxes) for at, boxes in zip(detect_at, found, strict=True)]
    seen = np.array([at for at, boxes in zip(detect_at, found, strict=True) if len(boxes)], int)
    faces = _main_faces(frames, seen, [boxes for boxes in found if len(boxes)], landmarker)
    return interpolate_boxes(faces, seen, len(frames), settings.max_gap)


def _tracked_face(tracked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Detections (n,5 or 6) -> the one, or none, of the face that was tracked there (4,)."""
    overlaps = box_iou(tracked, boxes[:, :4])
    return (
        boxes[np.argsort(-overlaps, kind="stable")][:1] if (overlaps > MIN_TRACK_OVERLAP).any() else boxes[:0]
    )


def interpolate_boxes(faces: np.ndarray, seen: np.ndarray, frames: int, max_gap: int) -> FaceBoxes:
    """faces (n,5), or (n,6) with a roll, detected in frames `seen` (n,) -> boxes of all frames, NaN where no
    face is near."""
    boxes, score = np.full((frames, 4), np.nan, np.float32), np.zeros(frames, np.float32)
    if not len(seen):
        return FaceBoxes(boxes, score)
    clock = np.arange(frames)
    right = np.searchsorted(seen, clock)  # first detection at or after each frame
    inside = (clock >= seen[0]) & (clock <= seen[-1])
    left = np.maximum(right - (seen[np.minimum(right, len(seen) - 1)] != clock), 0)
    inside &= seen[np.minimum(right, len(seen) - 1)] - seen[left] <= max_gap
    every = np.stack([np.interp(clock, seen, faces[:, column]) for column in range(5)], axis=1).astype(
        np.float32
    )
    boxes[inside] = every[inside, :4]
    score[inside] = np.maximum(every[inside, 4], 1e-6)  # HOG may report a score of exactly 0
    rolls = np.interp(clock, seen, np.unwrap(faces[:, 5])).astype(np.float32) if faces.shape[1] > 5 else None
    return FaceBoxes(boxes, score, rolls, np.isin(clock, seen))


def _main_faces(
    frames: np.ndarray, seen: np.ndarray, found: Sequence[np.ndarray], landmarker: Landmarker
) -> np.ndarray:
    """found: boxes (m,5 or 6) in each frame of `seen` -> (n,5 or 6). Of several faces the one whose landmarks
    have the largest convex hull, as FSRT's data preparation does."""
    faces = np.stack([boxes[0] for boxes in found]) if found else np.zeros((0, 5), np.float32)
    several = [(k, box) for k, boxes in enumerate(found) if len(boxes) > 1 for box in boxes]
    largest = dict.fromkeys((k for k, _ in several), -1.0)
    for start in range(0, len(several), FACES_PER_LANDMARK_BATCH):
        some = several[start : start + FACES_PER_LANDMARK_BATCH]
        images = frames[seen[[k for k, _ in some]]]
        rows = np.stack([box for _, box in some])
        placed = landmarker.landmarks(images, rows[:, :4], rows[:, 5] if rows.shape[1] > 5 else None)
        for (k, box), points in zip(some, placed, strict=True):
            if (area := hull_area(points)) > largest[k]:
                largest[k], faces[k] = area, box
    return faces


# --- landmarks over time ------------------------------------------------------------------------------------
def smooth_landmarks(points: np.ndarray, sigma: float) -> np.ndarray:
    """points (T,...) float32, landmarks, dense points or irises, NaN where there is no face -> the same, each
    unbroken run of faces by itself.

    At every frame the value of the line that fits the frames around it best, weighted by a Gaussian of
    `sigma` frames: inside a run the Gaussian mean, and at its ends no lag either.
    """
    flat = points.reshape(len(points), int(np.prod(points.shape[1:])))
    present = np.isfinite(flat).all(1)
    edges = np.flatnonzero(np.diff(present.astype(np.int8), prepend=0, append=0))
    out = flat.copy()
    for start, stop in edges.reshape(-1, 2):
        out[start:stop] = _local_lines(flat[start:stop].astype(np.float64), sigma)
    return out.reshape(points.shape)


def _local_lines(values: np.ndarray, sigma: float) -> np.ndarray:
    """values (n,D) -> (n,D), local lines at each row."""
    count, reach = len(values), int(np.ceil(3 * sigma))
    away = np.arange(-reach, reach + 1)
    near = np.arange(count)[:, None] + away  # (n,m)
    weight = np.exp(-0.5 * (away / sigma) ** 2) * ((near >= 0) & (near < count))
    zeroth, first, second = ((weight * away**power).sum(1, keepdims=True) for power in range(3))
    determinant = zeroth * second - first**2
    single = determinant < 1e-9  # a run of one frame has no slope
    weight = np.where(
        single, weight / zeroth, weight * (second - first * away) / np.where(single, 1, determinant)
    )
    out = np.zeros_like(values)
    for column, rows in zip(weight.T, near.clip(0, count - 1).T, strict=True):
        out += column[:, None] * values[rows]
    return out


def truncate_to_whole_pixels(points: np.ndarray) -> np.ndarray:
    """x and y toward 0; depth is kept."""
    return np.concatenate([np.trunc(points[..., :2]), points[..., 2:]], axis=-1)
