"""Pictures of a comparison, from frames that were kept: the sample grid and side-by-side videos of a model.

T = driving frames of a pair, S = the scored size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.eval.captions import caption, column_titles
from pipelines.figures import pictures
from pipelines.media.mp4_bytes import encode_mp4

if TYPE_CHECKING:
    from pipelines.eval.score import Family

CELL = 192
"""Side, in pixels, that small pictures are enlarged to at least, by whole factors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleFrames:
    """The families of frames that a model's pictures are made of, all of one protocol."""

    generated: Family
    source: Family
    """Of the baseline that copies the source."""
    driving: Family
    has_truth: bool
    """Whether the driving frames are what the model is to reach: then its error is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """What the report shows of a model."""

    titles: list[str]
    """Of the grid's columns, from the left."""
    pairs: list[str]
    """Of the grid's rows, from the top."""
    grid: bytes
    """PNG"""
    videos: dict[str, bytes]
    """Pair -> MP4."""


def make_samples(
    model: str, provenance: Mapping[str, str], frames: SampleFrames, pairs: Sequence[str], videos: int
) -> Samples:
    """pairs: the grid's rows. videos: how many of the first ones are shown moving."""
    titles, rows, files = [], [], {}
    for place, pair in enumerate(pairs):
        columns = columns_of(frames, pair)
        own = own_pictures(frames, pair)
        titles = [
            *column_titles(model, frames.has_truth)[:2],
            *own,
            *column_titles(model, frames.has_truth)[2:],
        ]
        middle = len(columns[1]) // 2
        first, rest = columns[:2], columns[2:]
        rows.append(
            [*(images[middle] for images in first), *own.values(), *(images[middle] for images in rest)]
        )
        if place < videos:
            video = pictures.side_by_side(
                columns, column_titles(model, frames.has_truth), caption(model, provenance)
            )
            files[pair] = encode_mp4(video)
    grid = pictures.grid(rows, titles, list(pairs))
    foot = pictures.text_strip(caption(model, provenance), grid.shape[1], 20, pictures.MUTED)
    return Samples(
        titles=titles, pairs=list(pairs), grid=pictures.png(np.concatenate([grid, foot])), videos=files
    )


def columns_of(frames: SampleFrames, pair: str) -> list[np.ndarray]:
    """Source, driving, output and, where there is a truth, the error: (T,S',S',3) uint8 each, enlarged."""
    source, driving, output = (
        family.read(pair, ["frames"])["frames"]
        for family in (frames.source, frames.driving, frames.generated)
    )
    columns = [np.broadcast_to(source[:1], driving.shape), driving, output]
    if frames.has_truth:
        columns.append(pictures.error_map(output / 255.0, driving / 255.0))
    return [pictures.enlarge(images, CELL) for images in columns]


def own_pictures(frames: SampleFrames, pair: str) -> dict[str, np.ndarray]:
    """What the model shows of how it made the middle frame: title -> (S',S',3) uint8, as large as the other
    columns."""
    sample = frames.generated.read(pair)
    size = sample["frames"].shape[1]
    found = {}
    for name, image in sorted(sample.get("visualization", {}).items(), key=_place):
        images = image[None] if image.shape[0] == size else _resized(image, size)
        found[name.split(" ", 1)[1]] = pictures.enlarge(images, CELL)[0]
    return found


def _place(item: tuple[str, np.ndarray]) -> int:
    return int(item[0].split(" ", 1)[0])


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    return pictures.to_uint8(pictures.resize(image[None], size))
