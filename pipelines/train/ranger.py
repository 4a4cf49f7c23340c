"""Ranger: RAdam (Liu et al. 2020), Lookahead (Zhang et al. 2019) and gradient centralisation (Yong et al.
2020) in one optimizer, as encoders of StyleGAN are trained with (pSp, e4e)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

LOOKAHEAD_STEPS, LOOKAHEAD_RATE = 6, 0.5
"""Every so many steps the slow weights move this share of the way to the fast ones, which then begin there.
"""
MIN_SMA = 5.0
"""Length of the moving average of squared gradients from which on their scale is used."""


class Ranger(torch.optim.Optimizer):
    """State by parameter: step, exp_avg, exp_avg_sq and slow, the slow weights of Lookahead.

    Gradients of weights with two dimensions and more are centred over all but the first; those of biases are
    not. Weight decay is decoupled, lr * weight_decay a step.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.95, 0.999),
        eps: float = 1e-5,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = (
                torch.zeros_like(parameter),
                torch.zeros_like(parameter),
            )
            state["slow"] = parameter.detach().clone()
        state["step"] += 1
        step, (beta1, beta2), lr = int(state["step"]), group["betas"], group["lr"]
        gradient = parameter.grad
        assert gradient is not None  # `step` leaves those without out
        if gradient.dim() > 1:
            gradient = gradient - gradient.mean(dim=tuple(range(1, gradient.dim())), keepdim=True)
        state["exp_avg"].mul_(beta1).add_(gradient, alpha=1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        if group["weight_decay"]:
            parameter.mul_(1 - lr * group["weight_decay"])
        scale = radam_step_scale(step, beta2)
        rate = lr / (1 - beta1**step)
        if scale is None:
            parameter.add_(state["exp_avg"], alpha=-rate)
        else:
            denominator = state["exp_avg_sq"].sqrt().add_(group["eps"])
            parameter.addcdiv_(state["exp_avg"], denominator, value=-rate * scale)
        if step % LOOKAHEAD_STEPS == 0:
            state["slow"].lerp_(parameter, LOOKAHEAD_RATE)
            parameter.copy_(state["slow"])


def radam_step_scale(step: int, beta2: float) -> float | None:
    """RAdam's r_t with Adam's second bias correction; None while the average is too short to be used."""
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * beta2**step / (1 - beta2**step)
    if length <= MIN_SMA:
        return None
    rectified = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    return math.sqrt((1 - beta2**step) * rectified)
