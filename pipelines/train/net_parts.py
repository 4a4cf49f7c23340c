"""Parts of a net: its named children. Which of them learn, and in which mode the others stay."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from models.errors import InvalidSettings


def freeze_other_parts(net: nn.Module, trainable: Iterable[str]) -> dict[str, nn.Parameter]:
    """Freeze everything but the named children of the net -> their parameters by name, in the net's order.

    Frozen parts stay in eval mode; call `set_train_and_eval_modes` before each stretch of training.
    """
    children, chosen = dict(net.named_children()), set(trainable)
    if unknown := sorted(chosen - set(children)):
        raise InvalidSettings(f"the phase trains {unknown}, but the parts of the net are {sorted(children)}")
    net.requires_grad_(False)
    for name in chosen:
        children[name].requires_grad_(True)
    set_train_and_eval_modes(net, chosen)
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def set_train_and_eval_modes(net: nn.Module, trainable: Iterable[str]) -> None:
    """Training mode for the parts that learn, eval mode for the others."""
    chosen = set(trainable)
    net.eval()
    for name, child in net.named_children():
        child.train(name in chosen)


def part_of_parameter(name: str) -> str:
    """Of a parameter's name, the part of the net."""
    return name.partition(".")[0]
