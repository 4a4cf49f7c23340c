"""What is said beside every number of weights that are not the published ones: part -> what they are instead.

A part is one of the net, a net that its losses looked through (`vgg19`), or a released file's whole net.
Importing this module loads neither torch nor any model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.perception.interfaces import FeatureNet

NOT_USED = "not used"
AS_PUBLISHED = ""
"""Nothing to say; the loop remembers it, since a later phase may do without."""
RELEASED = "from "
"""How labels of released weights begin."""


def of_losses(net: FeatureNet | None) -> str:
    """The label of the net that a phase's losses look through; None without one."""
    if net is None:
        return NOT_USED
    return "random" if net.name.endswith("_random") else AS_PUBLISHED


def told(labels: Mapping[str, str]) -> str:
    """In one line: "kp_detector distilled, vgg19 random"."""
    return ", ".join(f"{part} {what}" for part, what in sorted(labels.items()))


def after(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Labels of a phase that starts from another. What either of them used is not told as not used, and what
    was not as published in either is told; of two such, the later one.
    """
    weight = {NOT_USED: 0, AS_PUBLISHED: 1}
    told = {
        part: max(what, before.get(part, NOT_USED), key=lambda one: weight.get(one, 2))
        for part, what in now.items()
    }
    return {**before, **told}


def trained_on(labels: Mapping[str, str], parts: Iterable[str], learning: Iterable[str]) -> dict[str, str]:
    """Labels of the weights that a phase starts from, once it has trained: those released are fine-tuned.

    parts: of the net. A label of none of them stands for all that have no label of their own.
    """
    own = set(parts) & set(labels)
    moved = set(learning) if set(learning) <= own else {*learning, *(set(labels) - set(parts))}
    return {
        part: f"fine-tuned {what}" if part in moved and what.startswith(RELEASED) else what
        for part, what in labels.items()
    }


def written(labels: Mapping[str, str]) -> dict[str, Any]:
    """What a checkpoint's metadata say: `labels`, for who reads them, and what a later phase must know."""
    return {
        "labels": {part: what for part, what in labels.items() if what != AS_PUBLISHED},
        "as_published": sorted(part for part, what in labels.items() if what == AS_PUBLISHED),
    }


def read(about: Mapping[str, Any]) -> dict[str, str]:
    """The inverse of `written`."""
    return about.get("labels", {}) | dict.fromkeys(about.get("as_published", ()), AS_PUBLISHED)
