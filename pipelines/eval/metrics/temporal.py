"""How a generated video moves beside the real one: flicker of its pixels, jitter of its landmarks, blinks.

A metric of single frames sees nothing of a video that trembles about the truth. Rows are frames one step
apart, as the protocol judges them: every `frame_stride`-th; where frames between two rows are left out, they
are no neighbours (score.py). The first frames, which have nothing before them, have no value.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from pipelines.eval.metrics.landmarks import (
    LANDMARK_BACKENDS,
    LandmarkBackend,
    landmark_difference,
    mean_landmark_distance,
)
from pipelines.eval.metrics.metric import Metric
from pipelines.eval.metrics.pictures import MAX_PIXEL, check_pictures, to_pixel_values


def runs_of_even_steps(numbers: Sequence[int]) -> list[slice]:
    """Numbers of frames of a clip, in order -> the rows that follow each other by the smallest step that
    there is: a source frame that is left out between two ends a run."""
    steps = np.diff(numbers)
    ends = np.flatnonzero(steps > steps.min()) + 1 if len(steps) else np.empty(0, int)
    return [slice(start, end) for start, end in pairwise([0, *ends.tolist(), len(numbers)])]


def flicker_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,H,W,3), uint8 or in [0,1] -> (T,) in [0,1]: mean absolute difference between the changes of
    pixels since the frame before, of the one and of the other; NaN in the first frame."""
    check_pictures(prediction, target)
    values = np.full(len(target), np.nan)
    before = None
    for t, (generated, real) in enumerate(zip(prediction, target, strict=True)):
        error = to_pixel_values(generated) - to_pixel_values(real)
        if before is not None:
            values[t] = np.abs(error - before).mean() / MAX_PIXEL
        before = error
    return values


def jitter_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,68,2) in pixels -> (T,) pixels: mean length over the landmarks of the difference of their second
    differences in time, of this frame and the two before it; NaN in the first two frames, and where one of
    the three has no face."""
    error = landmark_difference(prediction, target)
    values = np.full(len(error), np.nan)
    if len(error) > 2:
        values[2:] = mean_landmark_distance(error[2:] - 2 * error[1:-1] + error[:-2])
    return values


FLICKER_METRIC = Metric(
    name="flicker", title="Flicker", variant="mean_abs_difference_of_frame_differences_01", better="down",
    unit="[0,1]", temporal=True, per_frame=flicker_per_frame,
    meaning="mean absolute difference between how pixels change from frame to frame, generated and real",
)  # fmt: skip


def _jitter_metric(backend: LandmarkBackend) -> Metric:
    return Metric(
        name=f"jitter_{backend.suffix}", title=f"Jitter ({backend.title})",
        variant="mean_euclidean_68_second_difference_256px", better="down", unit="px",
        feature=backend.feature, field="landmarks", per_frame=jitter_per_frame,
        on_request=backend.on_request, temporal=True,
        meaning=f"mean length of the second difference in time of {backend.points}, less that of the real "
        "face's",
    )  # fmt: skip


JITTER_METRICS = tuple(_jitter_metric(backend) for backend in LANDMARK_BACKENDS)
