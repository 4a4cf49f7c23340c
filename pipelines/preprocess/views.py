"""Views: other crops of the clips that are there, for models that want them. A run without such a model cuts
none.

A view is a family with the keys of `clips`. Beside `frames` it holds `frame_at` (which frame of the clip
each one shows) and `affine` (pixels of the clip -> pixels of the view, for each), so that landmarks are found
once: `map_points_to_view` (pipelines/dataset/clips.py). Frames are cut from the recording itself, never from
the clip.

| recipe | crop | side | frames | for |
|---|---|---|---|---|
| vox_max | the clip's square | as in the recording, at most `size` | all | FSRT beyond the frame |
| vox512 | the clip's square | `size` | all | PIR |
| ffhq256 | a square about a frame's landmarks, as FFHQ but upright | `size` | one in `every` | directions |
| clip_square | the clip's square | the clip's | all | evaluation: the clip before its codec |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines import media
from pipelines.engine.node import Inputs
from pipelines.errors import Rejected
from pipelines.preprocess.clips import encode_frames, stream_crop
from pipelines.preprocess.clips_config import CropViewConfig
from storage.shards import Sample

if TYPE_CHECKING:
    from pipelines.cluster.runtime import RuntimeConfig
    from pipelines.media.probe_schema import Probe

REFLECT_PADDING_BLUR_SIGMA = 5.0
"""Sigma in pixels of what is mirrored beyond the border."""


# --- the stages ---------------------------------------------------------------------------------------------
def cut_vox_max(
    inputs: Inputs,
    config: CropViewConfig,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """A recording and its clips -> the squares at the recording's resolution: frames, affine, frame_at.
    Rejected too_small where the squares of all clips are smaller than `min_size`."""
    # a square that was made by stretching gives up the longer side, so that nothing is invented
    return _squares(
        inputs, config, lambda crop: min(config.frame_side, int(min(crop[2:] - crop[:2]))) // 2 * 2
    )


def cut_vox512(
    inputs: Inputs,
    config: CropViewConfig,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """A recording and its clips -> the clips' squares at one size: frames, affine, frame_at. Rejected
    too_small as `cut_vox_max` does."""
    return _squares(inputs, config, lambda crop: config.frame_side)


def cut_clip_square(
    inputs: Inputs,
    config: CropViewConfig,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """A recording and its clips -> the clips' frames cut once more: frames, affine, frame_at. Frame for frame
    what `clips` cut before its codec; by the same codec, the same bytes."""
    side = inputs["clips"][0]["clip"]["size"]  # one for all clips of a run
    return _squares(inputs, config, lambda crop: side)


def cut_ffhq256(
    inputs: Inputs,
    config: CropViewConfig,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """A recording, its clips and their landmarks -> a square about the face in one frame of `every`: frames,
    affine, frame_at.

    Frames without landmarks, with one outside the recording, or whose square is smaller than `min_size`, are
    left out, and clips in which none is left, or that keypoints left out as theirs slip; Rejected no_view if
    that goes for all of them.
    """
    raw = inputs["download"][0]
    landmarks = {sample["__key__"]: sample["landmarks"] for sample in inputs["keypoints"]}
    clips = 0
    with media.open_as_local_file(raw["video"]) as path:
        for clip in inputs["clips"]:
            points = landmarks.get(clip["__key__"])
            if points is None:
                continue
            sample = _align_clip(path, raw["probe"], clip, points, config)
            if sample is not None:
                clips += 1
                yield sample
    if not clips:
        size = f" about a square of {config.min_size} px or more" if config.min_size else ""
        text = f"no frame looked at has all of its landmarks inside the recording{size}"
        raise Rejected("no_view", text)


def _squares(
    inputs: Inputs, settings: CropViewConfig, side_of: Callable[[np.ndarray], int]
) -> Iterator[Sample]:
    raw = inputs["download"][0]
    sides = [int(min(clip["crop"][0, 2:] - clip["crop"][0, :2])) for clip in inputs["clips"]]
    if max(sides) < settings.min_size:
        text = f"no square is larger than {max(sides)} px, and the view's min_size is {settings.min_size}"
        raise Rejected("too_small", text)
    with media.open_as_local_file(raw["video"]) as path:
        for clip, in_recording in zip(inputs["clips"], sides, strict=True):
            if in_recording < settings.min_size:
                continue
            meta, crop = clip["clip"], clip["crop"][0]
            side = side_of(crop)
            affine = np.array([[side / meta["size"], 0, 0], [0, side / meta["size"], 0]], np.float32)
            images = stream_crop(path, raw["probe"], crop.astype(int), side, meta["start"], meta["end"])
            yield {
                "__key__": clip["__key__"],
                "frames": encode_frames(images, settings.frames),
                "affine": np.tile(affine, (meta["frames"], 1, 1)),
                "frame_at": np.arange(meta["frames"], dtype=np.int32),
            }


# --- faces in a square of their own -------------------------------------------------------------------------
def _align_clip(
    path: Path, probed: Probe, clip: Sample, landmarks: np.ndarray, settings: CropViewConfig
) -> Sample | None:
    """landmarks (T,68,2) in pixels of the clip -> the sample, or None where no frame is left."""
    meta, crop = clip["clip"], clip["crop"][0].astype(np.float64)
    zoom = (crop[2:] - crop[:2]) / meta["size"]  # pixels of the recording in one of the clip
    frame = np.array([probed["width"], probed["height"]])
    at, squares = [], []
    for index in range(0, meta["frames"], settings.every):
        points = crop[:2] + landmarks[index].astype(np.float64) * zoom
        if np.isfinite(points).all() and (points >= 0).all() and (points <= frame).all():
            # the rule is written for numbers of pixels, whose middle is our half
            square = face_square(points - 0.5)
            if square[2] - square[0] >= settings.min_size:
                at.append(index)
                squares.append(square)
    if not at:
        return None
    known = np.array(squares)
    # only as much of the recording is decoded as the clip's squares need; even, because chroma is halved
    low = np.maximum(known[:, :2].min(0), 0) // 2 * 2
    high = np.minimum(-(-known[:, 2:].max(0) // 2) * 2, frame // 2 * 2)
    box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    size = (box[2] - box[0], box[3] - box[1])
    ticks = meta["start"] + np.array(at)
    images = (
        cut_square(image, known[index] - np.tile(low, 2), settings.frame_side)
        for index, image in media.stream_frames_at_ticks(path, probed, size, box, ticks, [])
    )
    affine = np.zeros((len(at), 2, 3))
    scale = settings.frame_side / (known[:, 2] - known[:, 0])
    for axis in (0, 1):
        affine[:, axis, axis] = scale * zoom[axis]
        affine[:, axis, 2] = scale * (crop[axis] - known[:, axis])
    return {
        "__key__": clip["__key__"],
        "frames": encode_frames(images, settings.frames),
        "affine": affine.astype(np.float32),
        "frame_at": np.array(at, np.int32),
    }


def face_square(points: np.ndarray) -> np.ndarray:
    """points (68,2), numbers of pixels -> x0, y0, x1, y1 int: about the middle of the landmarks, moved up by
    a sixth of their extent, twice as wide as that (voxceleb_preprocessing: FFHQ's frame without the turn)."""
    low, high = points.min(0), points.max(0)
    centre, extent = np.round((low + high) / 2).astype(int), int((high - low).max())
    centre[1] -= extent // 6
    return np.concatenate([centre - extent, centre + extent])


def cut_square(image: np.ndarray, square: np.ndarray, size: int) -> np.ndarray:
    """image (H,W,3) uint8, square (4,) int in its pixels -> (size,size,3) uint8, bicubic.

    What lies outside the image is mirrored, and the further out (from a third of the margin inside on) the
    more blurred and drawn to the image's median, as in FFHQ.
    """
    from PIL import Image

    height, width = image.shape[:2]
    x0, y0, x1, y1 = square.tolist()
    margins = np.maximum([-x0, -y0, x1 - width, y1 - height], 0)
    if margins.any():
        image = _fade_margins(image, margins)
        x0, y0, x1, y1 = x0 + margins[0], y0 + margins[1], x1 + margins[0], y1 + margins[1]
    cut = Image.fromarray(np.ascontiguousarray(image[y0:y1, x0:x1]))
    return np.asarray(cut.resize((size, size), Image.Resampling.BICUBIC))


def _fade_margins(image: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """image (H,W,3) uint8 with `margins` (left, top, right, bottom) mirrored around it and faded."""
    from scipy.ndimage import gaussian_filter

    left, top, right, bottom = margins.tolist()
    out = np.pad(image.astype(np.float32), ((top, bottom), (left, right), (0, 0)), mode="reflect")
    outside = np.maximum.outer(_depth(out.shape[0], top, bottom), _depth(out.shape[1], left, right))[
        ..., None
    ]
    out += (
        gaussian_filter(out, [REFLECT_PADDING_BLUR_SIGMA, REFLECT_PADDING_BLUR_SIGMA, 0]) - out
    ) * np.clip(3 * outside + 1, 0, 1)
    out += (np.median(out, axis=(0, 1)) - out) * np.clip(outside, 0, 1)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def _depth(length: int, before: int, after: int) -> np.ndarray:
    """(length,) float32: 1 at the outer ends of the margins, 0 at the image's border, negative inside."""
    at = np.arange(length, dtype=np.float32)
    left = at / before if before else np.full(length, np.inf, np.float32)
    right = at[::-1] / after if after else np.full(length, np.inf, np.float32)
    return 1 - np.minimum(left, right)
