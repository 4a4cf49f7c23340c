"""CelebV-HQ: `celebvhq_info.json` over YouTube, or over a mirror of whole videos or of the set's cut clips.

The set's own tool grows a box by 0.02 of the frame on each side, cuts it at the frame and crops a square of
its shorter side about its centre; we do the same but for the square, which the stage `clips` makes, by its
own rule. The file names neither persons nor splits: all clips of a video count as one identity.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.preprocess.sources import Listing
from pipelines.preprocess.sources.common.clip_json import listing
from pipelines.preprocess.sources.common.files import digests, metadata_file
from pipelines.preprocess.sources.common.mirror import scan
from storage.uris import LocalPath


@dataclass(frozen=True, kw_only=True, slots=True)
class CelebvHqConfig:
    json: LocalPath = ""
    """The metadata file."""
    mirror: LocalPath = ""
    """Folder of whole videos named {YouTube id}.mp4, or of cut clips named {clip}.mp4, or as another kind of
    video. Recordings that are not there are rejected at download. Empty: they are fetched from YouTube."""
    grow: float = 0.02
    """Growth of a box on each side, as a share of the frame."""

    def __post_init__(self) -> None:
        if not 0 <= self.grow <= 1:
            raise ValueError(f"grow {self.grow}: expected a share from 0 to 1")


def recordings(config: CelebvHqConfig) -> Listing:
    """A row a video, or a cut clip, sorted by id."""
    path = metadata_file(config.json, "data.NAME.celebv_hq.json")
    return listing(path, scan(config.mirror, "data.NAME.celebv_hq.mirror"), config.grow, pixels=False)


def external(config: CelebvHqConfig) -> dict[str, str]:
    """sha256 of the file, and a digest of the mirror's listing."""
    path = metadata_file(config.json, "data.NAME.celebv_hq.json")
    mirror = scan(config.mirror, "data.NAME.celebv_hq.mirror")
    return {path.name: digests([path])[path], "mirror": mirror.digest()}
