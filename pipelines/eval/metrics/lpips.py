"""LPIPS v0.1 (Zhang et al. 2018) of generated from real frames: AlexNet's, which its authors recommend for
comparing, and VGG16's, which published losses use. Computed in the features' stages
(pipelines/eval/lpips_features.py).
"""

from __future__ import annotations

from pipelines.eval.features import LPIPS_ALEX_FEATURE, LPIPS_VGG_FEATURE
from pipelines.eval.metrics.metric import Metric, value_of_feature

LPIPS_ALEX_METRIC = Metric(
    name="lpips_alex", title="LPIPS", variant="v0.1_alex_frame_mean", better="down", unit="",
    per_frame=value_of_feature, feature=LPIPS_ALEX_FEATURE, field="lpips", on_request=True,
    meaning="how different a generated and the real frame look to people, by AlexNet and weights learnt from "
    "their judgements; mean over frames",
)  # fmt: skip
LPIPS_VGG_METRIC = Metric(
    name="lpips_vgg", title="LPIPS (VGG)", variant="v0.1_vgg16_frame_mean", better="down", unit="",
    per_frame=value_of_feature, feature=LPIPS_VGG_FEATURE, field="lpips", on_request=True,
    meaning="the same by VGG16; does not compare with LPIPS by AlexNet",
)  # fmt: skip
LPIPS_METRICS = (LPIPS_ALEX_METRIC, LPIPS_VGG_METRIC)
