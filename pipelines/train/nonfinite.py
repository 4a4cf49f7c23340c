"""A loss or gradient that is no number ends the training; every worker says the same of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.dataset.sampler import Chunk
from pipelines.train.device import place
from pipelines.train.objective import Losses


class Seen(NamedTuple):
    """A forward pass, for who looks for the cause."""

    loss: float
    figures: str
    clips: tuple[str, ...]


def stop_if_broken(
    norms: Mapping[str, Tensor],
    step: int,
    chunks: list[Chunk],
    found: list[Losses],
    asked: bool = False,
) -> bool:
    """Raises where a loss or gradient is no number -> whether any worker was `asked` to stop politely.

    Looked at once a step, before any weight moves: looking waits for the device. A worker sees its own
    losses alone, so all agree whether to stop, and each then says what all have seen.

    norms: the gradient's, of each side that is about to move.
    """
    _, world = place()
    losses = torch.stack([one.to_minimise for one in found])
    broken = (~torch.isfinite(torch.stack([*norms.values(), *losses])).all()).int()
    if world == 1:
        is_broken = bool(broken)
    else:
        flags = torch.stack([broken, torch.full_like(broken, asked)])
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        is_broken, asked = (bool(flag) for flag in flags.tolist())
    if not is_broken:
        return asked
    seen = []
    for chunk, one in zip(chunks, found, strict=True):
        figures = ", ".join(f"{name} {term.item():.4g}" for name, term in one.terms.items())
        seen.append(Seen(one.to_minimise.item(), figures, chunk.keys))
    if world > 1:
        boxes: list[Any] = [None] * world
        dist.all_gather_object(boxes, seen)
        seen = [one for box in boxes for one in box]
    raise FloatingPointError(
        f"step {step}: {_cause({side: norm.item() for side, norm in norms.items()}, seen)}"
    )


def _cause(norms: Mapping[str, float], seen: list[Seen]) -> str:
    """Clips whose loss is not finite; if all are, those of the whole batch."""
    lost = [one for one in seen if not math.isfinite(one.loss)]
    gradients = [f"the {side}'s gradient is {n}" for side, n in norms.items() if not math.isfinite(n)]
    what = f"the loss is {lost[0].loss}" if lost else " and ".join(gradients)
    clips = ", ".join(sorted({key for one in lost or seen for key in one.clips}))
    return f"{what} ({(lost or seen)[0].figures}); clips {'with it' if lost else 'of the batch'}: {clips}"
