"""What stands under, over and beside the pictures and numbers of a comparison: words, which the report alone
depends on."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.eval.methods import (
    CODEC_METHOD,
    COPY_METHOD,
    MEAN_MOUTH_METHOD,
    RANDOM_MOUTH_METHOD,
    WARP_METHOD,
)
from pipelines.figures.picture_grids import ERROR_MAP_GAIN

BASELINE_TEXTS: dict[str, str] = {
    COPY_METHOD: "the source frame, unchanged: what a model must beat",
    WARP_METHOD: "the source frame, bent so that its landmarks lie as the driving ones, piecewise affine",
    MEAN_MOUTH_METHOD: "the driving frames with the mean of their mouths: what is reached by hearing nothing",
    RANDOM_MOUTH_METHOD: "the driving frames, each with the mouth of another: a mouth that moves, but not so",
    CODEC_METHOD: "the ground truth through our MP4 (H.264 crf 18): as good as a video file can look",
}
LOSSLESS_FRAMES_TEXT = (
    "Sources, driving frames and ground truth were cut from the recordings, which are compressed as their "
    "source has them, and kept without loss: since then nothing scored has been through a lossy codec, but "
    "for the baseline codec, and frames of other code that came as video or JPEG. Landmarks and fits by "
    "which models are driven were found in the clips as they are stored."
)
LOSSY_FRAMES_TEXT = (
    "Sources, driving frames and ground truth are the clips as they are stored: cut from the recordings and "
    "compressed once more, as {frames}. Set eval.frames_from: views.truth to score against lossless frames."
)


def scored_frames_caption(frames: str, lossless: bool) -> str:
    """What the frames are that a protocol takes. frames: how they are kept (describe_frame_codec)."""
    return LOSSLESS_FRAMES_TEXT if lossless else LOSSY_FRAMES_TEXT.format(frames=frames)


def sample_grid_column_titles(model: str, has_truth: bool = True) -> list[str]:
    if not has_truth:
        return ["source", "driving", model]
    return ["source", "driving = truth", model, f"error x{ERROR_MAP_GAIN}"]


def provenance_caption(model: str, provenance: Mapping[str, str]) -> str:
    """The line under every picture: which parts do not carry the published weights."""
    return " · ".join(
        [model, *(f"{part.replace('_', ' ')}: {what}" for part, what in sorted(provenance.items()))]
    )
