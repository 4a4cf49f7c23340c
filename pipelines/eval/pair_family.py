"""A family whose samples are pairs, as scores and samples read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import Protocol as Interface

import numpy as np


class Family(Interface):
    """What is used of storage.families.Family."""

    @property
    def keys(self) -> list[str]: ...
    def frame_count(self, key: str, /) -> int: ...
    def frames(self, key: str, indices: Sequence[int], /) -> np.ndarray: ...
    def fields(self, key: str, /) -> list[str]: ...
    def read(self, key: str, fields: Sequence[str] | None = None, /) -> dict[str, Any]: ...


def read_optional_field(family: Family, key: str, name: str) -> dict[str, Any]:
    """A field that not every method has."""
    return family.read(key, [name])[name] if name in family.fields(key) else {}


def count_frames_without_landmarks(generated: Family) -> int:
    """Frames of the landmark warp that show the pose of another; 0 of every other method."""
    found = (read_optional_field(generated, key, "method") for key in generated.keys)
    return sum(one.get("frames_without_landmarks", 0) for one in found)


def read_generated_sample_metadata(generated: Family) -> dict[str, Any]:
    """What the samples of a method say of it: `provenance` and `image_size`."""
    nothing = {"provenance": {}, "image_size": None}
    return nothing | (read_optional_field(generated, generated.keys[0], "method") if generated.keys else {})
