"""CelebV-HQ: `celebvhq_info.json` over YouTube, or over a mirror of whole videos or of the set's cut clips.

The set's own tool grows a box by 0.02 of the frame on each side, cuts it at the frame and crops a square of
its shorter side about its centre; we do the same but for the square, which the stage `clips` makes, by its
own rule. The file names neither persons nor splits: all clips of a video count as one identity.
"""

from __future__ import annotations

from pipelines.preprocess.sources import RecordingListing
from pipelines.preprocess.sources.common.clip_json import (
    ClipJsonConfig,
    digest_metadata_and_mirror_listing,
    find_metadata_and_mirror,
    list_clip_json_recordings,
)


class CelebvHqConfig(ClipJsonConfig, frozen=True, kw_only=True):
    """The file, and where its videos are."""


def list_recordings(config: CelebvHqConfig) -> RecordingListing:
    """A row a video, or a cut clip, sorted by id."""
    return list_clip_json_recordings(
        *find_metadata_and_mirror("celebv_hq", config), config.grow, pixels=False
    )


def digest_external_files(config: CelebvHqConfig) -> dict[str, str]:
    """sha256 of the file, and a digest of the mirror's listing."""
    return digest_metadata_and_mirror_listing("celebv_hq", config)
