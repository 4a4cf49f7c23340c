"""From a task's named losses to one number to minimise for each update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from models.api import Loss, Update
from models.errors import InvalidSettings
from models.task import Batch, Task, TrainStep


class PassLosses(NamedTuple):
    loss: Tensor | None
    """What the updates that are due learn from: the gradient for the parts of one is that of its own terms.
    None = none is due, or none has a term at this step."""
    totals: dict[str, Tensor]
    """Update -> weighted sum of its terms, detached."""
    terms: dict[str, Tensor]
    """Unweighted, detached, in the order of the updates."""

    def detach(self) -> PassLosses:
        return self._replace(loss=None if self.loss is None else self.loss.detach())


def compute_losses(task: Task, batch: Batch, step: TrainStep, updates: Mapping[str, Update]) -> PassLosses:
    """The terms of these updates over one chunk, from one forward pass.

    A term of weight 0 is computed without gradient and logged, if the task can compute it; multiplying it
    by 0 would let its NaN through. So are the terms of an update that does not move at this step.
    """
    offered = task.losses(batch, step)
    check_loss_names([update.computed_losses for update in updates.values()], offered)
    loss: Tensor | None = None
    totals: dict[str, Tensor] = {}
    terms: dict[str, Tensor] = {}
    for name, update in updates.items():
        due = update.is_due(step.number)
        total = weighted_sum(offered, update.computed_losses, step.number, terms, due)
        if total is None:
            continue
        totals[name] = total.detach()
        if due:
            loss = total if loss is None else loss + total
    return PassLosses(loss, totals, terms)


def weighted_sum(
    offered: Mapping[str, Callable[[], Tensor]],
    losses: Mapping[str, Loss],
    step: int,
    terms: dict[str, Tensor],
    gradient: bool = True,
) -> Tensor | None:
    """Sum of weight * term at a step, None without one; what each term is, detached, goes into `terms`."""
    total: Tensor | None = None
    for name, settings in losses.items():
        weight = settings.weight_at(step)
        if weight is None or name not in offered:
            continue  # check_names: a term that is not offered has weight 0
        with torch.set_grad_enabled(torch.is_grad_enabled() and gradient and weight != 0):
            value = offered[name]()
        terms[name] = value.detach()
        if weight != 0:
            total = value * weight if total is None else total + value * weight
    return total


def check_loss_names(losses: Iterable[Mapping[str, Loss]], offered: Iterable[str]) -> None:
    known = set(offered)
    unknown = sorted({name for some in losses for name, one in some.items() if one.weight} - known)
    if unknown:
        raise InvalidSettings(f"the phase weighs losses {unknown}, but its task computes {sorted(known)}")
