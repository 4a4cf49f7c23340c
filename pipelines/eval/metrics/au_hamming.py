"""AU-H (HeadGAN): in how many action units the generated and the real face differ, by OpenFace 2.

HeadGAN does not list its units; here they are all 18 whose presence OpenFace tells.
"""

from __future__ import annotations

import numpy as np

from pipelines.eval.features import OPENFACE_FEATURE
from pipelines.eval.metrics.metric import Metric


def action_unit_hamming_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,18) of 0 or 1, NaN where there is no face -> share of units that differ in each frame (T,)."""
    difference = np.abs(prediction.astype(np.float64) - target)
    return difference.mean(axis=1)


AU_H_OPENFACE_METRIC = Metric(
    name="au_h_openface", title="AU-H (OpenFace)", variant="hamming_18_presences", better="down",
    unit="[0,1]", per_frame=action_unit_hamming_per_frame, feature=OPENFACE_FEATURE, field="action_units",
    cross_reference="driving", moved_by_speech=True, on_request=True,
    meaning="share of OpenFace's 18 action units that are present in the one face and not in the other",
)  # fmt: skip
