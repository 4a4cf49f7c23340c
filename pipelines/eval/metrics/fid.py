"""FID (Heusel et al. 2017): Frechet distance between generated and real frames by the 2048 features of its
own Inception, covariances unbiased.

How frames are resized to 299 px is part of the name. pytorch-fid's way is that of the papers of 2019 to 2022;
on a real face of 256 px it differs from PIL's bicubic, clean-fid's way, by up to 21 grey levels.
"""

from __future__ import annotations

from pipelines.eval.features import INCEPTION_CLEAN_FEATURE, INCEPTION_PT_FEATURE
from pipelines.eval.metrics.frechet import frechet_distance
from pipelines.eval.metrics.metric import Metric, is_present_per_frame

FID_PT_METRIC = Metric(
    name="fid_pt", title="FID", variant="pool3_2048_ddof1_bilinear299", better="down", unit="",
    per_frame=is_present_per_frame, feature=INCEPTION_PT_FEATURE, field="pool_features",
    of_sets=frechet_distance, cross_reference="source_clip", on_request=True,
    meaning="Frechet distance between the sets of generated and real frames (in cross-reenactment: of the "
    "sources' clips) by FID's Inception, resized as pytorch-fid does; of few frames only comparable with the "
    "same number",
)  # fmt: skip
FID_CLEAN_METRIC = Metric(
    name="fid_clean", title="FID (clean)", variant="pool3_2048_ddof1_pil_bicubic299", better="down", unit="",
    per_frame=is_present_per_frame, feature=INCEPTION_CLEAN_FEATURE, field="pool_features",
    of_sets=frechet_distance, cross_reference="source_clip", on_request=True,
    meaning="the same, resized as clean-fid does",
)  # fmt: skip
FID_METRICS = (FID_PT_METRIC, FID_CLEAN_METRIC)
