"""How well lips go with sound by SyncNet (PIR table 1; Chung and Zisserman 2016): AVConf, which others call
LSE-C, LSE-D and the offset.

Each window of five frames is compared with the windows of sound from 15 before to 15 after it:

    d(t,k) = |lips_t - sound_(t+k) + 1e-6|        sound beyond the ends: a vector of zeros
    D(k) = mean over t,   LSE-D = min D,   AVConf = median D - min D,   offset = -argmin D

in frames; a positive one: the sound comes before the lips. The value is the mean over clips, of the offset
that of its size. Of a clip without sound or without a face in five frames in a row there is none.

How a face is cropped is part of the metric's name: values of different crops do not compare.
"""

from __future__ import annotations

import numpy as np

from pipelines.eval.features import (
    LIPS_FULL_FRAME_FEATURE,
    LIPS_MESH_FEATURE,
    LIPS_S3FD_FEATURE,
    SPEECH_FEATURE,
)
from pipelines.eval.metrics.metric import Metric, is_present_per_frame

MAX_SHIFT = 15
"""Windows, one a frame."""
DIFFERENCE_EPSILON = 1e-6  # as torch.nn.functional.pairwise_distance adds to every difference


def shift_distances(lips: np.ndarray, speech: np.ndarray, max_shift: int = MAX_SHIFT) -> np.ndarray:
    """lips (n,D), speech (m,D) -> (min(n, m), 2 max_shift + 1) float64: distances of each window's lips from
    sound of max_shift windows before it to as many after it; NaN where either has none."""
    windows = min(len(lips), len(speech))
    seen = lips[:windows].astype(np.float64) + DIFFERENCE_EPSILON
    padded = np.pad(speech[:windows].astype(np.float64), ((max_shift, max_shift), (0, 0)))
    return np.stack(
        [np.linalg.norm(seen - padded[k : k + windows], axis=1) for k in range(2 * max_shift + 1)], axis=1
    )


def mean_shift_distances(lips: np.ndarray, speech: np.ndarray) -> np.ndarray:
    """Mean of each shift (31,) over the windows that have a face and sound; NaN where none has."""
    distances = shift_distances(lips, speech)
    present = np.isfinite(distances)
    count = present.sum(axis=0)
    total = np.where(present, distances, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def sync_confidence(lips: np.ndarray, speech: np.ndarray) -> float:
    """AVConf of one clip, NaN where there is none."""
    means = mean_shift_distances(lips, speech)
    return float(np.median(means) - means.min())


def sync_distance(lips: np.ndarray, speech: np.ndarray) -> float:
    """LSE-D of one clip, NaN where there is none."""
    return float(mean_shift_distances(lips, speech).min())


def sync_offset(lips: np.ndarray, speech: np.ndarray) -> float:
    """Frames by which the sound comes before the lips, NaN where nobody can say."""
    means = mean_shift_distances(lips, speech)
    return float("nan") if np.isnan(means).any() else float(MAX_SHIFT - means.argmin())


def sync_offset_size(lips: np.ndarray, speech: np.ndarray) -> float:
    return abs(sync_offset(lips, speech))


_CROPS = {
    "syncnet_mesh": (LIPS_MESH_FEATURE, "mesh", "median13_crop.4_of_68_mesh_points_224px",
                     "faces cropped about MediaPipe's mesh"),
    "syncnet_s3fd": (LIPS_S3FD_FEATURE, "S3FD", "median13_crop.4_of_s3fd_224px",
                     "faces cropped about S3FD's boxes, as SyncNet's authors do"),
    "fullframe": (LIPS_FULL_FRAME_FEATURE, "whole frame", "whole_frame_224px",
                  "whole frames at 224 px, as Wav2Lip's evaluation has them"),
}  # fmt: skip


def _sync_metrics(crop: str) -> list[Metric]:
    feature, title, variant, faces = _CROPS[crop]
    shared = {
        "per_frame": is_present_per_frame, "feature": feature, "field": "sync_lips",
        "reference_feature": SPEECH_FEATURE, "reference_field": "sync_sound", "cross_reference": "driving",
        "on_request": True, "lack": "no sound beside a face in five frames in a row",
    }  # fmt: skip
    return [
        Metric(
            name=f"avconf_{crop}", title=f"AVConf ({title})", variant=f"median_less_min_of_31_{variant}",
            better="up", unit="", per_clip=sync_confidence,
            meaning="confidence of SyncNet that lips and driving sound go together (LSE-C): median less "
            f"minimum of the mean distance at shifts of -15 to 15 frames, of {faces}", **shared,
        ),
        Metric(
            name=f"lse_d_{crop}", title=f"LSE-D ({title})", variant=f"min_of_31_{variant}", better="down",
            unit="", per_clip=sync_distance,
            meaning="the least of these distances, at the shift at which lips and sound fit best", **shared,
        ),
        Metric(
            name=f"av_offset_{crop}", title=f"AV offset ({title})",
            variant=f"mean_abs_argmin_of_31_{variant}", better="down", unit="frames",
            per_clip=sync_offset_size,
            meaning="size of that shift, in frames at 25 fps: how far lips and sound are apart", **shared,
        ),
    ]  # fmt: skip


SYNC_METRICS = tuple(metric for crop in _CROPS for metric in _sync_metrics(crop))
