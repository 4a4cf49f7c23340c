"""METRICS: every metric by the name it is logged under. To add one: a file here and a line in the table."""

from __future__ import annotations

from pipelines.eval.metrics.akd import AKD_L1_DLIB, AKD_L2_DLIB
from pipelines.eval.metrics.l1 import L1
from pipelines.eval.metrics.metric import FrameSums, Metric, sums_of
from pipelines.eval.metrics.psnr import PSNR_FRAME, PSNR_POOLED
from pipelines.eval.metrics.ssim import SSIM

__all__ = ["METRICS", "FrameSums", "Metric", "sums_of"]

METRICS: dict[str, Metric] = {
    metric.name: metric for metric in (L1, PSNR_FRAME, PSNR_POOLED, SSIM, AKD_L1_DLIB, AKD_L2_DLIB)
}
