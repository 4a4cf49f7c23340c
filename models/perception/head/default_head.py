"""The embedded default head, which our own code makes: no file is needed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from models.perception.head.analytic_head import build_analytic_head
from models.perception.head.morphable import MorphableModel


@cache
def get_analytic_head() -> MorphableModel:
    """The same object every time, its arrays read-only."""
    return build_analytic_head()


def load_analytic_head(weights: Mapping[str, Path]) -> MorphableModel:
    """As stages are handed it, made before their first unit."""
    return get_analytic_head()
