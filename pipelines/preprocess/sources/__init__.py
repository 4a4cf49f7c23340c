"""Where recordings come from. To add a source: a file here with `list_recordings(config)`, and a line below.

`recordings` takes the source's own part of the configuration, a class that is found by the annotation of
its argument `config`, and returns a RecordingListing, or only rows where none can be bad. A source that reads
anything outside the store has a function `external(config)` beside it, name -> digest of what it reads; it
runs while planning, so a source file imports the standard library and numpy only.
"""

from __future__ import annotations

import importlib
import typing
from typing import Any, NamedTuple

from pipelines.preprocess.sources.common.rows import ListedRecording, RejectRow

SOURCES = {
    "synthetic": "pipelines.preprocess.sources.synthetic:list_recordings",
    "folder": "pipelines.preprocess.sources.folder:list_recordings",
    "pictures": "pipelines.preprocess.sources.pictures:list_recordings",
    "voxceleb": "pipelines.preprocess.sources.voxceleb:list_recordings",
    "voxceleb_csv": "pipelines.preprocess.sources.voxceleb_csv:list_recordings",
    "celebv": "pipelines.preprocess.sources.celebv:list_recordings",
    "celebv_hq": "pipelines.preprocess.sources.celebv_hq:list_recordings",
    "celebv_text": "pipelines.preprocess.sources.celebv_text:list_recordings",
    "talkinghead_1kh": "pipelines.preprocess.sources.talkinghead_1kh:list_recordings",
}

DATA_SOURCE_NETS = {  # what a source that makes its videos needs to make them
    "synthetic": ("analytic_head",),
}


class RecordingListing(NamedTuple):
    """What a source has."""

    rows: list[ListedRecording]
    rejects: list[RejectRow]


def load_data_source_function(name: str, function: str = "list_recordings") -> Any:
    """A function of a source's file; None if it has no such function."""
    return getattr(importlib.import_module(SOURCES[name].split(":")[0]), function, None)


def source_settings_class(name: str) -> Any:
    """The class of a source's settings."""
    return typing.get_type_hints(load_data_source_function(name))["config"]
