"""From a task's named losses to one number to minimise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.api import Batch, Phase, Task, given
from models.errors import InvalidSettings


class Objective(nn.Module):
    """The weighted sum of a phase's losses. A module, so that DDP sees one forward pass per chunk.

    A term of weight 0 is computed without gradient and logged, if the task can compute it; multiplying it
    by 0 would let its NaN through.
    """

    def __init__(self, task: Task, phase: Phase) -> None:
        super().__init__()
        self.net = task.net
        self.task = task
        self.weights = phase.weights
        self.fools = given(phase.adversary.fools) if phase.adversary else {}
        self.judging = given(phase.adversary.losses) if phase.adversary else {}
        self.alone = phase.adversary.alone if phase.adversary else 0

    def generating(self, step: int) -> dict[str, float]:
        """The generator's terms at a step, which counts from 1."""
        return self.weights | (self.fools if step > self.alone else {})

    def forward(self, batch: Batch, step: int) -> Losses:
        terms = self.task.terms(batch)
        generating = self.generating(step)
        check_names(generating | self.judging, terms)
        shown: dict[str, Tensor] = {}
        total = weighted(terms, generating, shown)
        judged = weighted(terms, self.judging, shown) if self.judging else torch.zeros_like(total)
        return Losses(total + judged, total.detach(), shown)


class Losses(NamedTuple):
    to_minimise: Tensor
    """What both sides learn from; its gradient for either side is that of the side's own terms."""
    total: Tensor
    """The generator's share, detached."""
    terms: dict[str, Tensor]
    """Unweighted, detached, in the order of the phase."""


def weighted(
    terms: Mapping[str, Callable[[], Tensor]], weights: Mapping[str, float], shown: dict[str, Tensor]
) -> Tensor:
    """Sum of weight * term; what each term is, detached, goes into `shown`."""
    total: Tensor | None = None
    for name, weight in weights.items():
        if name not in terms:
            continue  # check_names: its weight is 0
        with torch.set_grad_enabled(torch.is_grad_enabled() and weight != 0):
            value = terms[name]()
        shown[name] = value.detach()
        if weight != 0:
            total = value * weight if total is None else total + value * weight
    assert total is not None  # Phase and Adversary refuse to be without a positive weight
    return total


def check_names(weights: Mapping[str, float], offered: Iterable[str]) -> None:
    unknown = sorted(name for name, weight in weights.items() if weight != 0 and name not in set(offered))
    if unknown:
        raise InvalidSettings(f"the phase weighs losses {unknown}, but its task computes {sorted(offered)}")


def choose_parts(net: nn.Module, train: Iterable[str]) -> dict[str, nn.Parameter]:
    """Freeze everything but the named children of the net -> trained parameters by name.

    Frozen parts stay in eval mode; call `learn` before each stretch of training.
    """
    children = dict(net.named_children())
    unknown = sorted(set(train) - set(children))
    if unknown:
        raise InvalidSettings(f"the phase trains {unknown}, but the parts of the net are {sorted(children)}")
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
