"""Where recordings come from. To add a source: a file here with `recordings(config)`, and a line below.

Each returns a Listing, or only rows where none can be bad, from the source's own part of the configuration.
EXTERNAL names the functions that say, by digest, what a source reads outside the store; they run while
planning, so a source file imports the standard library only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

SOURCES = {
    "synthetic": "pipelines.preprocess.sources.synthetic:recordings",
    "folder": "pipelines.preprocess.sources.folder:recordings",
    "voxceleb_csv": "pipelines.preprocess.sources.voxceleb_csv:recordings",
}
EXTERNAL = {  # a source that is missing here reads nothing but its configuration
    "folder": "pipelines.preprocess.sources.folder:external",
    "voxceleb_csv": "pipelines.preprocess.sources.voxceleb_csv:external",
}

SOURCE_NETS = {  # what a source that makes its videos needs to make them
    "synthetic": ("analytic_head",),
}


class Listing(NamedTuple):
    """rows: id, identity, split ("" = not said), uri, sha256, seed, spec, tracks. rejects: id, file, line,
    code, sentence."""

    rows: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
