"""Where recordings come from. To add a source: a file here with `recordings(config)`, and a line below.

`recordings` takes the source's own part of the configuration, a class that is found by the annotation of
its argument `config`, and returns a Listing, or only rows where none can be bad. A source that reads
anything outside the store has a function `external(config)` beside it, name -> digest of what it reads; it
runs while planning, so a source file imports the standard library and numpy only.
"""

from __future__ import annotations

import importlib
import typing
from typing import Any, NamedTuple

from pipelines.preprocess.sources.common.rows import Reject, SourceRecording

SOURCES = {
    "synthetic": "pipelines.preprocess.sources.synthetic:recordings",
    "folder": "pipelines.preprocess.sources.folder:recordings",
    "pictures": "pipelines.preprocess.sources.pictures:recordings",
    "voxceleb": "pipelines.preprocess.sources.voxceleb:recordings",
    "voxceleb_csv": "pipelines.preprocess.sources.voxceleb_csv:recordings",
    "celebv": "pipelines.preprocess.sources.celebv:recordings",
    "celebv_hq": "pipelines.preprocess.sources.celebv_hq:recordings",
    "celebv_text": "pipelines.preprocess.sources.celebv_text:recordings",
    "talkinghead_1kh": "pipelines.preprocess.sources.talkinghead_1kh:recordings",
}

SOURCE_NETS = {  # what a source that makes its videos needs to make them
    "synthetic": ("analytic_head",),
}


class Listing(NamedTuple):
    """What a source has."""

    rows: list[SourceRecording]
    rejects: list[Reject]


def load(name: str, function: str = "recordings") -> Any:
    """A function of a source's file; None if it has no such function."""
    return getattr(importlib.import_module(SOURCES[name].split(":")[0]), function, None)


def settings_of(name: str) -> Any:
    """The class of a source's settings."""
    return typing.get_type_hints(load(name))["config"]
