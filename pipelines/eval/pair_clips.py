"""The clips of a pair as models read them (models.api.Clip), over what the engine hands to a keyed stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Sample = dict[str, Any]
SOURCE_ROLE_PREFIX, DRIVING_ROLE_PREFIX = "source.", "driving."
"""In front of the roles of families where sources and drivings come from two corpora."""
SOUND_ROLE_PREFIX = "sound."
"""In front of the roles of families of clips that are heard, and not seen."""
SOUND_FAMILIES = frozenset({"speech"})
"""Families of clips that hold what is heard, and nothing that is seen."""
SOUND_FIELDS, CLIP_SOUND_FACTS = ("sound", "speech"), ("has_sound", "audible")
"""Fields that are heard, and what the field `clip` says of the sound."""


class FamilySamples(Protocol):
    """A family's samples of the units that a pair names; what is not asked for is neither read nor
    decoded."""

    @property
    def keys(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...
    def fields(self, key: str, /) -> list[str]: ...
    def frame_count(self, key: str, /) -> int: ...
    def frames(self, key: str, indices: Sequence[int], /) -> np.ndarray: ...
    def read(self, key: str, fields: Sequence[str], /) -> Sample: ...


class PairClip:
    """One clip of a pair. Frames are read when they are asked for first, the other fields of a family with
    the first of them, and both are kept: the model, and the pictures of how it came by a frame, read the
    same."""

    def __init__(self, key: str, families: Sequence[FamilySamples]) -> None:
        self.key, self._families = key, families
        self._values: dict[str, Any] = {}
        self._frames: dict[int, np.ndarray] = {}

    @property
    def length(self) -> int:
        return self._family("frames").frame_count(self.key)

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """-> (len(indices),S,S,3) uint8 RGB"""
        if missing := sorted(set(indices) - self._frames.keys()):
            images = self._family("frames").frames(self.key, missing)
            self._frames |= dict(zip(missing, images, strict=True))
        return np.stack([self._frames[i] for i in indices])

    def read_field(self, name: str) -> Any:
        """A field of whichever family has it."""
        if name == "frames":
            return self.frames(range(self.length))
        if name not in self._values:
            family = self._family(name)
            fields = [field for field in family.fields(self.key) if field != "frames"]
            self._values = family.read(self.key, fields) | self._values
        return self._values[name]

    def has_field(self, name: str) -> bool:
        """Whether one of the families has this clip, and the field of it."""
        return any(self.key in one.keys and name in one.fields(self.key) for one in self._families)

    def _family(self, field: str) -> FamilySamples:
        for samples in self._families:
            if self.key not in samples.keys:
                raise ValueError(
                    f"clip {self.key} is not among {samples.keys}: its pair names a clip that is gone"
                )
            if field in samples.fields(self.key):
                return samples
        known = sorted({name for samples in self._families for name in samples.fields(self.key)})
        raise ValueError(f"clip {self.key}: no field {field!r} among those that are read, {', '.join(known)}")


class DubbedClip:
    """One clip as it is seen, with the sound of another: frame by frame, since both are on the same clock."""

    def __init__(self, seen: PairClip, sounding: PairClip) -> None:
        self.seen, self.sounding = seen, sounding
        self.key = seen.key

    @property
    def length(self) -> int:
        return self.seen.length

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """-> (len(indices),S,S,3) uint8 RGB"""
        return self.seen.frames(indices)

    def read_field(self, name: str) -> Any:
        """What is heard is of the other clip."""
        if name in SOUND_FIELDS:
            return self.sounding.read_field(name)
        if name == "clip":
            other = self.sounding.read_field(name)
            return self.seen.read_field(name) | {part: other[part] for part in CLIP_SOUND_FACTS}
        return self.seen.read_field(name)

    def has_field(self, name: str) -> bool:
        """Of what is seen."""
        return self.seen.has_field(name)


def clips_of_pair(
    source: str, driving: str, inputs: Mapping[str, FamilySamples], besides: Sequence[str], sound: str = ""
) -> tuple[PairClip, PairClip | DubbedClip]:
    """The source clip and the driving clip of these keys: one object where both are the same clip. besides:
    the inputs that are no families of clips. sound: key of the clip that is heard in place of the driving
    clip; a stage that reads nothing of it does not hear it."""
    families = {role: samples for role, samples in inputs.items() if role not in besides}
    sound_families = [samples for role, samples in families.items() if role.startswith(SOUND_ROLE_PREFIX)]
    if sound and sound_families:
        seen = {role: one for role, one in families.items() if not role.startswith(SOUND_ROLE_PREFIX)}
        first, second = clips_of_pair(source, driving, seen, ())
        assert isinstance(second, PairClip)
        return first, DubbedClip(second, PairClip(sound, sound_families))
    if not any(role.startswith((SOURCE_ROLE_PREFIX, DRIVING_ROLE_PREFIX)) for role in families):
        clips = {key: PairClip(key, list(families.values())) for key in (source, driving)}
        return clips[source], clips[driving]
    first, second = (
        PairClip(key, [samples for role, samples in families.items() if role.startswith(side)])
        for key, side in ((source, SOURCE_ROLE_PREFIX), (driving, DRIVING_ROLE_PREFIX))
    )
    return first, second
