"""The clips of a pair as models read them (models.api.Clip), over what the engine hands to a keyed stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Sample = dict[str, Any]
SOURCE_SIDE, DRIVING_SIDE = "source.", "driving."
"""In front of the roles of families where sources and drivings come from two corpora."""


class Samples(Protocol):
    """A family's samples of the units that a pair names: `keys` decodes nothing, an index decodes one."""

    @property
    def keys(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...


class PairClip:
    """One clip of a pair. Every sample is decoded once, when something of it is asked for first, and kept:
    the model, and the pictures of how it came by a frame, read the same."""

    def __init__(self, key: str, families: Sequence[Samples]) -> None:
        self.key, self._families = key, families
        self._samples: dict[int, Sample] = {}

    @property
    def length(self) -> int:
        return len(self.read("frames"))

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """-> (len(indices),S,S,3) uint8 RGB"""
        return self.read("frames")[list(indices)]

    def read(self, name: str) -> Any:
        """A field of whichever family has it."""
        for family in range(len(self._families)):
            if name in (sample := self._sample(family)):
                return sample[name]
        fields = sorted({field for sample in self._samples.values() for field in sample} - {"__key__"})
        raise ValueError(f"clip {self.key}: no field {name!r} among those that are read, {', '.join(fields)}")

    def _sample(self, family: int) -> Sample:
        if family not in self._samples:
            samples = self._families[family]
            if self.key not in samples.keys:
                raise ValueError(
                    f"clip {self.key} is not among {samples.keys}: its pair names a clip that is gone"
                )
            self._samples[family] = samples[samples.keys.index(self.key)]
        return self._samples[family]


def clips_of(
    source: str, driving: str, inputs: Mapping[str, Samples], besides: Sequence[str]
) -> tuple[PairClip, PairClip]:
    """The source clip and the driving clip of these keys: one object where both are the same clip. besides:
    the inputs that are no families of clips."""
    families = {role: samples for role, samples in inputs.items() if role not in besides}
    if not any(role.startswith((SOURCE_SIDE, DRIVING_SIDE)) for role in families):
        clips = {key: PairClip(key, list(families.values())) for key in (source, driving)}
        return clips[source], clips[driving]
    first, second = (
        PairClip(key, [samples for role, samples in families.items() if role.startswith(side)])
        for key, side in ((source, SOURCE_SIDE), (driving, DRIVING_SIDE))
    )
    return first, second
