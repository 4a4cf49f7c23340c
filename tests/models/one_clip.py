"""A corpus of one clip, for tests of what a task samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from models.task import Clip


@dataclass
class OneClip:
    """models.task.Table"""

    clip: Any

    @property
    def keys(self) -> list[str]:
        return [self.clip.key]

    def pick_clip(self, rng: np.random.Generator) -> Clip:
        return self.clip

    def __getitem__(self, key: str) -> Clip:
        return self.clip


def tables(clip: Any) -> dict[str, OneClip]:
    return {"clips": OneClip(clip)}
