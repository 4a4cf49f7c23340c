"""Frechet video distance (Unterthiner et al. 2018; HeadGAN section 5) by I3D trained on Kinetics-400.

Windows of 16 frames one after another, 224 px, [-1,1], the 400 logits before the softmax, covariances of all
windows (ddof 0) as in the public code of StyleGAN-V and content-debiased FVD. Of fewer than 401 windows the
covariance is singular and the value dominated by their number: only distances of as many windows of the same
pairs compare. Clips of another frame rate or length do not compare either.
"""

from __future__ import annotations

from functools import partial

from pipelines.eval.features import I3D_FEATURE
from pipelines.eval.metrics.frechet import frechet_distance
from pipelines.eval.metrics.metric import Metric, is_present_per_frame

FVD16_I3D400_METRIC = Metric(
    name="fvd16_i3d400", title="FVD", variant="windows16_stride16_logits400_ddof0_224px", better="down",
    unit="", per_frame=is_present_per_frame, feature=I3D_FEATURE, field="logits",
    of_sets=partial(frechet_distance, ddof=0), cross_reference="source_clip", on_request=True,
    meaning="Frechet distance between windows of 16 generated and real frames (in cross-reenactment: of the "
    "sources' clips) by the logits of I3D, trained on Kinetics-400",
)  # fmt: skip
