"""Whose frames a protocol shows, drives with and scores: those of the clips as they are stored, or of a view
that is the clips before their codec.

Sources, driving frames and the truth come from the same family, so that a run that asks for lossless frames
has nothing scored that went through a codec after the recording itself. What models are driven by besides
frames (fits, speech) stays that of the clips, found in the frames as they are stored: view and clip show the
same square at the same size, so that its coordinates hold for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipelines.preprocess.clips_config import CropViewConfig, FrameCodecConfig

CLIPS_FAMILY, VIEW_FAMILY_PREFIX = "clips", "views."
SCORED_VIEW_RECIPE = "clip_square"
"""Of views whose frames can stand for those of the clips."""
JPEG_PSNR_BY_QUALITY = {95: (41, 47), 90: (39, 46)}
"""dB against the crop, from and to: means of eight real clips of faces at 256 px, 44.6 and 43.0 over all."""
H264_PSNR = 42
"""Likewise of the store's H.264, of one clip."""


def check_scored_family_name(family: str) -> None:
    """Raises ValueError for what names no family of frames."""
    if family != CLIPS_FAMILY and not family.startswith(VIEW_FAMILY_PREFIX):
        raise ValueError(f"frames_from {family!r}: expected clips, or views.NAME")


def check_scored_view(name: str, views: Mapping[str, CropViewConfig], asked_by: str) -> None:
    """Raises UserError for a view whose frames cannot stand for those of the test clips."""
    view = views[name]
    if view.recipe != SCORED_VIEW_RECIPE:
        raise UserError(
            f"{asked_by} is views.{name}, of recipe {view.recipe}, whose frames are not the clips' square at "
            f"the clips' size, as fits are; expected a view of recipe {SCORED_VIEW_RECIPE}, as views.truth"
        )
    if view.splits and "test" not in view.splits:
        raise UserError(
            f"{asked_by} is views.{name}, but views.{name}.splits is [{', '.join(view.splits)}] and pairs "
            "are made of test clips; add test, or leave splits out"
        )


def is_lossless(stored: FrameCodecConfig) -> bool:
    return stored.codec == "png"


def describe_frame_codec(stored: FrameCodecConfig) -> str:
    """What frames have been through since they were cut from their recording."""
    if stored.codec == "jpeg":
        known = JPEG_PSNR_BY_QUALITY.get(stored.quality)
        return f"JPEG q{stored.quality} 4:2:0" + (f", {known[0]} to {known[1]} dB" if known else "")
    return "PNG, lossless" if is_lossless(stored) else f"H.264 in short GOPs, about {H264_PSNR} dB"
