"""From a task's named losses to one number to minimise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from models.api import Batch, Task


class Objective(nn.Module):
    """The weighted sum of a phase's losses. A module, so that DDP sees one forward pass per chunk.

    A term of weight 0 is computed without gradient and logged; multiplying it by 0 would let its NaN through.
    """

    def __init__(self, task: Task, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.net = task.net
        self.task, self.weights = task, dict(weights)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """-> total, and the terms (unweighted, detached) in the order of the phase's `losses`."""
        terms = self.task.terms(batch)
        check_names(self.weights, terms)
        total: Tensor | None = None
        shown = []
        for name, weight in self.weights.items():
            with torch.set_grad_enabled(torch.is_grad_enabled() and weight != 0):
                value = terms[name]()
            shown.append(value.detach())
            if weight != 0:
                total = value * weight if total is None else total + value * weight
        assert total is not None  # Phase refuses to be without a positive weight
        return total, torch.stack(shown)


def check_names(wanted: Iterable[str], offered: Iterable[str]) -> None:
    unknown = sorted(set(wanted) - set(offered))
    if unknown:
        raise ValueError(f"the phase weighs losses {unknown}, but its task computes {sorted(offered)}")


def choose_parts(net: nn.Module, train: Iterable[str]) -> dict[str, nn.Parameter]:
    """Freeze everything but the named children of the net -> trained parameters by name.

    Frozen parts stay in eval mode; call `learn` before each stretch of training.
    """
    children = dict(net.named_children())
    unknown = sorted(set(train) - set(children))
    if unknown:
        raise ValueError(f"the phase trains {unknown}, but the parts of the net are {sorted(children)}")
    net.requires_grad_(False)
    for name in train:
        children[name].requires_grad_(True)
    learn(net, train)
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def learn(net: nn.Module, train: Iterable[str]) -> None:
    """Training mode for the parts that learn, eval mode for the others."""
    chosen = set(train)
    net.eval()
    for name, child in net.named_children():
        child.train(name in chosen)
