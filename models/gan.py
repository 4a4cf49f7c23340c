"""What the adversarial steps of several models share."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def forward_with_frozen_weights(net: nn.Module, weights: nn.Module, *inputs: Tensor | None) -> Any:
    """net(*inputs) with the parameters and buffers of `weights` as constants: gradient reaches the inputs and
    no weight, so that a generator learns from a discriminator without teaching it.

    net: `weights` itself, or a copy of it in another mode.
    """
    tensors = {name: tensor.detach() for name, tensor in weights.state_dict(keep_vars=True).items()}
    return functional_call(net, tensors, inputs)
