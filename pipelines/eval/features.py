"""Nodes `features.<method>.<protocol>.<feature>`: what metrics compare beside the frames themselves, computed
once for each method and once for the truth.

METRIC_FEATURES: every feature by name. To add one: a stage function in a file of its own, and a line in the
table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from msgspec import Struct

from pipelines.figures import picture_grids
from pipelines.preprocess.boxes import largest_box

if TYPE_CHECKING:
    from models.perception.interfaces import FaceDetector, Landmarker
    from pipelines.eval.pair_clips import FamilySamples, Sample

LANDMARK_FRAME_SIZE = 256
"""Side, in pixels, at which landmarks are sought: distances are in its pixels."""
FRAMES_FEATURE = "frames"
"""What a metric reads that compares the frames themselves."""


class MetricFeature(Struct, frozen=True, kw_only=True):
    run: str
    """"module:function" of the keyed stage; its input has the role `generated`."""
    field: str
    """Of the samples that it gives (storage/shards.py)."""
    nets: tuple[str, ...]
    """Names in models.perception.NETS."""
    light: bool
    """Whether a few pairs take less time than the start of a worker (`Node.light`)."""
    backend: str
    """How it is computed, in words: two values may be compared only if these agree."""


DLIB_LANDMARKS_FEATURE = "landmarks.dlib68"
LANDMARKER_WEIGHTS_ID = "dlib_sp68"
METRIC_FEATURES: dict[str, MetricFeature] = {
    DLIB_LANDMARKS_FEATURE: MetricFeature(
        run="pipelines.eval.features:compute_dlib_landmarks",
        field="landmarks",
        nets=("dlib_hog", "dlib68"),
        light=True,
        backend=f"dlib_hog + dlib68 on frames resized to {LANDMARK_FRAME_SIZE} px, largest face",
    ),
}


def compute_dlib_landmarks(
    inputs: Mapping[str, FamilySamples], config: object, nets: Mapping[str, object], runtime: object = None
) -> Iterator[Sample]:
    """68 points in each generated frame: (T,68,2) float32, NaN where no face is found. Without the net, whose
    weights are missing."""
    sample = inputs["generated"][0]
    if "dlib68" not in nets:
        yield {"__key__": sample["__key__"], "needs": {"weights": LANDMARKER_WEIGHTS_ID}}
        return
    detector, landmarker = cast("FaceDetector", nets["dlib_hog"]), cast("Landmarker", nets["dlib68"])
    points = find_landmarks(sample["frames"], detector, landmarker)
    yield {"__key__": sample["__key__"], "landmarks": points}


def find_landmarks(frames: np.ndarray, detector: FaceDetector, landmarker: Landmarker) -> np.ndarray:
    """(T,S,S,3) uint8 -> (T,68,2) float32, pixels of frames resized to FRAME_SIZE; NaN where no face is
    found."""
    images = picture_grids.to_uint8(picture_grids.resize_frames(frames, LANDMARK_FRAME_SIZE))
    return landmarker.landmarks(images, largest_faces(detector.detect(images)))


def largest_faces(detections: Sequence[np.ndarray]) -> np.ndarray:
    """Boxes of each frame (n,5) -> (T,4) float32: the one of largest area, NaN where there is none."""
    boxes = np.full((len(detections), 4), np.nan, np.float32)
    for t, rows in enumerate(detections):
        if len(rows):
            boxes[t] = largest_box(rows)[:4]
    return boxes
