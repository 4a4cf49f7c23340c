"""What is compared: models, and beside them the real frames and the baselines, by the names that their
records bear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field

Kind = Literal["trained", "released", "external", "baseline"]
"""trained: a model of this run; released: one of its authors' weights alone; external: frames that other code
made."""


class Method(Struct, frozen=True, kw_only=True):
    """What a value is of."""

    name: str
    kind: Kind
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Parts of a model whose weights are not the published ones, and what they are instead."""


TRUTH, DRIVING = "truth", "driving"
"""The driving frames: what is to be reached where a clip is paired with itself, else what drives."""
COPY, CODEC = "copy_source", "codec"
BASELINES = (COPY, CODEC)
FUNCTIONS = {TRUTH: "driving_frames", DRIVING: "driving_frames", COPY: "copy_source", CODEC: "codec"}
"""Method that is no model -> its function in pipelines/eval/generate.py."""
