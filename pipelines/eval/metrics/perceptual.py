"""Distance of a generated from the real frame in the maps of EfficientNet-Lite0.

As LPIPS (Zhang et al. 2018), without the weights that LPIPS has learnt from human judgements: never to be
called LPIPS. The maps are too large to be kept, so the distance is computed where they are, in the feature's
stage (pipelines/eval/efficientnet_features.py).
"""

from __future__ import annotations

from pipelines.eval.features import EFFICIENTNET_FEATURE
from pipelines.eval.metrics.metric import Metric, value_of_feature

LPIPS_EFFLITE0_UNLEARNED_METRIC = Metric(
    name="lpips_efflite0_unlearned", title="EffNet distance", variant="expanded_e1_e3_e5_e11_head_256px",
    better="down", unit="", per_frame=value_of_feature, feature=EFFICIENTNET_FEATURE, field="map_distance",
    meaning="mean squared difference of unit-normalised maps of EfficientNet-Lite0, trained on ImageNet; no "
    "weights learnt from human judgements, so not LPIPS",
)  # fmt: skip
