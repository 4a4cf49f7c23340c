"""Adam, its learning-rate schedule, and a running mean of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from models.api import Optim

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def learning_rate(optim: Optim, step: int, before: int = 0) -> float:
    """Linear warm-up, then exponential decay and, after `hold` steps, a linear fall over `fall`: its first
    step has the full rate, its last 1 / fall of it. A function of the step alone, so a phase can be extended.

    Steps count from 1 (FSRT's authors start at 0, where the rate and so the first step are 0), from
    `optim.start` on, or from the steps that Adam had done before the phase.
    """
    step += before if optim.start is None else optim.start
    if step < optim.warmup:
        return optim.lr * step / optim.warmup
    rate = optim.lr * optim.decay ** ((step - optim.warmup) / optim.decay_steps)
    if optim.fall is None:
        return rate
    fallen = step - 1 - optim.warmup - optim.hold
    return rate * min(1.0, max(0.0, 1 - fallen / optim.fall))


def set_rate(adam: torch.optim.Adam, optim: Optim, step: int, before: int) -> float:
    """The rate of this step, in all groups."""
    rate = learning_rate(optim, step, before)
    for group in adam.param_groups:
        group["lr"] = rate
    return rate


def adam(optim: Optim, parameters: Iterable[nn.Parameter]) -> torch.optim.Adam:
    """Moments in float32 whatever the precision of the step; the fused kernel is 3x faster on many small
    tensors.
    """
    return torch.optim.Adam(parameters, lr=optim.lr, betas=optim.betas, fused=True)


def moments(adam: torch.optim.Adam, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Adam's state as named tensors: `<parameter>.exp_avg`, `.exp_avg_sq`, `.step`."""
    return {
        f"{name}.{kind}": adam.state[parameter][kind]
        for name, parameter in parameters.items()
        for kind in MOMENTS
        if parameter in adam.state
    }


def restore_moments(
    adam: torch.optim.Adam, parameters: Mapping[str, nn.Parameter], saved: Mapping[str, Tensor]
) -> None:
    """The inverse of `moments`; a tensor that is missing is an error."""
    state = {i: {kind: saved[f"{name}.{kind}"] for kind in MOMENTS} for i, name in enumerate(parameters)}
    adam.load_state_dict({"state": state, "param_groups": adam.state_dict()["param_groups"]})


class Ema:
    """Running mean of parameters: mean <- decay * mean + (1 - decay) * now."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.mean = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        for name, parameter in self.parameters.items():
            self.mean[name].lerp_(parameter, 1 - self.decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange mean and weights: call once to look through the mean, and again to go on training."""
        for name, parameter in self.parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.mean[name])
            self.mean[name].copy_(kept)
