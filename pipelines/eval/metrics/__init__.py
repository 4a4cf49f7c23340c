"""METRICS: every metric by the name it is logged under. To add one: a file here and a line in the table."""

from __future__ import annotations

from pipelines.eval.metrics.akd import AKD_METRICS
from pipelines.eval.metrics.au_hamming import AU_H_OPENFACE_METRIC
from pipelines.eval.metrics.av_sync import SYNC_METRICS
from pipelines.eval.metrics.blink import BLINK_AGREEMENT_METRIC, BLINK_F1_METRIC, BLINK_IRIS_METRIC
from pipelines.eval.metrics.expression import EXPRESSION_METRICS
from pipelines.eval.metrics.fid import FID_METRICS
from pipelines.eval.metrics.frechet import FD_EFFLITE0_B15_METRIC, FD_EFFLITE0_METRIC
from pipelines.eval.metrics.fvd import FVD16_I3D400_METRIC
from pipelines.eval.metrics.identity import (
    CSIM_ARCFACE_METRICS,
    CSIM_DLIB_CENTRED_METRIC,
    ID_L2_DLIB_METRIC,
)
from pipelines.eval.metrics.identity_drift import IDENTITY_DRIFT_METRICS
from pipelines.eval.metrics.kid import KID_METRICS
from pipelines.eval.metrics.l1 import L1_METRIC
from pipelines.eval.metrics.lmd import LMD_METRICS
from pipelines.eval.metrics.lpips import LPIPS_METRICS
from pipelines.eval.metrics.metric import FrameSums, Metric, sum_frame_values
from pipelines.eval.metrics.mouth_sound import (
    MOUTH_SOUND_CORRELATION_MESH_METRIC,
    MOUTH_SOUND_LAG_MESH_METRIC,
)
from pipelines.eval.metrics.ms_ssim import MS_SSIM_METRIC
from pipelines.eval.metrics.nme import NME_METRICS
from pipelines.eval.metrics.perceptual import LPIPS_EFFLITE0_UNLEARNED_METRIC
from pipelines.eval.metrics.pose import POSE_METRICS
from pipelines.eval.metrics.psnr import PSNR_FRAME_MEAN_METRIC, PSNR_POOLED_METRIC
from pipelines.eval.metrics.ssim import SSIM_METRIC, SSIM_TORCHMETRICS_METRIC, SSIM_UNIFORM7_METRIC
from pipelines.eval.metrics.temporal import FLICKER_METRIC, JITTER_METRICS

__all__ = ["DEFAULT_METRICS", "METRICS", "FrameSums", "Metric", "sum_frame_values"]

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        L1_METRIC,
        PSNR_FRAME_MEAN_METRIC,
        PSNR_POOLED_METRIC,
        SSIM_METRIC,
        MS_SSIM_METRIC,
        SSIM_UNIFORM7_METRIC,
        SSIM_TORCHMETRICS_METRIC,
        *AKD_METRICS,
        *NME_METRICS,
        *LMD_METRICS,
        *POSE_METRICS,
        *EXPRESSION_METRICS,
        AU_H_OPENFACE_METRIC,
        BLINK_IRIS_METRIC,
        BLINK_AGREEMENT_METRIC,
        BLINK_F1_METRIC,
        FLICKER_METRIC,
        *JITTER_METRICS,
        CSIM_DLIB_CENTRED_METRIC,
        ID_L2_DLIB_METRIC,
        *CSIM_ARCFACE_METRICS,
        *IDENTITY_DRIFT_METRICS,
        *LPIPS_METRICS,
        LPIPS_EFFLITE0_UNLEARNED_METRIC,
        *FID_METRICS,
        FD_EFFLITE0_METRIC,
        FD_EFFLITE0_B15_METRIC,
        *KID_METRICS,
        FVD16_I3D400_METRIC,
        *SYNC_METRICS,
        MOUTH_SOUND_CORRELATION_MESH_METRIC,
        MOUTH_SOUND_LAG_MESH_METRIC,
    )
}
DEFAULT_METRICS = tuple(name for name, metric in METRICS.items() if not metric.on_request)
