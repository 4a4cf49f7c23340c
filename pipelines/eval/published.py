"""The papers' numbers: published.csv beside this file."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

PUBLISHED = Path(__file__).parent / "published.csv"


def external(config: object) -> dict[str, str]:
    """The file of published numbers -> its digest, for the node's key."""
    return {PUBLISHED.name: hashlib.sha256(PUBLISHED.read_bytes()).hexdigest()}


def read_published(models: Sequence[str]) -> list[dict[str, str]]:
    """Rows of published.csv about these models: model, paper, table, method, setting, metric, direction,
    value."""
    with PUBLISHED.open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["model"] in models]
