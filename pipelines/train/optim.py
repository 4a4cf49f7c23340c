"""Optimizers by name, their learning-rate schedule, and running means of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.api import EmaSettings, Optimizer
from pipelines.train.ranger import Ranger


def learning_rate(optimizer: Optimizer, step: int, steps_before: int = 0) -> float:
    """Linear warm-up, then exponential decay and, after `constant_steps`, a linear decay: its first step has
    the full rate, its last 1 / linear_decay_steps of it. A function of the step alone, so a phase can be
    extended.

    Steps count from 1 (FSRT's authors start at 0, where the rate and so the first step are 0), from
    `step_offset` on, or from the steps that were done before the phase.
    """
    schedule, full = optimizer.schedule, optimizer.lr * optimizer.lazy_correction
    step += steps_before if schedule.step_offset is None else schedule.step_offset
    if step < schedule.warmup:
        return full * step / schedule.warmup
    rate = full * schedule.decay ** ((step - schedule.warmup) / schedule.decay_steps)
    if schedule.linear_decay_steps is None:
        return rate
    past = step - 1 - schedule.warmup - schedule.constant_steps
    return rate * min(1.0, max(0.0, 1 - past / schedule.linear_decay_steps))


class NamedOptimizer:
    """A torch optimizer over parameters by name. Parts with another factor of the rate are groups of their
    own."""

    def __init__(
        self, settings: Optimizer, parameters: Mapping[str, nn.Parameter], scales: Mapping[str, float]
    ) -> None:
        """scales: part of the net -> factor of the learning rate."""
        self.settings, self.parameters = settings, dict(parameters)
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.parameters.items():
            groups.setdefault(scales[name.partition(".")[0]], []).append(parameter)
        self.torch = build_optimizer(
            settings, [{"params": some, "scale": scale} for scale, some in groups.items()]
        )

    def set_rate(self, step: int, steps_before: int) -> float:
        """The rate of this step, in all groups."""
        rate = learning_rate(self.settings, step, steps_before)
        for group in self.torch.param_groups:
            group["lr"] = rate * group["scale"]
        return rate

    def state(self) -> dict[str, Tensor]:
        """Named tensors: `<parameter>.exp_avg` and so on, of the parameters that have moved."""
        return {
            f"{name}.{kind}": tensor
            for name, parameter in self.parameters.items()
            for kind, tensor in self.torch.state.get(parameter, {}).items()
        }

    def load_state(self, saved: Mapping[str, Tensor]) -> None:
        """The inverse of `state`; a parameter without saved tensors has not moved."""
        state: dict[str, dict[str, Tensor]] = {}
        for name, tensor in saved.items():
            parameter, _, kind = name.rpartition(".")
            if parameter in self.parameters:
                state.setdefault(parameter, {})[kind] = tensor
        groups = self.torch.state_dict()["param_groups"]
        numbers = {
            id(parameter): number
            for group, saved_group in zip(self.torch.param_groups, groups, strict=True)
            for parameter, number in zip(group["params"], saved_group["params"], strict=True)
        }
        numbered = {numbers[id(self.parameters[name])]: tensors for name, tensors in state.items()}
        self.torch.load_state_dict({"state": numbered, "param_groups": groups})


def build_optimizer(settings: Optimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Moments in float32 whatever the precision of the step; the fused kernel is 3x faster on many small
    tensors.
    """
    beta1, beta2 = (beta**settings.lazy_correction for beta in settings.betas)
    common: dict[str, Any] = {
        "lr": settings.lr * settings.lazy_correction, "betas": (beta1, beta2), "eps": settings.eps,
        "weight_decay": settings.weight_decay,
    }  # fmt: skip
    if settings.kind == "ranger":
        return Ranger(groups, **common)
    kind = torch.optim.AdamW if settings.kind == "adamw" else torch.optim.Adam
    return kind(groups, **common, fused=True)


class ParameterEma:
    """Running means of parameters: mean <- decay * mean + (1 - decay) * now, by part of the net."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], settings: Mapping[str, EmaSettings]) -> None:
        """parameters: of the net, by name; those of the parts in `settings` have a mean."""
        self.settings = dict(settings)
        self.parameters = {name: p for name, p in parameters.items() if name.partition(".")[0] in settings}
        self.mean = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int, batch: int) -> None:
        """After a step, which counts from 1, of `batch` samples."""
        weights = {part: 1 - ema.decay_at(step, batch) for part, ema in self.settings.items()}
        for name, parameter in self.parameters.items():
            self.mean[name].lerp_(parameter, weights[name.partition(".")[0]])

    @torch.no_grad()
    def swap_with_weights(self) -> None:
        """Exchange mean and weights: call once to look through the mean, and again to go on training."""
        for name, parameter in self.parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.mean[name])
            self.mean[name].copy_(kept)
