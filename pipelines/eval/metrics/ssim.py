"""SSIM (Wang et al. 2004), by window. The value depends on window, border and colour more than many methods
differ, so each form has a name of its own.

| metric | window | covariance | border | equals |
|---|---|---|---|---|
| ssim | Gaussian, 11 taps, sigma 1.5 | population | dropped | scikit-image's as in the paper |
| ssim_uniform7_rgb | 7 x 7 uniform | sample | dropped | scikit-image's default |
| ssim_tm | as ssim | population | mirrored, and counted | torchmetrics' default |

All are of the RGB channels, averaged, with K1 = 0.01, K2 = 0.03 and the data range that pixels can have.
scikit-image's as in the paper: gaussian_weights=True, sigma=1.5, use_sample_covariance=False.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from pipelines.eval.metrics.metric import Metric
from pipelines.eval.metrics.pictures import MAX_PIXEL, check_pictures, write_pixel_values

SSIM_C1, SSIM_C2 = (0.01 * MAX_PIXEL) ** 2, (0.03 * MAX_PIXEL) ** 2
GAUSSIAN_SIGMA = 1.5
BAND_ROWS = 41
SCRATCH_MAPS = 6
"""Of a 256 px frame six bands, of 2 MB each."""


class SsimWindow(NamedTuple):
    name: str
    radius: int
    """The window is 2 radius + 1 pixels a side."""
    taps: tuple[float, ...]
    """2 radius + 1 weights along either axis; their sum is 1."""
    unbiased: bool = False
    """Sample covariance, n / (n - 1) of the population's."""
    keeps_border: bool = False
    """The image is mirrored about its outermost pixels, and windows that reach out of it count."""

    @property
    def covariance_factor(self) -> float:
        count = len(self.taps) ** 2
        return count / (count - 1) if self.unbiased else 1.0


def _gaussian_taps(radius: int) -> tuple[float, ...]:
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / GAUSSIAN_SIGMA) ** 2)
    return tuple((taps / taps.sum()).tolist())


_GAUSSIAN_RADIUS = 5  # int(3.5 sigma + 0.5), scikit-image's truncation and torchmetrics'
GAUSSIAN_11 = SsimWindow("gauss11", _GAUSSIAN_RADIUS, _gaussian_taps(_GAUSSIAN_RADIUS))
GAUSSIAN_11_MIRRORED = GAUSSIAN_11._replace(name="gauss11_mirrored", keeps_border=True)
UNIFORM_7 = SsimWindow("uniform7", 3, (1 / 7,) * 7, unbiased=True)


class SsimMeans(NamedTuple):
    """Over channels and the places that count."""

    similarity: float
    structure: float
    """Of contrast times structure: similarity without luminance."""


def ssim_means(prediction: np.ndarray, target: np.ndarray, window: SsimWindow) -> SsimMeans:
    """Two frames (H,W,3), uint8 or in [0,1]. In bands of rows, whose maps stay in the cache, and in the same
    memory for all bands: a 256 px frame takes 7 ms in place of 12."""
    height, width = target.shape[:2]
    reach = 0 if window.keeps_border else window.radius
    scratch = np.empty((SCRATCH_MAPS, BAND_ROWS + 2 * window.radius, width, 3))
    similarity = structure = 0.0
    for top in range(reach, height - reach, BAND_ROWS):
        bottom = min(top + BAND_ROWS, height - reach)
        around = slice(max(top - window.radius, 0), min(bottom + window.radius, height))
        place = slice(top - around.start, bottom - around.start), slice(reach, width - reach)
        maps = scratch[:, : around.stop - around.start]
        luminance, contrast = _ssim_maps(prediction[around], target[around], window, place, maps)
        structure += contrast.sum()
        contrast *= luminance
        similarity += contrast.sum()
    count = 3 * (height - 2 * reach) * (width - 2 * reach)
    return SsimMeans(float(similarity / count), float(structure / count))


def _ssim_maps(
    prediction: np.ndarray,
    target: np.ndarray,
    window: SsimWindow,
    place: tuple[slice, slice],
    scratch: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Two images (H,W,3) -> luminance, and contrast times structure, of the channels at a place (h,w,3).
    scratch: (SCRATCH_MAPS,H,W,3) float64, in which they lie too.

    By their sum u and their difference v: twice the covariance is half of var u - var v, and the sum of
    their variances half of var u + var v; likewise of products and squares of means. This takes four means
    over windows, where the formula of the paper has five, and the fewest steps of arithmetic over maps.
    """
    u, v, *means = scratch
    write_pixel_values(prediction, u)
    write_pixel_values(target, means[0])
    np.subtract(u, means[0], out=v)
    u += means[0]
    mean_u, mean_v = (_windowed_mean(*one, window)[place] for one in ((u, means[0]), (v, means[1])))
    u *= u
    v *= v
    var_u, var_v = (_windowed_mean(*one, window)[place] for one in ((u, means[2]), (v, means[3])))
    mean_u *= mean_u
    mean_v *= mean_v
    var_u -= mean_u
    var_v -= mean_v
    mean_u += 2 * SSIM_C1
    var_u += 2 * SSIM_C2 / window.covariance_factor
    return _difference_over_sum(mean_u, mean_v, u[place]), _difference_over_sum(var_u, var_v, v[place])


def _difference_over_sum(first: np.ndarray, second: np.ndarray, total: np.ndarray) -> np.ndarray:
    """-> (first - second) / (first + second), in `first`'s place; total: where to put their sum."""
    np.add(first, second, out=total)
    first -= second
    first /= total
    return first


def _windowed_mean(image: np.ndarray, out: np.ndarray, window: SsimWindow) -> np.ndarray:
    """(H,W,3) float64 -> out, of the same shape: of the window about each pixel."""
    import cv2  # not at the top: a run's graph names metrics, and is planned without OpenCV

    taps = np.array(window.taps)
    cv2.sepFilter2D(image, cv2.CV_64F, taps, taps, dst=out, borderType=cv2.BORDER_REFLECT_101)
    return out


def ssim_frame(prediction: np.ndarray, target: np.ndarray, window: SsimWindow = GAUSSIAN_11) -> float:
    """Two frames (H,W,3), uint8 or in [0,1] -> mean over channels and places."""
    return ssim_means(prediction, target, window).similarity


def ssim_per_frame(
    prediction: np.ndarray, target: np.ndarray, window: SsimWindow = GAUSSIAN_11
) -> np.ndarray:
    """Two (T,H,W,3), uint8 or in [0,1], at least as large as the window -> (T,)"""
    check_pictures(prediction, target)
    if min(target.shape[1:3]) < len(window.taps):
        raise ValueError(
            f"SSIM of {target.shape[1]} x {target.shape[2]} px frames: expected at least {len(window.taps)} "
            "a side"
        )
    pairs = zip(prediction, target, strict=True)
    return np.array([ssim_frame(p, t, window) for p, t in pairs], np.float64)


def _of_window(window: SsimWindow) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return partial(ssim_per_frame, window=window)


SSIM_METRIC = Metric(
    name="ssim", title="SSIM", variant="gauss11_rgb_crop", better="up", unit="", per_frame=ssim_per_frame,
    meaning="structural similarity with an 11-tap Gaussian window, per RGB channel, border dropped",
)  # fmt: skip
SSIM_UNIFORM7_METRIC = Metric(
    name="ssim_uniform7_rgb", title="SSIM (7x7)", variant="uniform7_rgb_crop_sample_covariance", better="up",
    unit="", per_frame=_of_window(UNIFORM_7), on_request=True,
    meaning="the same with a uniform 7 x 7 window and sample covariance, scikit-image's default",
)  # fmt: skip
SSIM_TORCHMETRICS_METRIC = Metric(
    name="ssim_tm", title="SSIM (mirrored)", variant="gauss11_rgb_mirrored", better="up", unit="",
    per_frame=_of_window(GAUSSIAN_11_MIRRORED), on_request=True,
    meaning="SSIM with the border mirrored and counted, torchmetrics' default",
)  # fmt: skip
