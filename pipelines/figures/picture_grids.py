"""Pictures of a comparison: resizing, labelled grids, error maps, and PNG whose bytes depend on the pixels
alone.

T frames, H x W pixels. Images are uint8 RGB unless a function says [0,1].
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

TEXT_COLOUR, BACKGROUND_COLOUR, MUTED_TEXT_COLOUR = (24, 26, 32), (250, 250, 252), (110, 116, 130)
CELL_GAP = 4
"""Pixels between cells of a grid."""
ERROR_MAP_GAIN = 4
"""Error maps show |difference| times this, so that 1/4 of the range is already white."""


# --- sizes --------------------------------------------------------------------------------------------------
@lru_cache(maxsize=32)
def _resampling(size_in: int, size_out: int) -> np.ndarray:
    """(size_out, size_in) weights: exact pixel areas when shrinking, linear between pixel centres when
    enlarging."""
    scale = size_in / size_out
    if scale >= 1:
        edges = np.arange(size_out + 1) * scale
        starts, ends = edges[:-1, None], edges[1:, None]
        pixels = np.arange(size_in)[None]
        overlap = np.minimum(ends, pixels + 1) - np.maximum(starts, pixels)
        return np.clip(overlap, 0, None) / scale
    centres = np.clip((np.arange(size_out) + 0.5) * scale - 0.5, 0, size_in - 1)[:, None]
    return np.clip(1 - np.abs(centres - np.arange(size_in)[None]), 0, None)


def resize_frames(frames: np.ndarray, size: int) -> np.ndarray:
    """(T,H,W,3) uint8, or float in [0,1] -> (T,size,size,3) float64 in [0,1]: area average down, bilinear
    up."""
    images = frames / 255.0 if frames.dtype == np.uint8 else frames.astype(np.float64)
    height, width = images.shape[1:3]
    if height != size:
        images = np.einsum("oh,thwc->towc", _resampling(height, size), images, optimize=True)
    if width != size:
        images = np.einsum("ow,thwc->thoc", _resampling(width, size), images, optimize=True)
    return images


def to_uint8(images: np.ndarray) -> np.ndarray:
    """[0,1] -> uint8, rounding half up; NaN becomes 0."""
    return np.floor(np.clip(np.nan_to_num(images), 0, 1) * 255 + 0.5).astype(np.uint8)


# --- drawing ------------------------------------------------------------------------------------------------
def make_error_map(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (...,3) in [0,1] -> uint8: mean |difference| over channels times ERROR_MAP_GAIN,
    black-purple-orange-white."""
    level = np.clip(np.abs(prediction - target).mean(axis=-1) * ERROR_MAP_GAIN, 0, 1)
    stops = np.array(
        [[0, 0, 0], [84, 24, 110], [210, 66, 62], [252, 178, 60], [255, 255, 240]], dtype=np.float64
    )
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(level, at, stops[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)


def overlay_box(image: np.ndarray, box: np.ndarray, colour: tuple[int, int, int]) -> None:
    """A rectangle x0, y0, x1, y1, two pixels thick, cut to the image; NaN is no box."""
    if not np.isfinite(box).all():
        return
    height, width = image.shape[:2]
    x0, y0, x1, y1 = np.clip(box.round().astype(int), -2, [width + 2, height + 2] * 2)
    for rows, columns in (
        (slice(y0, y0 + 2), slice(x0, x1)),
        (slice(y1 - 2, y1), slice(x0, x1)),
        (slice(y0, y1), slice(x0, x0 + 2)),
        (slice(y0, y1), slice(x1 - 2, x1)),
    ):
        image[max(0, rows.start) : max(0, rows.stop), max(0, columns.start) : max(0, columns.stop)] = colour


def overlay_points(image: np.ndarray, points: np.ndarray, rim: tuple[int, int, int] = (20, 30, 60)) -> None:
    """Draw (n,2) pixel positions into (H,W,3) uint8 in place: white on a rim; NaN ones are left out."""
    for x, y in points[np.isfinite(points).all(axis=1)].astype(int):
        for reach, colour in ((2, rim), (1, (255, 255, 255))):
            rows = slice(max(0, y - reach + 1), max(0, y + reach))
            columns = slice(max(0, x - reach + 1), max(0, x + reach))
            image[rows, columns] = colour


def render_text(
    text: str, width: int, height: int = 22, ink: tuple[int, int, int] = TEXT_COLOUR
) -> np.ndarray:
    """One line of Latin text (the font that ships with Pillow has little else), cut if too long ->
    (height,width,3)."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (width, height), BACKGROUND_COLOUR)
    canvas = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(9, int(height * 0.58)))
    cut = text
    while cut and canvas.textlength(cut, font=font) > width - 4:
        cut = f"{cut.removesuffix('...')[:-1].rstrip()}..." if cut != "..." else ""
    canvas.text((width / 2, height / 2), cut, fill=ink, font=font, anchor="mm")
    return np.asarray(image)


def picture_grid(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], names: Sequence[str] = ()
) -> np.ndarray:
    """Rows of equal (S,S,3) cells, a title over each column, a name under each row -> one image."""
    if any(len(row) != len(titles) for row in rows) or (names and len(names) != len(rows)):
        raise ValueError(
            f"{len(titles)} titles and {len(names)} names for rows of {[len(r) for r in rows]} cells"
        )
    size = rows[0][0].shape[0]
    width = len(titles) * (size + CELL_GAP) + CELL_GAP
    parts = [_row([render_text(t, size) for t in titles], width)]
    for i, row in enumerate(rows):
        parts.append(_row(row, width))
        if names:
            parts.append(render_text(names[i], width, 18, MUTED_TEXT_COLOUR))
    parts.append(np.full((CELL_GAP, width, 3), BACKGROUND_COLOUR, dtype=np.uint8))
    return np.concatenate(parts)


def _row(cells: Sequence[np.ndarray], width: int) -> np.ndarray:
    height = cells[0].shape[0]
    canvas = np.full((height + CELL_GAP, width, 3), BACKGROUND_COLOUR, dtype=np.uint8)
    x = CELL_GAP
    for cell in cells:
        canvas[CELL_GAP : CELL_GAP + height, x : x + cell.shape[1]] = cell
        x += cell.shape[1] + CELL_GAP
    return canvas


def side_by_side_video(columns: Sequence[np.ndarray], titles: Sequence[str], caption: str) -> np.ndarray:
    """Columns of (T,S,S,3), titles over them, one caption below (what the weights are) -> (T,H,W,3), H and W
    even."""
    from pipelines.media.mp4_bytes import pad_to_even_sides

    size = columns[0].shape[1]
    width = len(columns) * (size + CELL_GAP) + CELL_GAP
    head = _row([render_text(t, size) for t in titles], width)
    foot = render_text(caption, width, 20, MUTED_TEXT_COLOUR)
    frames = [np.concatenate([head, _row(cells, width), foot]) for cells in zip(*columns, strict=True)]
    return pad_to_even_sides(np.stack(frames))


def enlarge_pixels(frames: np.ndarray, at_least: int) -> np.ndarray:
    """(T,S,S,3) -> every pixel repeated a whole number of times, so that labels fit and nothing is
    smoothed."""
    times = max(1, -(-at_least // frames.shape[1]))
    return frames.repeat(times, axis=1).repeat(times, axis=2)


# --- files --------------------------------------------------------------------------------------------------
def encode_png(image: np.ndarray) -> bytes:
    """(H,W,3) -> PNG without a time stamp."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", optimize=False, compress_level=6)
    return out.getvalue()


def encode_jpeg(image: np.ndarray, quality: int = 85) -> bytes:
    import simplejpeg

    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorspace="RGB")


def make_data_uri(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
