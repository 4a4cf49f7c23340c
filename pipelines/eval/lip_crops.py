"""Faces as SyncNet takes them: the authors' crop around a box of the face, followed over a clip
(joonson/syncnet_python, run_pipeline.py), or the whole frame (Wav2Lip's evaluation).

    s = larger side of the box / 2, (x, y) = its centre, medians of 13 frames each
    rows y - s to y + 1.8 s, columns x - 1.4 s to x + 1.4 s: more chin than forehead; grey 110 outside

The authors track S3FD's boxes over at least 100 frames; clips here are one track already. As in their code
the median takes zeros beyond the clip's ends, where it is therefore the smallest of its real values.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.perception.speech.syncnet import FACE_SIDE

MEDIAN_FRAMES = 13
CROP_MARGIN = 0.4
"""Of half the box's larger side: what is added to the left, to the right, and twice below."""
BORDER_GREY = 110
MAX_MISSED_FRAMES = 25
"""A face that is not found in so many frames in a row is followed over them."""


def landmark_boxes(landmarks: np.ndarray) -> np.ndarray:
    """landmarks (T,68,2) -> the box of each frame's (T,4) x0, y0, x1, y1; NaN where there is no face."""
    points = landmarks.astype(np.float64)
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


def face_track(boxes: np.ndarray) -> np.ndarray:
    """boxes (T,4), NaN where no face was found -> (T,3): x, y, s, smoothed; NaN before the first face, after
    the last, and where more than 25 frames in a row have none."""
    boxes = boxes.astype(np.float64)
    corners, opposite = boxes[:, :2], boxes[:, 2:]
    half = (opposite - corners).max(axis=1, keepdims=True) / 2
    track = _bridged(np.concatenate([(corners + opposite) / 2, half], axis=1))
    for run in finite_runs(track):
        track[run] = _median_filtered(track[run])
    return track


def finite_runs(values: np.ndarray) -> list[slice]:
    """(T,n) -> the longest runs of rows without NaN, in order."""
    finite = np.isfinite(values).all(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]])))
    return [slice(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _bridged(track: np.ndarray) -> np.ndarray:
    """(T,n) with short gaps between rows without NaN filled by straight lines."""
    out = track.copy()
    found = np.flatnonzero(np.isfinite(track).all(axis=1))
    for before, after in pairwise(found):
        if 1 < after - before <= MAX_MISSED_FRAMES + 1:
            share = (np.arange(before + 1, after) - before)[:, None] / (after - before)
            out[before + 1 : after] = (1 - share) * track[before] + share * track[after]
    return out


def _median_filtered(track: np.ndarray) -> np.ndarray:
    """(T,n) -> medians of 13 rows about each, zeros beyond the ends; of fewer rows than 13 the median of all,
    as there the zeros would outnumber them."""
    if len(track) < MEDIAN_FRAMES:
        return np.broadcast_to(np.median(track, axis=0), track.shape)
    padded = np.pad(track, ((MEDIAN_FRAMES // 2, MEDIAN_FRAMES // 2), (0, 0)))
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, MEDIAN_FRAMES, axis=0), axis=-1)


def crop_faces(frames: np.ndarray, track: np.ndarray) -> Tensor:
    """frames (T,S,S,3) uint8, track (T,3) in their pixels, none NaN -> (T,3,224,224) float32 in whole levels
    of 0..255"""
    faces = []
    for frame, (x, y, s) in zip(frames, track, strict=True):
        border = int(s * (1 + 2 * CROP_MARGIN))
        padded = np.pad(frame, ((border, border), (border, border), (0, 0)), constant_values=BORDER_GREY)
        x, y = x + border, y + border
        rows = slice(max(0, int(y - s)), max(1, int(y + s * (1 + 2 * CROP_MARGIN))))
        columns = slice(max(0, int(x - s * (1 + CROP_MARGIN))), max(1, int(x + s * (1 + CROP_MARGIN))))
        faces.append(resize_to_face_side(padded[rows, columns][None]))
    return torch.cat(faces)


def resize_to_face_side(frames: np.ndarray) -> Tensor:
    """(n,H,W,3) uint8 -> (n,3,224,224) float32 in whole levels of 0..255: bilinear without a low-pass, as
    OpenCV resizes by default."""
    images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    resized = functional.interpolate(
        images, size=(FACE_SIDE, FACE_SIDE), mode="bilinear", align_corners=False
    )
    return resized.round()
