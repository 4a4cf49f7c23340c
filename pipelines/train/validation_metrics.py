"""Training's way to validation's figures and pictures for people.

What only shows how far a training is retrains nothing when it changes: this file is in no key, and so is what
is reached through it alone (pipelines/runs/session.py). Of a phase that chooses its best weights by such a
figure, the key holds the figure's own code and nets (best_figure.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from models.task import Task, ValidationOutput

if TYPE_CHECKING:
    import torch

    from pipelines.dataset.sampler import SplitClips
    from pipelines.train.cross_validation import CrossValidation
    from pipelines.train.job import TrainJobSpec
    from pipelines.train.validation_figures import PictureFeatures


def compute_validation_metrics(
    samples: Sequence[ValidationOutput], features: PictureFeatures | None
) -> dict[str, float]:
    """`validation_figures.compute_self_figures`."""
    from pipelines.train.validation_figures import compute_self_figures

    return compute_self_figures(samples, features)


def validate_cross(
    task: Task, tables: Mapping[str, SplitClips], job: TrainJobSpec, device: torch.device
) -> CrossValidation | None:
    """`cross_validation.validate_cross_reenactment`."""
    from pipelines.train.cross_validation import validate_cross_reenactment

    return validate_cross_reenactment(task, tables, job, device)


def encode_grid(outputs: Sequence[ValidationOutput]) -> bytes:
    """`validation_grid.encode_png_grid`."""
    from pipelines.train.validation_grid import encode_png_grid

    return encode_png_grid(outputs)
