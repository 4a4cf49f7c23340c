"""The embedded default head, which our own code makes: no file is needed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from models.perception.head.analytic_head import build_head
from models.perception.head.morphable import MorphableModel


@cache
def analytic() -> MorphableModel:
    """The same object every time, its arrays read-only."""
    return build_head()


def load_analytic(weights: Mapping[str, Path]) -> MorphableModel:
    """As stages are handed it, made before their first unit."""
    return analytic()
