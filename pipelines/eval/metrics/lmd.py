"""Distance of landmarks of the mouth (LMD: Chen et al. 2019, ATVGnet; PIR table 1), and of the face (F-LMD).

PIR gives no formula. ATVGnet's code takes dlib's 20 points of the mouth, less the mouth's mean on either
side, so that a head that sits elsewhere costs nothing, and sums their distances; PIR's 1.477 is of the size
of a mean over points. `lmd_*` is that mean, lmd_sum20_dlib ATVGnet's sum.

| metric | distance of |
|---|---|
| lmd_* | the 20 points of the mouth less their mean |
| lmd_raw_* | the 20 points as they lie in the frame |
| lmd_interocular_* | as lmd, in percent of the distance of the real face's outer eye corners |
| f_lmd_* | all 68 points as they lie in the frame, which is akd_l2 |
| lmd_sum20_dlib | as lmd, a sum over the 20 points |
"""

from __future__ import annotations

import numpy as np

from pipelines.eval.metrics.akd import landmark_l2_per_frame
from pipelines.eval.metrics.landmarks import (
    LANDMARK_BACKENDS,
    MOUTH_LANDMARKS,
    LandmarkBackend,
    landmark_difference,
    mean_landmark_distance,
    outer_eye_distance,
)
from pipelines.eval.metrics.metric import Metric

MOUTH_POINTS = 20


def lmd_centred_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,68,2) in pixels -> mean Euclidean distance of the mouth's 20 points, each mouth less its mean
    (T,)"""
    mouth = landmark_difference(prediction, target)[:, MOUTH_LANDMARKS]
    return mean_landmark_distance(mouth - mouth.mean(axis=1, keepdims=True))


def lmd_raw_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,68,2) in pixels -> mean Euclidean distance of the mouth's 20 points (T,)"""
    return mean_landmark_distance(landmark_difference(prediction, target)[:, MOUTH_LANDMARKS])


def lmd_sum_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,68,2) in pixels -> summed Euclidean distances of the mouth's 20 points, each mouth less its mean
    (T,)"""
    return MOUTH_POINTS * lmd_centred_per_frame(prediction, target)


def lmd_by_eyes_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,68,2) in pixels -> as lmd_centred_per_frame, percent of the distance of the target's outer eye
    corners (T,)"""
    return 100 * lmd_centred_per_frame(prediction, target) / outer_eye_distance(target)


def _lmd_metrics(backend: LandmarkBackend) -> tuple[Metric, ...]:
    suffix, title = backend.suffix, backend.title
    return (
        Metric(
            name=f"lmd_{suffix}", title=f"LMD ({title})", variant="mouth20_centred_mean_euclidean_256px",
            better="down", unit="px", feature=backend.feature, field="landmarks",
            per_frame=lmd_centred_per_frame,
            on_request=backend.on_request,
            meaning=f"mean Euclidean distance of the mouth's 20 of {backend.points}, less the mouth's mean",
        ),
        Metric(
            name=f"lmd_raw_{suffix}", title=f"LMD raw ({title})", variant="mouth20_mean_euclidean_256px",
            better="down", unit="px", feature=backend.feature, field="landmarks",
            per_frame=lmd_raw_per_frame,
            on_request=True,
            meaning="mean Euclidean distance of the mouth's points as they lie in the frame",
        ),
        Metric(
            name=f"lmd_interocular_{suffix}", title=f"LMD eyes ({title})",
            variant="mouth20_centred_mean_euclidean_percent_of_outer_eye_corners", better="down", unit="%",
            feature=backend.feature, field="landmarks", per_frame=lmd_by_eyes_per_frame,
            on_request=True,
            meaning="LMD in percent of the distance of the real face's outer eye corners",
        ),
        Metric(
            name=f"f_lmd_{suffix}", title=f"F-LMD ({title})", variant="mean_euclidean_68_256px",
            better="down", unit="px", feature=backend.feature, field="landmarks",
            per_frame=landmark_l2_per_frame,
            on_request=True,
            meaning="mean Euclidean distance of all 68 points as they lie in the frame",
        ),
    )  # fmt: skip


def _atvgnet_metric(backend: LandmarkBackend) -> Metric:
    return Metric(
        name=f"lmd_sum20_{backend.suffix}", title=f"LMD sum ({backend.title})",
        variant="mouth20_centred_sum_euclidean_256px", better="down", unit="px", feature=backend.feature,
        field="landmarks", per_frame=lmd_sum_per_frame,
        on_request=True,
        meaning="LMD as a sum over the 20 points, as ATVGnet's code computes it",
    )  # fmt: skip


LMD_METRICS = (
    *(metric for backend in LANDMARK_BACKENDS for metric in _lmd_metrics(backend)),
    _atvgnet_metric(LANDMARK_BACKENDS[0]),
)
