"""Multi-scale SSIM (Wang, Simoncelli and Bovik 2003): contrast and structure at five scales, luminance at the
coarsest alone.

Each scale halves the one before by the mean of 2 x 2 pixels. As in `ssim`, windows lie wholly inside the
image and channels are averaged, here before scales are multiplied; the paper's pictures are grey. A mean
below 0 counts as 0, since a power of it would be complex. torchmetrics agrees but in the coarsest scale,
where it counts a mirrored border.
"""

from __future__ import annotations

import numpy as np

from pipelines.eval.metrics.metric import Metric
from pipelines.eval.metrics.pictures import MAX_PIXEL, check_pictures, to_pixel_values
from pipelines.eval.metrics.ssim import GAUSSIAN_11, ssim_means

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents from the finest to the coarsest scale (section 3.2 of the paper)."""
MIN_MS_SSIM_SIZE = len(GAUSSIAN_11.taps) * 2 ** (len(SCALE_WEIGHTS) - 1)
"""Side in pixels below which the window does not fit into the coarsest scale: 176."""


def ms_ssim_frame(prediction: np.ndarray, target: np.ndarray) -> float:
    """Two frames (H,W,3), uint8 or in [0,1], at least MIN_MS_SSIM_SIZE a side -> in [0,1]"""
    images = prediction, target
    product, coarsest = 1.0, len(SCALE_WEIGHTS) - 1
    for scale, weight in enumerate(SCALE_WEIGHTS):
        means = ssim_means(*images, GAUSSIAN_11)
        mean = means.similarity if scale == coarsest else means.structure
        product *= max(mean, 0.0) ** weight
        images = halve(images[0]), halve(images[1])
    return product


def halve(image: np.ndarray) -> np.ndarray:
    """(H,W,3), uint8 or in [0,1] -> (H // 2, W // 2, 3) in [0,1]: means of 2 x 2 pixels; an odd last row or
    column is left out."""
    height, width = (side // 2 * 2 for side in image.shape[:2])
    values = to_pixel_values(image)
    rows = values[0:height:2] + values[1:height:2]
    return (rows[:, 0:width:2] + rows[:, 1:width:2]) / (4 * MAX_PIXEL)


def ms_ssim_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,H,W,3), uint8 or in [0,1], at least MIN_MS_SSIM_SIZE a side -> (T,)"""
    check_pictures(prediction, target)
    if min(target.shape[1:3]) < MIN_MS_SSIM_SIZE:
        raise ValueError(
            f"MS-SSIM of {target.shape[1]} x {target.shape[2]} px frames: the window fits into five scales "
            f"from {MIN_MS_SSIM_SIZE} px a side"
        )
    return np.array([ms_ssim_frame(p, t) for p, t in zip(prediction, target, strict=True)], np.float64)


MS_SSIM_METRIC = Metric(
    name="ms_ssim", title="MS-SSIM", variant="gauss11_rgb_crop_5scales", better="up", unit="",
    per_frame=ms_ssim_per_frame, min_frame_size=MIN_MS_SSIM_SIZE,
    meaning="structural similarity at five scales, weighted as in Wang et al. 2003",
)  # fmt: skip
