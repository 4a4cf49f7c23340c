"""CelebV-Text: its metadata JSON over YouTube, or over a mirror of whole videos or of the set's cut clips.

The published copies differ: with or without the mapping `clips` around the clips, boxes in shares or in
pixels of the frame, seconds called start_sec or start_frame. All are read. The pixels are those of the
original frame, whose size no file gives: boxes that leave the frame of a smaller copy are scaled where the
original's size can be found (preprocess/box_frame.py), else rejected. The file names neither persons nor
splits: all clips of a video count as one identity.
"""

from __future__ import annotations

from pipelines.preprocess.sources import RecordingListing
from pipelines.preprocess.sources.common.clip_json import (
    ClipJsonConfig,
    digest_metadata_and_mirror_listing,
    find_metadata_and_mirror,
    list_clip_json_recordings,
)


class CelebvTextConfig(ClipJsonConfig, frozen=True, kw_only=True):
    """The file, and where its videos are."""


def list_recordings(config: CelebvTextConfig) -> RecordingListing:
    """A row a video, or a cut clip, sorted by id."""
    return list_clip_json_recordings(
        *find_metadata_and_mirror("celebv_text", config), config.grow, pixels=True
    )


def digest_external_files(config: CelebvTextConfig) -> dict[str, str]:
    """sha256 of the file, and a digest of the mirror's listing."""
    return digest_metadata_and_mirror_listing("celebv_text", config)
