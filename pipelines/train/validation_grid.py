"""The picture of a validation: a row a sample, the first few of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.task import ValidationOutput
from pipelines.figures.picture_grids import encode_png, enlarge_pixels, picture_grid

GRID_ROWS, MIN_PICTURE_SIDE = 8, 128  # rows, and the least side of a picture in them


def encode_png_grid(outputs: Sequence[ValidationOutput]) -> bytes:
    """Rows (H,W',3) uint8 stacked, enlarged by a whole factor, under titles where the task gives them."""
    rows = np.concatenate([output.row for output in outputs])[:GRID_ROWS]
    titles, side = outputs[0].titles, rows.shape[1]
    if titles and rows.shape[2] != len(titles) * side:
        raise ValueError(
            f"rows {rows.shape[1:]} and titles {', '.join(titles)}: expected {len(titles)} pictures of side "
            f"{side}"
        )
    rows = enlarge_pixels(rows, MIN_PICTURE_SIDE)
    if not titles:
        return encode_png(np.concatenate(list(rows)))
    return encode_png(picture_grid([np.split(row, len(titles), axis=1) for row in rows], titles))
