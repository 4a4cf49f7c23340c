"""Random changes of FSRT's training images: all are drawn beside the reader. Frames are mirrored and cropped
there too, as they are stored; colours change on the device. Supplement 7.1.

Crops follow the authors' data rules: integer pixels of a 256 px frame, from the extents of the 68 landmarks.
A crop is kept as (left, top, right, bottom) cut off each side, in shares of the side. It is cut out of the
frame as it is stored and resized once, so that it keeps the detail that the frame has (supplement 7.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)

FRAME_SIZE = 256  # side of the frame on which crops are drawn
MAX_ABS_AUGMENTED_COORDINATE = 2.0  # positional codes are unique on (-2,2)
MAX_CROP_TRIES = 100

# 68-point layout: what each index becomes when the picture is mirrored
MIRRORED_LANDMARKS = np.array([
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
])  # fmt: skip


# --- frames and images --------------------------------------------------------------------------------------
def crop_and_resize(
    frames: Iterable[np.ndarray], crop: np.ndarray, size: int, mirrored: bool = False
) -> np.ndarray:
    """frames (n) of (S,S,3) uint8, each of a side of its own, crop (4,) in shares of S -> (n,size,size,3)
    uint8: cut to whole pixels, then resized once, bilinear without anti-aliasing as published. mirrored: the
    crop is that of the frames as a mirror shows them, and so is what comes out.
    """
    frames = list(frames)
    out = np.empty((len(frames), size, size, 3), np.uint8)
    for n, frame in enumerate(frames):
        side = len(frame)
        left, top, right, bottom = np.rint(crop * side).astype(int).tolist()
        if mirrored:
            left, right = right, left
        cv2.resize(
            frame[top : side - bottom, left : side - right], (size, size), out[n],
            interpolation=cv2.INTER_LINEAR,
        )  # fmt: skip
        if mirrored:
            cv2.flip(out[n], 1, out[n])
    return out


def frames_to_images(frames: Tensor) -> Tensor:
    """frames (B,n,S,S,3) uint8 -> (B,n,3,S,S) in [0,1]"""
    return frames.permute(0, 1, 4, 2, 3).contiguous() / 255


# --- crops --------------------------------------------------------------------------------------------------
def _extents(landmarks: np.ndarray, margins: tuple[float, float, float, float]) -> list[int]:
    """landmarks (...,2) on the 256 frame -> left, top, right, bottom of their box grown by shares of its
    size.
    """
    points = landmarks.reshape(-1, 2)
    x0, y0 = (round(v) for v in points.min(0).tolist())  # halves to the even number, as np.rint
    x1, y1 = (round(v) for v in points.max(0).tolist())
    width, height = x1 - x0, y1 - y0
    left, top, right, bottom = margins
    box = [x0 - round(left * width), y0 - round(top * height),
           x1 + round(right * width), y1 + round(bottom * height)]  # fmt: skip
    return [min(max(v, 0), FRAME_SIZE - 1) for v in box]


def _up_to(rng: np.random.Generator, last: int) -> int:
    return int(rng.integers(0, last + 1)) if last > 0 else 0


def normalize_crop_margins(cut: tuple[int, int, int, int], side: int) -> np.ndarray:
    """Pixels cut off on the 256 frame -> shares of a frame of `side` pixels, rounded to its pixels."""
    return (np.rint(np.array(cut) * (side / FRAME_SIZE)) / side).astype(np.float32)


def frame_to_crop_scale_shift(crop: Array) -> tuple[Array, Array]:
    """crop (...,4) -> scale, shift (...,2): a point k of the frame lies at (k + shift) * scale of the
    crop.
    """
    left_top, right_bottom = crop[..., :2], crop[..., 2:]
    return 1 / (1 - left_top - right_bottom), right_bottom - left_top


def sample_out_of_frame_crop(rng: np.random.Generator, landmarks: np.ndarray, side: int) -> np.ndarray:
    """Crop around the sources' landmarks (S,68,2) on the 256 frame; driving keypoints may end up outside."""
    left, top, right, bottom = _extents(landmarks, (0.2, 0.5, 0.2, 0.15))
    for _ in range(MAX_CROP_TRIES):
        cut = (
            _up_to(rng, left - 1),
            _up_to(rng, top - 1),
            _up_to(rng, 254 - right),
            _up_to(rng, 254 - bottom),
        )
        crop = normalize_crop_margins(cut, side)
        if crop[0] + crop[2] >= 1 or crop[1] + crop[3] >= 1:
            continue
        scale, shift = frame_to_crop_scale_shift(crop)
        if np.abs((np.array([[-1.0], [1.0]]) + shift) * scale).max() <= MAX_ABS_AUGMENTED_COORDINATE:
            return crop
    return np.zeros(4, np.float32)


def sample_expression_crop(rng: np.random.Generator, landmarks: np.ndarray, side: int) -> np.ndarray:
    """Tight crop of the driving frame, landmarks (68,2): its box stays inside, its place in the frame is
    lost.
    """
    left, top, right, bottom = _extents(landmarks, (0.0, 0.25, 0.0, 0.05))
    cut = (_up_to(rng, left - 1), _up_to(rng, top - 1), _up_to(rng, 255 - right), _up_to(rng, 255 - bottom))
    crop = normalize_crop_margins(cut, side)
    return crop if crop[0] + crop[2] < 1 and crop[1] + crop[3] < 1 else np.zeros(4, np.float32)


def sample_centre_crop(rng: np.random.Generator, least: float, side: int) -> np.ndarray:
    """Crop of the middle of a frame of `side` pixels: width and height are shares drawn from least .. 1 each,
    so the aspect changes too. Supplement 8.6; the shares are ours.
    """
    cut = np.floor((1 - rng.uniform(least, 1, 2)) * side / 2) / side
    return np.tile(cut, 2).astype(np.float32)


# --- mirroring ----------------------------------------------------------------------------------------------
def mirror_landmarks(landmarks: np.ndarray, side: int) -> np.ndarray:
    """landmarks (n,68,2) in pixels of frames of that side, which are mirrored; left and right points change
    places.
    """
    turned = landmarks[:, MIRRORED_LANDMARKS]
    turned[..., 0] = side - turned[..., 0]
    return turned


# --- colour -------------------------------------------------------------------------------------------------
def sample_color_jitter(rng: np.random.Generator, views: int, jitter: float, hue: float) -> np.ndarray:
    """Per view: brightness, contrast, saturation, hue, and the order in which they apply -> (views,8)
    float32.
    """
    factors = rng.uniform(1 - jitter, 1 + jitter, (views, 3))
    shift = rng.uniform(-hue, hue, (views, 1))
    order = np.argsort(rng.random((views, 4)), axis=1)
    return np.concatenate([factors, shift, order], axis=1).astype(np.float32)


def neutral_color_jitter(views: int) -> np.ndarray:
    """What sample_color_jitter gives when nothing changes."""
    return np.tile(np.array([1, 1, 1, 0, 0, 1, 2, 3], np.float32), (views, 1))


def apply_color_jitter(images: Tensor, colours: Tensor, whole: Tensor | None = None) -> Tensor:
    """images (B,n,3,H,W) in [0,1], colours (B,8): one set for all n images of a sample, each step clamped to
    [0,1].

    whole (B,n,3,H',W'): the frames that the images were cut out of, None = they were not. Contrast turns
    about a frame's mean, so a crop must know the whole frame's to look as if cut after the change.
    The order of the four changes is that of the batch's first sample, so that each is one pass over the
    batch.
    """
    order = colours[0, 4:].int().tolist()
    before_contrast = order[: order.index(CONTRAST)]
    for number in order:
        factor = colours[:, number].view(-1, 1, 1, 1, 1)
        if number == CONTRAST:
            images = _contrast(images, factor, images if whole is None else whole)
        else:
            images = OTHER_COLOR_CHANGES[number](images, factor)
            if whole is not None and number in before_contrast:
                whole = OTHER_COLOR_CHANGES[number](whole, factor).clamp_(0, 1)
        images = images.clamp_(0, 1)
    return images


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return images * factor


def _grey(images: Tensor) -> Tensor:
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return (images * weights).sum(2, keepdim=True)


def _contrast(images: Tensor, factor: Tensor, frames: Tensor) -> Tensor:
    """frames: whose mean grey stays."""
    mean = _grey(frames).mean((2, 3, 4), keepdim=True)
    return mean + (images - mean) * factor


def _saturation(images: Tensor, factor: Tensor) -> Tensor:
    grey = _grey(images)
    return grey + (images - grey) * factor


def _hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` turns, in HSV: value and chroma stay."""
    red, green, blue = images.unbind(2)
    value, _ = images.max(2)
    chroma = value - images.min(2).values
    safe = chroma.clamp_min(1e-8)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = sector + shift.squeeze(2) * 6
    channels = []
    for start in (5.0, 3.0, 1.0):
        k = (start + turned) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=2)


CONTRAST = 1
OTHER_COLOR_CHANGES = {0: _brightness, 2: _saturation, 3: _hue}
"""By their column in `sample_color_jitter`; each pixel by itself."""
