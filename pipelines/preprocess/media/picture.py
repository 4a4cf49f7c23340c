"""Still pictures as the models want them: upright, 8-bit RGB, nothing transparent."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines.errors import UserError
from pipelines.preprocess.media.process import MOST_PIXELS

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA", "JPEG2000", "AVIF")
"""Pictures made of pixels. Pillow knows more, some of which (EPS) it hands to other programs."""
WIDE = ("I;16", "I;16L", "I;16B", "I;16N", "I")
"""Pillow's modes of grey pictures with 16 bits."""


class Picture(NamedTuple):
    pixels: np.ndarray
    """(H,W,3) uint8 RGB"""
    notes: list[str]
    """What was done to the file's own pixels, where something was."""


def read_picture(path: Path) -> Picture:
    """A file that Pillow can read (PNG, JPEG, WebP, TIFF, ...), turned as its EXIF says. What is transparent
    becomes white, 16 bits become 8, of several frames the first is taken; each is noted. UserError where it
    is no picture, cut short, or too large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    notes: list[str] = []
    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=[one for one in FORMATS if one in Image.OPEN]) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise _too_large(path, f"{width:,} x {height:,}")
                if getattr(image, "n_frames", 1) > 1:
                    notes.append("holds several frames: the first is used")
                if _bits(image) > 8:
                    notes.append("16 bits a channel, scaled to 8")
                image.load()
                upright = ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise UserError(f"{path} is not a picture that can be read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError as error:  # Pillow's own limit, which it looks at sooner
        found = re.search(r"\d{6,}", str(error))
        raise _too_large(path, f"{int(found[0]):,}" if found else "too many") from None
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} cannot be decoded: {error}") from error
    return Picture(np.asarray(_flat(_eight_bit(upright), notes)), notes)


def _too_large(path: Path, found: str) -> UserError:
    return UserError(f"{path} has {found} pixels, more than {MOST_PIXELS:,} in all; scale it down")


def _bits(image: Any) -> int:
    """Bits a channel in the file. Pillow hands out the upper 8 of 16-bit colour without a word."""
    if image.mode in WIDE or image.mode == "F":
        return 16
    if image.format == "PNG":
        with open(image.filename, "rb") as file:
            return file.read(25)[
                24
            ]  # IHDR comes first: 8 of signature, 8 of chunk head, width, height, depth
    if image.format == "TIFF":
        given = image.tag_v2.get(258, (8,))  # BitsPerSample
        return max(given) if isinstance(given, tuple) else given
    return 8


def _eight_bit(image: Any) -> Any:
    from PIL import Image

    if image.mode not in WIDE and image.mode != "F":
        return image
    values = np.asarray(image).astype(np.float64)
    most = 65_535.0 if image.mode in WIDE else max(1.0, float(values.max()))
    return Image.fromarray((np.clip(values / most, 0, 1) * 255 + 0.5).astype(np.uint8))


def _flat(image: Any, notes: list[str]) -> Any:
    """RGB; alpha composited over white."""
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    if image.getextrema()[3][0] < 255:
        notes.append("has transparent parts, shown over white")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")
