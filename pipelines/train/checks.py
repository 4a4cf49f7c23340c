"""Settings that a training cannot run with, found before anything runs."""

from __future__ import annotations

import os
from typing import Any

from pipelines.cluster.runtime import RuntimeConfig
from pipelines.dataset.sampler import chunk_sample_indices


def check_phase_runtime(config: Any, runtime: RuntimeConfig, node: str, model: str, phase: str) -> None:
    """Raises, saying what to change, where the phase cannot be shared by its workers, or where this machine
    would train and cannot do the precision. A cluster's machines are asked when its workers start.
    """
    settings, precision = getattr(config, model).phases[phase], getattr(config, model).precision
    chunk_sample_indices(1, settings.batch, settings.samples_per_chunk, 0, max(1, runtime.train_workers))
    elsewhere = runtime.train_workers and (runtime.ray or os.environ.get("RAY_ADDRESS"))
    if precision != "fp32" and not runtime.use_gpu and not elsewhere:
        import torch

        from models.precision import check_precision

        check_precision(precision, torch.device("cpu"), fp32_hint(node))


def fp32_hint(node: str) -> str:
    return f"train with `--set {node.split('.')[1]}.precision=fp32`, or on another machine"
