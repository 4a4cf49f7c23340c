"""Settings that a training cannot run with, told before anything runs."""

from __future__ import annotations

import os
from typing import Any

from pipelines.dataset.sampler import check_workers


def check_phase(config: Any, node: str) -> None:
    """Raises, saying what to change, where the phase cannot be shared by its workers, or where this machine
    would train and cannot do the precision. A cluster's machines are asked when its workers start.
    """
    check_workers(config, node)
    runtime, precision = config.runtime, getattr(config, node.split(".")[1]).precision
    elsewhere = runtime.train_workers and (runtime.ray or os.environ.get("RAY_ADDRESS"))
    if precision != "fp32" and not runtime.use_gpu and not elsewhere:
        import torch

        from models.precision import check_precision

        check_precision(precision, torch.device("cpu"), fp32_instead(node))


def fp32_instead(node: str) -> str:
    return f"train with `--set {node.split('.')[1]}.precision=fp32`, or on another machine"
