"""Looking at a net while it learns: fixed samples of held-out clips, their scores, a grid of pictures.

Only the PSNR has a say (it chooses the best checkpoint). The other figures are found by name, so that a
change of a metric retrains nothing: no key holds their code.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from models.api import Look, Task
from models.precision import autocast
from pipelines.dataset.sampler import Corpus, gather, sample_clip
from pipelines.engine.fingerprint import resolve
from pipelines.train.device import to_device

if TYPE_CHECKING:
    from pipelines.train.job import Job

SAMPLES = 16  # looked at, the same each time
ROWS, PICTURE = 8, 128  # of the grid: rows, and the least side of a picture in it
OBSERVER = "pipelines.train.validation_metrics:figures"


@dataclass(frozen=True, slots=True)
class Validation:
    figures: dict[str, float]
    psnr: float | None
    """Mean over the samples, dB; None where the task renders no pictures."""
    grid: bytes
    """PNG"""


@torch.no_grad()
def validate(task: Task, corpus: Corpus, job: Job, device: torch.device) -> Validation:
    """The task's net as it stands, which the caller has put into eval mode."""
    drawn = [sample_clip(task, corpus, job.seed, i, training=False) for i in range(SAMPLES)]
    size = min(SAMPLES, job.phase.chunk_size)
    with autocast(job.precision, device):
        looks = [task.look(to_device(gather(drawn[i : i + size]), device)) for i in range(0, SAMPLES, size)]
    figures = {
        name: sum(len(look.row) / SAMPLES * look.scores[name] for look in looks) for name in looks[0].scores
    }
    psnr = psnr_of(looks)
    if psnr is not None:
        figures |= {"psnr": psnr} | resolve(OBSERVER)(looks, job.landmarks)
    return Validation(figures, psnr, grid_png(np.concatenate([look.row for look in looks])[:ROWS]))


def psnr_of(looks: Sequence[Look]) -> float | None:
    """Mean PSNR of 8-bit pictures, in dB; None without pictures."""
    gaps = [
        (look.output / 255.0 - look.driving / 255.0) ** 2
        for look in looks
        if look.output is not None and look.driving is not None
    ]
    if not gaps:
        return None
    errors = np.concatenate([gap.mean((1, 2, 3)) for gap in gaps])
    return float((-10 * np.log10(np.maximum(errors, 1e-10))).mean())


def grid_png(rows: np.ndarray) -> bytes:
    """rows (B,H,W,3) uint8, stacked and enlarged by a whole factor -> PNG"""
    from PIL import Image

    factor = max(1, PICTURE // rows.shape[1])
    picture = np.concatenate(list(rows)).repeat(factor, 0).repeat(factor, 1)
    out = io.BytesIO()
    Image.fromarray(picture).save(out, format="PNG")
    return out.getvalue()
