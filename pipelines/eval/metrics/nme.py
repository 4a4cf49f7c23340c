"""Normalised mean error: mean Euclidean distance of 68 landmarks over the size of the real face.

`nme_*` is that of Directions (section 4.1): over the square root of the area of the face's box, times 1000.
The paper does not name its box; here it is the tight one of the real frame's landmarks. `nme_interocular_*`
is over the distance of the real face's outer eye corners, in percent.
"""

from __future__ import annotations

import numpy as np

from pipelines.eval.metrics.akd import landmark_l2_per_frame
from pipelines.eval.metrics.landmarks import (
    LANDMARK_BACKENDS,
    LandmarkBackend,
    landmark_box_size,
    outer_eye_distance,
)
from pipelines.eval.metrics.metric import Metric


def nme_by_box_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,68,2) in pixels -> (T,) thousandths of the size of the target's box."""
    return 1000 * landmark_l2_per_frame(prediction, target) / landmark_box_size(target)


def nme_by_eyes_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,68,2) in pixels -> (T,) percent of the distance of the target's outer eye corners."""
    return 100 * landmark_l2_per_frame(prediction, target) / outer_eye_distance(target)


def _nme_metrics(backend: LandmarkBackend) -> tuple[Metric, Metric]:
    return (
        Metric(
            name=f"nme_{backend.suffix}", title=f"NME ({backend.title})",
            variant="mean_euclidean_68_x1000_over_sqrt_box_area", better="down", unit="x1e3",
            feature=backend.feature, field="landmarks", per_frame=nme_by_box_per_frame,
            on_request=backend.on_request,
            meaning=f"mean Euclidean distance of {backend.points}, in thousandths of the size of the real "
            "face's box",
        ),
        Metric(
            name=f"nme_interocular_{backend.suffix}", title=f"NME eyes ({backend.title})",
            variant="mean_euclidean_68_percent_of_outer_eye_corners", better="down", unit="%",
            feature=backend.feature, field="landmarks", per_frame=nme_by_eyes_per_frame,
            on_request=True,
            meaning="the same in percent of the distance of the real face's outer eye corners",
        ),
    )  # fmt: skip


NME_METRICS = tuple(metric for backend in LANDMARK_BACKENDS for metric in _nme_metrics(backend))
