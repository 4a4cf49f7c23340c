"""Baselines that are made of landmarks and frames alone, as stages of nodes `generate.<method>.<protocol>`:
`warp`, and `mean_mouth` and `random_mouth` where sound drives.

They read the landmarks that the run's keypoints found in the clips. T = driving frames of a pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol as Interface

import numpy as np

from pipelines.errors import Rejected
from pipelines.eval.generate import BaselineConfig, encode_frames_as_png, read_pair_clips
from pipelines.eval.landmark_warp import hold_landmarks, target_landmarks, warp_by_landmarks
from pipelines.eval.pair_clips import DubbedClip, FamilySamples, PairClip, Sample
from pipelines.eval.protocols import MotionMode
from pipelines.eval.replaced_mouths import (
    replace_by_mean_mouth,
    replace_by_other_mouths,
    sample_donor_frames,
)
from pipelines.figures import picture_grids


class WarpConfig(BaselineConfig, Interface):
    """What the warp reads of a protocol."""

    @property
    def motion(self) -> MotionMode: ...


class RandomMouthConfig(BaselineConfig, Interface):
    """What random mouths are chosen by."""

    @property
    def seed(self) -> int: ...


def warp_source(
    inputs: Mapping[str, FamilySamples],
    config: WarpConfig,
    nets: Mapping[str, object],
    runtime: object = None,
) -> Iterator[Sample]:
    """The first source frame that has landmarks, bent to the driving ones. Driving frames without any show
    the pose of the last that has some; Rejected where no source frame has landmarks, or no driving frame."""
    pair, source, driving = read_pair_clips(inputs)
    still = _read_landmarks(source, pair.source_frames, "source")
    moving, count = hold_landmarks(_read_landmarks(driving, pair.driving_frames, "driving"))
    first = int(_has_landmarks(still).argmax())
    image = source.frames([pair.source_frames[first]])[0]
    targets = target_landmarks(still[first], moving, config.motion == "relative")
    yield _sample(pair.id, warp_by_landmarks(image, still[first], targets), config.size, count)


def mean_mouth(
    inputs: Mapping[str, FamilySamples],
    config: BaselineConfig,
    nets: Mapping[str, object],
    runtime: object = None,
) -> Iterator[Sample]:
    """The driving frames with the mean of their mouths. Rejected where none has landmarks."""
    pair, _, driving = read_pair_clips(inputs)
    landmarks = _read_landmarks(driving, pair.driving_frames, "driving")
    frames = replace_by_mean_mouth(driving.frames(pair.driving_frames), landmarks)
    yield _sample(pair.id, frames, config.size, int((~_has_landmarks(landmarks)).sum()))


def random_mouth(
    inputs: Mapping[str, FamilySamples],
    config: RandomMouthConfig,
    nets: Mapping[str, object],
    runtime: object = None,
) -> Iterator[Sample]:
    """The driving frames, each with the mouth of another of them that has landmarks, by hash of (seed, clip,
    frame). Rejected where fewer than two have."""
    pair, _, driving = read_pair_clips(inputs)
    landmarks = _read_landmarks(driving, pair.driving_frames, "driving")
    found = _has_landmarks(landmarks)
    places = {frame: place for place, frame in enumerate(pair.driving_frames)}
    donors = [frame for frame, place in places.items() if found[place]]
    if len(donors) < 2:
        raise Rejected("no_landmarks", "one driving frame alone has landmarks; another's mouth is wanted")
    chosen = sample_donor_frames(config.seed, pair.driving_clip, pair.driving_frames, donors)
    frames = driving.frames(pair.driving_frames)
    replaced = replace_by_other_mouths(frames, landmarks, [places[frame] for frame in chosen])
    yield _sample(pair.id, replaced, config.size, int((~found).sum()))


def _read_landmarks(clip: PairClip | DubbedClip, frames: Sequence[int], side: str) -> np.ndarray:
    """-> (len(frames),68,2) pixels of the clip's frames, NaN where a frame has none; Rejected where none of
    them has any, as in a clip that keypoints left out."""
    if clip.has_field("landmarks"):
        landmarks = clip.read_field("landmarks")[list(frames)]
        if _has_landmarks(landmarks).any():
            return landmarks
    raise Rejected("no_landmarks", f"none of the pair's {side} frames has landmarks")


def _has_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """(T,68,2) -> (T,) bool"""
    return np.asarray(np.isfinite(landmarks).all(axis=(1, 2)))


def _sample(pair: str, frames: np.ndarray, size: int, without_landmarks: int) -> Sample:
    """frames (T,H,W,3) uint8"""
    images = picture_grids.to_uint8(picture_grids.resize_frames(frames, size))
    about = {"provenance": {}, "image_size": frames.shape[1], "frames_without_landmarks": without_landmarks}
    return {"__key__": pair, "frames": encode_frames_as_png(images), "method": about}
