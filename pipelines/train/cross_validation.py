"""Validation's second look: one person's motion on another's face, on pairs that are always the same.

Beside self-reenactment, whose truth makes figures comparable, this is what a model is for; FSRT's authors
stop training by it (supplement 7.2), HeadGAN's paper shows it (Fig. 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from models.precision import autocast
from models.task import CrossReenactmentTask, Task
from pipelines.dataset.sampler import SplitClips, make_cross_sample, stack_samples
from pipelines.train.distributed import chunk_to_device
from pipelines.train.validation_figures import CROSS_PREFIX, compute_cross_figures
from pipelines.train.validation_grid import encode_png_grid

if TYPE_CHECKING:
    from pipelines.train.job import TrainJobSpec


@dataclass(frozen=True, slots=True)
class CrossValidation:
    figures: dict[str, float]
    """By name, which begins with CROSS_PREFIX."""
    grid: bytes
    """PNG"""


@torch.no_grad()
def validate_cross_reenactment(
    task: Task, tables: Mapping[str, SplitClips], job: TrainJobSpec, device: torch.device
) -> CrossValidation | None:
    """The task's net as it stands, in eval mode; None where there are no pairs to look at."""
    if not isinstance(task, CrossReenactmentTask) or why_no_cross_pairs(tables):
        return None
    numbers = range(job.phase.validation_cross_samples)
    pairs = (make_cross_sample(task, tables["clips"], job.seed, i) for i in numbers)
    samples = [pair for pair in pairs if pair is not None]
    if not samples:
        return None
    size = job.phase.samples_per_chunk
    batches = [stack_samples(samples[i : i + size]) for i in range(0, len(samples), size)]
    with autocast(job.precision, device):
        outputs = [task.cross_validation_step(chunk_to_device(batch, device)) for batch in batches]
    figures = compute_cross_figures(outputs, job.features)
    return CrossValidation(
        {f"{CROSS_PREFIX}{name}": value for name, value in figures.items()}, encode_png_grid(outputs)
    )


def why_no_cross_pairs(tables: Mapping[str, SplitClips]) -> str:
    """Why there can be no pairs of two people among these clips, for people; "" where there can."""
    people = len(tables["clips"].identities) if "clips" in tables else 0
    return "" if people > 1 else f"{people} identity to pair" if people else "no clips"
