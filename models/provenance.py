"""Where the weights of a checkpoint come from, for those that are not the published ones: part -> what they
are instead. It stands beside every number.

A part is one of the net, the frozen net of its losses (`perceptual_net`), one of preprocessing that the
authors had another for (`landmarks`, `crops`), or a released file's whole net.
Importing this module loads neither torch nor any model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from models.perception import NETS
from models.weights import THIRD_PARTY_WEIGHTS

if TYPE_CHECKING:
    from models.perception.interfaces import PerceptualLossNet

UNUSED_PART_PROVENANCE = "not used"
AS_PUBLISHED_PROVENANCE = ""
"""Nothing is printed; the loop remembers it, since a later phase may do without."""
RELEASED_PROVENANCE_PREFIX = "from "
"""How provenance of released weights begin."""
FINE_TUNED_PREFIX = "fine-tuned "
"""Before the provenance of released weights that were trained on."""
RANDOM_PROVENANCE_PREFIX, RANDOM_NET_SUFFIX = "random ", "_random"
"""How the provenance of a net without trained weights begins, and how its name ends."""


class ProvenanceKind(Enum):
    """All that can be said of a part."""

    PUBLISHED = "the published weights"
    UNUSED = "not used"
    RELEASED = "its authors' weights"
    FINE_TUNED = "its authors' weights, trained on"
    DISTILLED = "trained towards what another net says"
    OTHER_NET = "another trained net in the place of the papers'"
    RANDOM = "untrained weights"
    OTHER_HEAD = "another 3D head in the place of the papers'"
    OTHER_POINTS = "a 3D face fitted to other points than the papers' dense ones"
    TOKENS = "where the letters that a net hears come from"
    EXTERNAL = "made by other code"


PAPER_HEAD = "lsfm"
OTHER_HEADS = ("analytic_head", "flame", "bfm_deep3d", "bfm_3ddfa")
"""3D heads that a model may draw in the place of HeadGAN's LSFM, by their names in models.perception.NETS."""
MESH_POINTS, LANDMARK_POINTS = "mesh468", "landmarks68"
"""What a 3D face was fitted to, in the place of HeadGAN's 1,035 dense points: a face mesh's 468, or 68."""
_KIND_BY_PROVENANCE = {
    AS_PUBLISHED_PROVENANCE: ProvenanceKind.PUBLISHED,
    UNUSED_PART_PROVENANCE: ProvenanceKind.UNUSED,
    "distilled": ProvenanceKind.DISTILLED,
    "transcripts": ProvenanceKind.TOKENS,
    "none": ProvenanceKind.TOKENS,
    "made by other code": ProvenanceKind.EXTERNAL,
    **dict.fromkeys(OTHER_HEADS, ProvenanceKind.OTHER_HEAD),
    **dict.fromkeys((MESH_POINTS, LANDMARK_POINTS), ProvenanceKind.OTHER_POINTS),
}


_NET_NAMES = {*NETS, *(name.partition(".")[0] for name in NETS)}
"""With and without the backend."""


def provenance_kind(what: str) -> ProvenanceKind:
    """What a provenance says. Raises ValueError for one that is none of them, or names no known net or
    weights: a number is to be read with it, so none is made up."""
    if what in _KIND_BY_PROVENANCE:
        return _KIND_BY_PROVENANCE[what]
    if what in _NET_NAMES and not what.endswith(RANDOM_NET_SUFFIX):
        return ProvenanceKind.OTHER_NET
    untrained = what.removeprefix(RANDOM_PROVENANCE_PREFIX)
    if untrained != what and f"{untrained}{RANDOM_NET_SUFFIX}" in NETS:
        return ProvenanceKind.RANDOM
    released = what.removeprefix(FINE_TUNED_PREFIX)
    weights = released.removeprefix(RELEASED_PROVENANCE_PREFIX)
    if weights != released and weights in THIRD_PARTY_WEIGHTS:
        return ProvenanceKind.RELEASED if released == what else ProvenanceKind.FINE_TUNED
    texts = ", ".join(repr(one) for one in _KIND_BY_PROVENANCE if one)
    raise ValueError(
        f"provenance {what!r}: expected {texts}, the "
        "name of a net, 'random' and such a name, or 'from' or 'fine-tuned from' weights of models/weights.py"
    )


def head_provenance(head: str) -> str:
    """Of the 3D head that a model draws, by its name in models.perception.NETS. The papers' is LSFM."""
    return AS_PUBLISHED_PROVENANCE if head == PAPER_HEAD else head


def perceptual_net_provenance(net: PerceptualLossNet | None) -> dict[str, str]:
    """Of the frozen net of a phase's losses, by the part's name; None = it has none. The papers' net is
    VGG19."""
    if net is None:
        what = UNUSED_PART_PROVENANCE
    elif net.name == "vgg19":
        what = AS_PUBLISHED_PROVENANCE
    else:
        name = net.name.removesuffix(RANDOM_NET_SUFFIX)
        what = name if name == net.name else f"{RANDOM_PROVENANCE_PREFIX}{name}"
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
        part: f"{FINE_TUNED_PREFIX * (part in moved and what.startswith(RELEASED_PROVENANCE_PREFIX))}{what}"
        for part, what in provenance.items()
    }


def provenance_to_metadata(provenance: Mapping[str, str]) -> dict[str, Any]:
    """Of a checkpoint: `provenance`, for people, and `as_published`, which a later phase must know. Raises
    ValueError as `provenance_kind` does."""
    for what in provenance.values():
        provenance_kind(what)
    return {
        "provenance": {part: what for part, what in provenance.items() if what != AS_PUBLISHED_PROVENANCE},
        "as_published": sorted(part for part, what in provenance.items() if what == AS_PUBLISHED_PROVENANCE),
    }


def provenance_from_metadata(about: Mapping[str, Any]) -> dict[str, str]:
    """The inverse of `provenance_to_metadata`."""
    return about["provenance"] | dict.fromkeys(about.get("as_published", ()), AS_PUBLISHED_PROVENANCE)
