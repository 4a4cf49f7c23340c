"""How alike two faces are: CSIM by ArcFace's nets, and what stands in for it by dlib's embedding.

CSIM is the cosine of ArcFace embeddings, and of as many kinds as there are nets and ways to cut a face out
(models/perception/faces/arcface.py): HeadGAN and Directions mean two of them, and none compares with another.

`csim_dlib_centred` is the cosine that the literature calls CSIM, of another net: dlib's embeddings share a
large mean, so that raw cosines of different people are .85 in the median; less the mean over the real frames
they are about 0, as ArcFace's are, or below where these are of few people. `id_l2_dlib` is the distance that
dlib's threshold of 0.6 is for, which accepts some 5 % of pairs of different people, more among those unlike
its training data.
"""

from __future__ import annotations

import numpy as np

from pipelines.eval.features import (
    ARCFACE_R50_FEATURE,
    ARCFACE_R100_FEATURE,
    IDENTITY_FEATURE,
    IRSE50_FEATURE,
    IRSE50_FIXEDCROP_FEATURE,
)
from pipelines.eval.metrics.metric import Metric


def embedding_cosine_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,D) -> cosine of each frame (T,), NaN where either has no face."""
    a, b = prediction.astype(np.float64), target.astype(np.float64)
    with np.errstate(invalid="ignore"):  # a vector of length 0 has no direction
        return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def embedding_l2_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,D) -> Euclidean distance of each frame (T,), NaN where either has no face."""
    return np.linalg.norm(prediction.astype(np.float64) - target, axis=1)


CSIM_DLIB_CENTRED_METRIC = Metric(
    name="csim_dlib_centred", title="CSIM centred (dlib)", variant="mean_cosine_less_truth_mean_256px",
    better="up", unit="", per_frame=embedding_cosine_per_frame, feature=IDENTITY_FEATURE, field="embedding",
    centred=True, cross_reference="source",
    meaning="cosine of dlib's face embeddings of the generated and the real frame (in cross-reenactment: the "
    "source), less their mean over all driving frames; 1 = the same face, 0 or less = another one",
)  # fmt: skip
ID_L2_DLIB_METRIC = Metric(
    name="id_l2_dlib", title="ID L2 (dlib)", variant="mean_euclidean_128_256px", better="down", unit="",
    per_frame=embedding_l2_per_frame, feature=IDENTITY_FEATURE, field="embedding",
    cross_reference="source",
    meaning="distance of the same embeddings; by dlib's own threshold below 0.6 is one person, as some "
    "5 % of pairs of different people are, too",
)  # fmt: skip


def _csim_metric(name: str, title: str, feature: str, face: str) -> Metric:
    return Metric(
        name=name, title=title, variant="mean_cosine_256px", better="up", unit="", feature=feature,
        field="embedding", per_frame=embedding_cosine_per_frame, cross_reference="source", on_request=True,
        meaning=f"cosine of the embeddings of {face}, of the generated and the real frame (in "
        "cross-reenactment: the source); 1 = the same face, about 0 = another one",
    )  # fmt: skip


CSIM_ARCFACE_METRICS = (
    _csim_metric("csim_irse50_5pt", "CSIM (IR-SE50, 5 points)", IRSE50_FEATURE,
                 "ArcFace's IR-SE50 of faces aligned by five points"),
    _csim_metric("csim_irse50_fixedcrop", "CSIM (IR-SE50, fixed crop)", IRSE50_FIXEDCROP_FEATURE,
                 "ArcFace's IR-SE50 of a fixed square of frames that are aligned already, as in Directions"),
    _csim_metric("csim_r50_5pt", "CSIM (r50, 5 points)", ARCFACE_R50_FEATURE,
                 "InsightFace's ArcFace r50 of faces aligned by five points"),
    _csim_metric("csim_r100_5pt", "CSIM (r100, 5 points)", ARCFACE_R100_FEATURE,
                 "InsightFace's ArcFace r100 of faces aligned by five points"),
)  # fmt: skip
