"""Validation of a net while it learns: fixed samples of held-out clips, fixed pairs of two people, their
figures, grids of pictures.

Only the figure that the phase names has a say (it chooses the best checkpoint). Those of the pictures but
PSNR are found by name, and so are pairs and grids, so that a change of a metric retrains nothing: no key
holds their code, unless the phase chooses by one of them (best_figure.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from models.precision import autocast
from models.task import Task, ValidationOutput
from pipelines.dataset.sampler import SplitClips, make_sample, stack_samples
from pipelines.engine.fingerprint import resolve_entry_point
from pipelines.train.distributed import chunk_to_device

if TYPE_CHECKING:
    from pipelines.train.job import TrainJobSpec

VALIDATION_METRICS_FUNCTION = "pipelines.train.validation_metrics:compute_validation_metrics"
CROSS_VALIDATION_FUNCTION = "pipelines.train.validation_metrics:validate_cross"
GRID_FUNCTION = "pipelines.train.validation_metrics:encode_grid"


@dataclass(frozen=True, slots=True)
class ValidationResult:
    figures: dict[str, float]
    """By name; "psnr", the mean over the samples in dB, only where the task renders pictures. Those of pairs
    begin with `cross/`."""
    grid: bytes
    """PNG"""
    cross_grid: bytes | None
    """PNG; None where there are no pairs to show."""


@torch.no_grad()
def validate_net(
    task: Task, tables: Mapping[str, SplitClips], job: TrainJobSpec, device: torch.device
) -> ValidationResult:
    """The task's net as it stands, which the caller has put into eval mode."""
    count = job.phase.validation_samples
    samples = [make_sample(task, tables, job.seed, i, training=False) for i in range(count)]
    size = min(count, job.phase.samples_per_chunk)
    batches = [stack_samples(samples[i : i + size]) for i in range(0, count, size)]
    with autocast(job.precision, device):
        outputs = [task.validation_step(chunk_to_device(batch, device)) for batch in batches]
    figures = mean_scores(outputs) | task.validation_metrics(sum_validation_states(outputs))
    if (psnr := mean_psnr(outputs)) is not None:
        figures |= {"psnr": psnr} | resolve_entry_point(VALIDATION_METRICS_FUNCTION)(outputs, job.features)
    cross = resolve_entry_point(CROSS_VALIDATION_FUNCTION)(task, tables, job, device)
    return ValidationResult(
        figures | (cross.figures if cross else {}),
        resolve_entry_point(GRID_FUNCTION)(outputs),
        cross.grid if cross else None,
    )


def mean_scores(outputs: Sequence[ValidationOutput]) -> dict[str, float]:
    """Of the figures that are means over a batch, those over all samples."""
    count = sum(len(output.row) for output in outputs)
    return {
        name: sum(len(output.row) / count * output.scores[name] for output in outputs)
        for name in outputs[0].scores
    }


def sum_validation_states(outputs: Sequence[ValidationOutput]) -> dict[str, Tensor]:
    """States of all batches, added in order."""
    sums = dict(outputs[0].states)
    for output in outputs[1:]:
        for name, tensor in output.states.items():
            sums[name] = sums[name] + tensor
    return sums


def mean_psnr(outputs: Sequence[ValidationOutput]) -> float | None:
    """Mean PSNR of 8-bit pictures, in dB; None without pictures."""
    gaps = [
        (output.output / 255.0 - output.driving / 255.0) ** 2
        for output in outputs
        if output.output is not None and output.driving is not None
    ]
    if not gaps:
        return None
    errors = np.concatenate([gap.mean((1, 2, 3)) for gap in gaps])
    return float((-10 * np.log10(np.maximum(errors, 1e-10))).mean())
