"""What the section of every model in a run file has. Importing this module loads neither torch nor any
model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from models.api import Phase


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Base of each model's config, which adds settings of its own and gives `phases` a default: the phases
    that there are, in order of training."""

    phases: dict[str, Phase | None] = field(default_factory=dict)
    """By name; a run file changes single values of single phases, and drops a phase with null."""
    weights: str = field(default="", metadata={"as_before": ""})
    """Id of released weights, such as "fsrt_vox", that pairs are generated with: then no phase is trained."""
    data: str = "main"
    """The corpus it is trained on."""
    seed: int = 0
    """Of initial weights, samples and noise."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16: autocast; a device that does not multiply in bfloat16 itself (older CPUs) refuses to train so."""

    def __post_init__(self) -> None:
        (phases,) = (one for one in dataclasses.fields(self) if one.name == "phases")
        assert callable(phases.default_factory)
        known = phases.default_factory()
        for name, phase in self.phases.items():
            if name not in known:
                raise ValueError(f"phases.{name}: expected one of {', '.join(known)}")
            if phase and name != phase.name:
                raise ValueError(f"phases.{name}.name {phase.name!r}: expected {name!r}")
