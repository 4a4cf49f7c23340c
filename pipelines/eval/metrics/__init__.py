"""METRICS: every metric by the name it is logged under. To add one: a file here and a line in the table."""

from __future__ import annotations

from pipelines.eval.metrics.akd import AKD_L1_DLIB_METRIC, AKD_L2_DLIB_METRIC
from pipelines.eval.metrics.l1 import L1_METRIC
from pipelines.eval.metrics.metric import FrameSums, Metric, sum_frame_values
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
    )
}
