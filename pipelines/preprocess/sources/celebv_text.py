"""CelebV-Text: its metadata JSON over YouTube, or over a mirror of whole videos or of the set's cut clips.

The published copies differ: with or without the mapping `clips` around the clips, boxes in shares or in
pixels of the frame, seconds called start_sec or start_frame. All are read. The pixels are those of the
original frame, whose size no file gives: boxes that leave the frame of a smaller copy are scaled where the
original's size can be found (preprocess/box_frame.py), else rejected. The file names neither persons nor
splits: all clips of a video count as one identity.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.preprocess.sources import Listing
from pipelines.preprocess.sources.common.clip_json import listing
from pipelines.preprocess.sources.common.files import digests, metadata_file
from pipelines.preprocess.sources.common.mirror import scan
from storage.uris import LocalPath


@dataclass(frozen=True, kw_only=True, slots=True)
class CelebvTextConfig:
    json: LocalPath = ""
    """The metadata file."""
    mirror: LocalPath = ""
    """Folder of whole videos named {YouTube id}.mp4, or of cut clips named {clip}.mp4, or as another kind of
    video. Recordings that are not there are rejected at download. Empty: they are fetched from YouTube."""
    grow: float = 0.02
    """Growth of a box in shares on each side, as a share of the frame; boxes in pixels stay as they are."""

    def __post_init__(self) -> None:
        if not 0 <= self.grow <= 1:
            raise ValueError(f"grow {self.grow}: expected a share from 0 to 1")


def recordings(config: CelebvTextConfig) -> Listing:
    """A row a video, or a cut clip, sorted by id."""
    path = metadata_file(config.json, "data.NAME.celebv_text.json")
    return listing(path, scan(config.mirror, "data.NAME.celebv_text.mirror"), config.grow, pixels=True)


def external(config: CelebvTextConfig) -> dict[str, str]:
    """sha256 of the file, and a digest of the mirror's listing."""
    path = metadata_file(config.json, "data.NAME.celebv_text.json")
    mirror = scan(config.mirror, "data.NAME.celebv_text.mirror")
    return {path.name: digests([path])[path], "mirror": mirror.digest()}
