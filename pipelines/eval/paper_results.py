"""The papers' numbers: published.csv beside this file."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

PAPER_RESULTS_FILE = Path(__file__).parent / "published.csv"


def digest_external_files(config: object) -> dict[str, str]:
    """The file of published numbers -> its digest, for the node's key."""
    return {PAPER_RESULTS_FILE.name: hashlib.sha256(PAPER_RESULTS_FILE.read_bytes()).hexdigest()}


def read_paper_results(models: Sequence[str]) -> list[dict[str, str]]:
    """Rows of published.csv about these models: model, paper, table, method, setting, metric, direction,
    value."""
    with PAPER_RESULTS_FILE.open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["model"] in models]
