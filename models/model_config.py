"""What the section of every model in a run file has. Importing this module loads neither torch nor any
model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar, Literal

from msgspec import Struct, field

from models.api import Phase

PerceptualNetName = Literal["vgg19", "vgg19_random", "efficientnet_lite0"]
"""Nets of perceptual losses, by their names in models.perception.NETS."""
PERCEPTUAL_NET_MIN_SIDES: dict[PerceptualNetName, int] = {
    "vgg19": 16, "vgg19_random": 16, "efficientnet_lite0": 32,
}  # fmt: skip
"""Least sides of the images that they take, in pixels."""


class ModelConfig(Struct, frozen=True, kw_only=True):
    """Base of each model's config, which adds settings of its own and gives `phases` a default: the phases
    that there are, in order of training."""

    as_before: ClassVar[Mapping[str, object]] = {"weights": ""}

    phases: dict[str, Phase | None] = field(default_factory=dict)
    """By name; a run file changes single values of single phases, and drops a phase with null."""
    weights: str = ""
    """Id of released weights, such as "fsrt_vox", that pairs are generated with: then no phase is trained."""
    data: str = "main"
    """The corpus it is trained on."""
    seed: int = 0
    """Of initial weights, samples and noise."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16: autocast; a device that does not multiply in bfloat16 itself (older CPUs) refuses to train so."""

    def __post_init__(self) -> None:
        defaults = dict(zip(self.__struct_fields__, self.__struct_defaults__, strict=True))
        known = defaults["phases"].factory()
        for name, phase in self.phases.items():
            if name not in known:
                raise ValueError(f"phases.{name}: expected one of {', '.join(known)}")
            if phase and name != phase.name:
                raise ValueError(f"phases.{name}.name {phase.name!r}: expected {name!r}")

    def check_perceptual_images(self, net: PerceptualNetName, side: int, terms: Collection[str]) -> None:
        """Raises ValueError where a phase weighs one of these terms, for which `net` sees images of `side`
        px, and that is too small."""
        for phase in self.phases.values():
            weighed = phase is not None and any(phase.loss_weights.get(term) for term in terms)
            if weighed and side < PERCEPTUAL_NET_MIN_SIDES[net]:
                raise ValueError(
                    f"perceptual_net {net}: its images have {side} pixels a side, it needs "
                    f"{PERCEPTUAL_NET_MIN_SIDES[net]}"
                )
