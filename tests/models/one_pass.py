"""The losses of a phase's shared pass as the loop computes them, and phases with some values changed."""

from __future__ import annotations

from typing import Any

import torch
from msgspec.structs import replace

from models.api import Loss, Optimizer, Phase, Update
from models.task import Batch, TrainStep
from pipelines.train.losses import PassLosses, compute_losses


def shared_pass(task: Any, phase: Phase, batch: Batch, step: int = 1) -> PassLosses:
    updates = {name: one for name, one in phase.active_updates.items() if not one.own_forward}
    return compute_losses(task, batch, TrainStep(step, "", torch.Generator()), updates)


def update_of(phase: Phase, name: str = "generator") -> Update:
    return phase.active_updates[name]


def with_update(phase: Phase, name: str = "generator", **changes: Any) -> Phase:
    """The phase with values of one update changed."""
    return replace(phase, updates=phase.updates | {name: replace(update_of(phase, name), **changes)})


def with_losses(phase: Phase, losses: dict[str, Loss | None], name: str = "generator") -> Phase:
    """The phase with some terms of one update added or changed."""
    return with_update(phase, name, losses=update_of(phase, name).losses | losses)


def one_update(name: str = "toy", parts: tuple[str, ...] = ("net",), **changes: Any) -> Phase:
    """A phase of one update, one step and one sample, with some values changed; `losses` are the update's."""
    losses = changes.pop("losses", {"l1": Loss(1.0)})
    optimizer = changes.pop("optimizer", Optimizer())
    values: dict[str, Any] = {"steps": 1, "batch": 1, "optimizers": {"g": optimizer}}
    update = Update(parts=dict.fromkeys(parts, 1.0), losses=losses)
    return Phase(name=name, updates={"generator": update}, **(values | changes))
