"""Whether the mouth opens as the sound grows loud, without a net that knows speech: correlation of the lips'
distance with the driving sound's energy, at lags of -5 to 5 frames.

    opening(t) = mean distance of the inner lips / distance of the outer eye corners, 68 mesh points
    r(l) = Pearson correlation of opening(t) and loudness(t - l) over the frames t that both have
    value = max r(l),   lag = argmax r(l): of a positive one the sound comes before the mouth

The value is the mean over clips, of the lag that of its size. The maximum of 11 correlations is above 0 for
sounds that have nothing to do with the mouth, the more so the shorter the clip; another clip's sound tells by
how much. Where the sound is silent throughout, or the mouth stands still, there is none.
"""

from __future__ import annotations

import numpy as np

from pipelines.eval.features import LOUDNESS_FEATURE, MAX_SOUND_LAG, MESH_LANDMARKS_FEATURE
from pipelines.eval.metrics.metric import Metric, is_present_per_frame

MIN_FRAMES = 10
"""That both have at a lag; fewer correlate by chance."""
INNER_LIPS = ((61, 67), (62, 66), (63, 65))
"""Points of the upper and lower inner lip above each other, iBUG order."""
OUTER_EYE_CORNERS = (36, 45)
LEAST_SPREAD = 1e-6
"""Standard deviation, of an opening in eye distances or of a root mean square in [0,1], below which nothing
moves."""


def mouth_opening(landmarks: np.ndarray) -> np.ndarray:
    """landmarks (T,68,2) -> (T,) float64 in distances of the outer eye corners; NaN without a face."""
    points = landmarks.astype(np.float64)
    gaps = [np.linalg.norm(points[:, upper] - points[:, lower], axis=1) for upper, lower in INNER_LIPS]
    first, second = OUTER_EYE_CORNERS
    width = np.linalg.norm(points[:, second] - points[:, first], axis=1)
    return np.mean(gaps, axis=0) / np.maximum(width, LEAST_SPREAD)


def lagged_correlations(opening: np.ndarray, loudness: np.ndarray) -> np.ndarray:
    """opening (T,), loudness (T,11) of the sound MAX_SOUND_LAG frames later to as many earlier -> (11,); NaN
    where either has no spread, or both together too few frames. Lags are frames of the clip, whichever of
    them drive."""
    return np.array([_correlation(opening, beside) for beside in loudness.T])


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    both = np.isfinite(first) & np.isfinite(second)
    a, b = first[both].astype(np.float64), second[both].astype(np.float64)
    if len(a) < MIN_FRAMES or min(a.std(), b.std()) < LEAST_SPREAD:
        return float("nan")
    return float(((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std()))


def mouth_sound_correlation(landmarks: np.ndarray, loudness: np.ndarray) -> float:
    """landmarks (T,68,2), loudness (T,11) -> the largest correlation, NaN where there is none."""
    found = lagged_correlations(mouth_opening(landmarks), loudness)
    return float("nan") if np.isnan(found).all() else float(np.nanmax(found))


def mouth_sound_lag(landmarks: np.ndarray, loudness: np.ndarray) -> float:
    """-> frames by which the sound comes before the mouth, NaN where there is no correlation."""
    found = lagged_correlations(mouth_opening(landmarks), loudness)
    return float("nan") if np.isnan(found).all() else float(np.nanargmax(found) - MAX_SOUND_LAG)


def mouth_sound_lag_size(landmarks: np.ndarray, loudness: np.ndarray) -> float:
    return abs(mouth_sound_lag(landmarks, loudness))


MOUTH_SOUND_CORRELATION_MESH_METRIC = Metric(
    name="mouth_sound_corr_mesh", title="Mouth with sound (mesh)", variant="max_pearson_lags_5_rms_256px",
    better="up", unit="", per_frame=is_present_per_frame, per_clip=mouth_sound_correlation,
    feature=MESH_LANDMARKS_FEATURE, field="landmarks", reference_feature=LOUDNESS_FEATURE,
    reference_field="loudness", cross_reference="driving", lack="no moving mouth beside a sound",
    meaning="correlation of how far the mouth is open, by MediaPipe's mesh, with how loud the driving sound "
    "is, at the lag from -5 to 5 frames where it is largest; above 0 for unrelated ones, too",
)  # fmt: skip
MOUTH_SOUND_LAG_MESH_METRIC = Metric(
    name="mouth_sound_lag_mesh", title="Mouth lag (mesh)", variant="mean_abs_argmax_pearson_lags_5_rms_256px",
    better="down", unit="frames", per_frame=is_present_per_frame, per_clip=mouth_sound_lag_size,
    feature=MESH_LANDMARKS_FEATURE, field="landmarks", reference_feature=LOUDNESS_FEATURE,
    reference_field="loudness", cross_reference="driving", lack="no moving mouth beside a sound",
    meaning="size of that lag, in frames at 25 fps",
)  # fmt: skip
