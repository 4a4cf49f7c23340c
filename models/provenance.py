"""Where the weights of a checkpoint come from, for those that are not the published ones: part -> what they
are instead. It stands beside every number.

A part is one of the net, the frozen net of its losses (`perceptual_net`), or a released file's whole net.
Importing this module loads neither torch nor any model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.perception.interfaces import PerceptualLossNet

UNUSED_PART_PROVENANCE = "not used"
AS_PUBLISHED_PROVENANCE = ""
"""Nothing is printed; the loop remembers it, since a later phase may do without."""
RELEASED_PROVENANCE_PREFIX = "from "
"""How provenance of released weights begin."""


def perceptual_net_provenance(net: PerceptualLossNet | None) -> dict[str, str]:
    """Of the frozen net of a phase's losses, by the part's name; None = it has none. The papers' net is
    VGG19."""
    if net is None:
        what = UNUSED_PART_PROVENANCE
    elif net.name == "vgg19":
        what = AS_PUBLISHED_PROVENANCE
    else:
        what = f"random {name}" if (name := net.name.removesuffix("_random")) != net.name else net.name
    return {"perceptual_net": what}


def describe_provenance(provenance: Mapping[str, str]) -> str:
    """In one line: "kp_detector distilled, perceptual_net efficientnet_lite0"."""
    return ", ".join(f"{part} {what}" for part, what in sorted(provenance.items()))


def combine_phase_provenance(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """The provenance of a phase that starts from another. A part counts as used where either of them used it,
    and what was not as published in either stays named; of two such, the later one.
    """
    rank = {UNUSED_PART_PROVENANCE: 0, AS_PUBLISHED_PROVENANCE: 1}
    later = {
        part: max(what, before.get(part, UNUSED_PART_PROVENANCE), key=lambda one: rank.get(one, 2))
        for part, what in now.items()
    }
    return {**before, **later}


def provenance_after_training(
    provenance: Mapping[str, str], parts: Iterable[str], trainable: Iterable[str]
) -> dict[str, str]:
    """The provenance of the weights that a phase starts from, once it has trained: those released are
    fine-tuned.

    parts: of the net. An entry for none of them stands for all that have no entry of their own.
    """
    own = set(parts) & set(provenance)
    moved = set(trainable) if set(trainable) <= own else {*trainable, *(set(provenance) - set(parts))}
    return {
        part: f"fine-tuned {what}" if part in moved and what.startswith(RELEASED_PROVENANCE_PREFIX) else what
        for part, what in provenance.items()
    }


def provenance_to_metadata(provenance: Mapping[str, str]) -> dict[str, Any]:
    """Of a checkpoint: `provenance`, for people, and `as_published`, which a later phase must know."""
    return {
        "provenance": {part: what for part, what in provenance.items() if what != AS_PUBLISHED_PROVENANCE},
        "as_published": sorted(part for part, what in provenance.items() if what == AS_PUBLISHED_PROVENANCE),
    }


def provenance_from_metadata(about: Mapping[str, Any]) -> dict[str, str]:
    """The inverse of `provenance_to_metadata`."""
    return about["provenance"] | dict.fromkeys(about.get("as_published", ()), AS_PUBLISHED_PROVENANCE)
