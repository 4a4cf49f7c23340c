"""Pictures of a comparison, from published sample frames: the grid and side-by-side videos of a model.

T = driving frames of a pair, S = the scored size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.eval.captions import provenance_caption, sample_grid_column_titles
from pipelines.figures import picture_grids
from pipelines.media.mp4_bytes import encode_mp4

if TYPE_CHECKING:
    from pipelines.eval.sample_frames import PairFrames, ReportSampleFrames

MIN_PICTURE_SIDE_PIXELS = 192
"""Side, in pixels, that small pictures are enlarged to at least, by whole factors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSamples:
    """What the report shows of a model."""

    titles: list[str]
    """Of the grid's columns, from the left."""
    pairs: list[str]
    """Of the grid's rows, from the top."""
    grid: bytes
    """PNG"""
    videos: dict[str, bytes]
    """Pair -> MP4."""


def render_model_samples(
    model: str, frames: ReportSampleFrames, has_truth: bool, videos: int
) -> ModelSamples:
    """has_truth: whether the driving frames are what the model is to reach; then its error is shown. videos:
    how many of the first pairs are shown moving."""
    titles, rows, files = [], [], {}
    text, heads = provenance_caption(model, frames.provenance), sample_grid_column_titles(model, has_truth)
    for place, pair in enumerate(frames.pairs):
        columns = render_pair_picture_columns(pair, has_truth)
        own = middle_frame_visualizations(pair)
        titles = [*heads[:2], *own, *heads[2:]]
        row = [images[len(pair.driving) // 2] for images in columns]
        rows.append([*row[:2], *own.values(), *row[2:]])
        if place < videos:
            files[pair.pair] = encode_mp4(picture_grids.side_by_side_video(columns, heads, text))
    pairs = [pair.pair for pair in frames.pairs]
    grid = picture_grids.picture_grid(rows, titles, pairs)
    foot = picture_grids.render_text(text, grid.shape[1], 20, picture_grids.MUTED_TEXT_COLOUR)
    return ModelSamples(
        titles=titles, pairs=pairs, grid=picture_grids.encode_png(np.concatenate([grid, foot])), videos=files
    )


def render_pair_picture_columns(frames: PairFrames, has_truth: bool) -> list[np.ndarray]:
    """Source, driving, output and, where there is a truth, the error: (T,S',S',3) uint8 each, enlarged."""
    driving, output = frames.driving, frames.output
    columns = [np.broadcast_to(frames.source, driving.shape), driving, output]
    if has_truth:
        columns.append(picture_grids.make_error_map(output / 255.0, driving / 255.0))
    return [picture_grids.enlarge_pixels(images, MIN_PICTURE_SIDE_PIXELS) for images in columns]


def middle_frame_visualizations(frames: PairFrames) -> dict[str, np.ndarray]:
    """What the model shows of how it made the middle frame: title -> (S',S',3) uint8, as large as the other
    columns."""
    size = frames.output.shape[1]
    found = {}
    for name, image in sorted(frames.visualization.items(), key=_place):
        images = image[None] if image.shape[0] == size else _resized(image, size)
        found[name.split(" ", 1)[1]] = picture_grids.enlarge_pixels(images, MIN_PICTURE_SIDE_PIXELS)[0]
    return found


def _place(item: tuple[str, np.ndarray]) -> int:
    return int(item[0].split(" ", 1)[0])


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    return picture_grids.to_uint8(picture_grids.resize_frames(image[None], size))
