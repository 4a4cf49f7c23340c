"""A loss or gradient that is no number ends the training; every worker says the same of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.dataset.sampler import SampleChunk
from pipelines.train.losses import PassLosses


class ForwardPassRecord(NamedTuple):
    """A forward pass, for who looks for the cause."""

    loss: float
    figures: str
    clips: tuple[str, ...]


def check_finite(
    norms: Mapping[str, Tensor],
    step: int,
    chunks: list[SampleChunk],
    found: list[PassLosses],
    asked: bool = False,
) -> bool:
    """Raises where a loss or gradient is no number -> whether any worker was `asked` to stop politely.

    Checked once a pass, before any weight moves: to read the numbers waits for the device. A worker sees its
    own losses alone, so all agree whether to stop, and each then says what all have seen.

    norms: the gradient's, of each update that is about to move.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    losses = [one.loss for one in found if one.loss is not None]
    if not losses and not norms:
        return asked
    broken = (~torch.isfinite(torch.stack([*norms.values(), *losses])).all()).int()
    if world == 1:
        is_broken = bool(broken)
    else:
        flags = torch.stack([broken, torch.full_like(broken, asked)])
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        is_broken, asked = (bool(flag) for flag in flags.tolist())
    if not is_broken:
        return asked
    records = []
    for chunk, one in zip(chunks, found, strict=True):
        figures = ", ".join(f"{name} {term.item():.4g}" for name, term in one.terms.items())
        loss = 0.0 if one.loss is None else one.loss.item()
        records.append(ForwardPassRecord(loss, figures, chunk.keys))
    if world > 1:
        boxes: list[Any] = [None] * world
        dist.all_gather_object(boxes, records)
        records = [one for box in boxes for one in box]
    raise FloatingPointError(
        f"step {step}: {_cause({name: norm.item() for name, norm in norms.items()}, records)}"
    )


def _cause(norms: Mapping[str, float], records: list[ForwardPassRecord]) -> str:
    """Clips whose loss is not finite; if all are, those of the whole batch."""
    lost = [one for one in records if not math.isfinite(one.loss)]
    gradients = [f"the {update}'s gradient is {n}" for update, n in norms.items() if not math.isfinite(n)]
    what = f"the loss is {lost[0].loss}" if lost else " and ".join(gradients)
    clips = ", ".join(sorted({key for one in lost or records for key in one.clips}))
    return f"{what} ({(lost or records)[0].figures}); clips {'with it' if lost else 'of the batch'}: {clips}"
