"""Stage `keypoints`: the face box and its 68 landmarks in every frame of a clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipelines.engine.node import Rejected, Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class KeypointsConfig:
    detector: Literal["dlib_hog", "dlib_ladder"] = "dlib_hog"
    """Net that finds the face again in the crop: landmarks want its box, not the one that the source gave."""
    landmarker: Literal["dlib68", "dlib68_precise"] = "dlib68"
    """Net that places the landmarks; dlib68_precise jitters 30 % less and makes the stage three times as
    slow."""
    detect_every: int = 3
    """Frames between detections; boxes between them are interpolated. Not smoothed: a box that lags behind a
    fast head costs far more (4.4 px with a median over 13 frames, 1.3 px without) than a box that jitters."""
    max_gap: int = 15
    """Longest run of frames without a detection that is bridged; longer ones have no landmarks."""

    def __post_init__(self) -> None:
        if not 1 <= self.detect_every <= 50:
            raise ValueError(f"detect_every {self.detect_every}: expected 1 to 50")
        if self.max_gap < self.detect_every:
            raise ValueError(f"max_gap {self.max_gap}: expected at least detect_every {self.detect_every}")


def find_keypoints(inputs: Mapping[str, list[Sample]], config: Any, nets: Mapping[str, Any]) -> list[Sample]:
    """Clips -> landmarks, score, face_box, for each; Rejected when none of the recording's clips shows a
    face."""
    settings = config.keypoints
    detector, landmarker = nets[settings.detector], nets[settings.landmarker]
    samples = [_keypoints(clip, settings, detector, landmarker) for clip in inputs["clips"]]
    if not any((sample["score"] > 0).any() for sample in samples):
        raise Rejected("no_landmarks", f"{detector.name} sees no face in any of the {len(samples)} clips")
    return samples


def _keypoints(clip: Sample, settings: Any, detector: Any, landmarker: Any) -> Sample:
    frames = clip["frames"]
    looked_at = np.unique([*range(0, len(frames), settings.detect_every), len(frames) - 1])
    found = detector.detect(frames[looked_at])
    seen = np.array([at for at, boxes in zip(looked_at, found, strict=True) if len(boxes)], int)
    chosen = [
        _main_face(frames[at], boxes, landmarker)
        for at, boxes in zip(looked_at, found, strict=True)
        if len(boxes)
    ]
    face_box, score = between(
        np.array(chosen, np.float32).reshape(-1, 5), seen, len(frames), settings.max_gap
    )
    landmarks = landmarker.landmarks(frames, face_box)
    return {"__key__": clip["__key__"], "landmarks": landmarks, "score": score, "face_box": face_box}


def between(faces: np.ndarray, seen: np.ndarray, frames: int, max_gap: int) -> tuple[np.ndarray, np.ndarray]:
    """faces (n,5) detected in frames `seen` (n,) -> boxes (T,4), NaN where no face is near, and scores (T,),
    0 there."""
    boxes, score = np.full((frames, 4), np.nan, np.float32), np.zeros(frames, np.float32)
    if not len(seen):
        return boxes, score
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
    return boxes, score


def _main_face(frame: np.ndarray, boxes: np.ndarray, landmarker: Any) -> np.ndarray:
    """Of several faces the one whose landmarks have the largest convex hull, as FSRT's data preparation
    does."""
    if len(boxes) == 1:
        return boxes[0]
    from scipy.spatial import ConvexHull

    points = landmarker.landmarks(np.repeat(frame[None], len(boxes), axis=0), boxes[:, :4])
    return boxes[int(np.argmax([ConvexHull(one).volume for one in points]))]
