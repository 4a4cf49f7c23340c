"""SSIM (Wang et al. 2004): Gaussian window of 11 taps, population covariance, per RGB channel, border of 5 px
dropped.

Equals scikit-image's structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
data_range=1). Other windows, grey conversion or [-1,1] images give other numbers, so the variant is in the
name's record.
"""

from __future__ import annotations

import numpy as np

from pipelines.errors import UserError
from pipelines.eval.metrics.metric import Metric, check_same_shape

WINDOW_SIGMA = 1.5
SSIM_WINDOW_RADIUS = 5  # int(3.5 sigma + 0.5), scikit-image's truncation
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # (K1 L)^2, (K2 L)^2 with data range L = 1


def _blur(images: np.ndarray) -> np.ndarray:
    """(H,W,C) -> (H-10,W-10,C): Gaussian means at the places where the whole window lies in the image."""
    from scipy.ndimage import correlate1d

    taps = np.exp(-0.5 * (np.arange(-SSIM_WINDOW_RADIUS, SSIM_WINDOW_RADIUS + 1) / WINDOW_SIGMA) ** 2)
    taps /= taps.sum()
    rows = correlate1d(images, taps, axis=0)[SSIM_WINDOW_RADIUS:-SSIM_WINDOW_RADIUS]
    return correlate1d(rows, taps, axis=1)[:, SSIM_WINDOW_RADIUS:-SSIM_WINDOW_RADIUS]


def ssim_frame(prediction: np.ndarray, target: np.ndarray) -> float:
    """Two (H,W,3) float64 in [0,1] -> mean over channels and inner pixels."""
    mean_p, mean_t = _blur(prediction), _blur(target)
    var_p = _blur(prediction * prediction) - mean_p**2
    var_t = _blur(target * target) - mean_t**2
    covariance = _blur(prediction * target) - mean_p * mean_t
    luminance = (2 * mean_p * mean_t + SSIM_C1) / (mean_p**2 + mean_t**2 + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (var_p + var_t + SSIM_C2)
    return float((luminance * structure).mean())


def ssim_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,H,W,3) in [0,1], at least 11 px a side -> (T,)"""
    check_same_shape(prediction, target)
    if min(target.shape[1:3]) < 2 * SSIM_WINDOW_RADIUS + 1:
        raise UserError(
            f"SSIM of {target.shape[1:3]} px frames: expected at least {2 * SSIM_WINDOW_RADIUS + 1} a side"
        )
    pairs = zip(prediction, target, strict=True)
    return np.array([ssim_frame(p.astype(np.float64), t.astype(np.float64)) for p, t in pairs])


SSIM_METRIC = Metric(
    name="ssim", title="SSIM", variant="gauss11_rgb_crop", better="up", unit="", per_frame=ssim_per_frame,
    meaning="structural similarity with an 11-tap Gaussian window, per RGB channel, border dropped",
)  # fmt: skip
