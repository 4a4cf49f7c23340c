"""METRICS: every metric by the name it is logged under. To add one: a file here and a line in the table."""

from __future__ import annotations

from pipelines.eval.metrics.akd import (
    AKD_L1_DLIB_METRIC,
    AKD_L1_MESH_METRIC,
    AKD_L2_DLIB_METRIC,
    AKD_L2_MESH_METRIC,
)
from pipelines.eval.metrics.frechet import FD_EFFLITE0_B15_METRIC, FD_EFFLITE0_METRIC
from pipelines.eval.metrics.identity import CSIM_DLIB_CENTRED_METRIC, ID_L2_DLIB_METRIC
from pipelines.eval.metrics.kid import KID_EFFLITE0_METRIC
from pipelines.eval.metrics.l1 import L1_METRIC
from pipelines.eval.metrics.mesh import BLINK_IRIS_METRIC, NME_MESH_METRIC, POSE_MESH_METRIC
from pipelines.eval.metrics.metric import FrameSums, Metric, sum_frame_values
from pipelines.eval.metrics.perceptual import LPIPS_EFFLITE0_UNLEARNED_METRIC
from pipelines.eval.metrics.psnr import PSNR_FRAME_MEAN_METRIC, PSNR_POOLED_METRIC
from pipelines.eval.metrics.ssim import SSIM_METRIC

__all__ = ["METRICS", "FrameSums", "Metric", "sum_frame_values"]

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        L1_METRIC,
        PSNR_FRAME_MEAN_METRIC,
        PSNR_POOLED_METRIC,
        SSIM_METRIC,
        AKD_L1_DLIB_METRIC,
        AKD_L2_DLIB_METRIC,
        AKD_L1_MESH_METRIC,
        AKD_L2_MESH_METRIC,
        NME_MESH_METRIC,
        POSE_MESH_METRIC,
        BLINK_IRIS_METRIC,
        CSIM_DLIB_CENTRED_METRIC,
        ID_L2_DLIB_METRIC,
        LPIPS_EFFLITE0_UNLEARNED_METRIC,
        FD_EFFLITE0_METRIC,
        FD_EFFLITE0_B15_METRIC,
        KID_EFFLITE0_METRIC,
    )
}
