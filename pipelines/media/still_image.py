"""Still pictures as the models want them: upright, 8-bit RGB, nothing transparent."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import warnings
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipelines.errors import Rejected, UserError
from pipelines.media.container import probe_file
from pipelines.media.decoding import read_frames
from pipelines.media.ffmpeg_process import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

    from pipelines.media.probe_schema import Probe

PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA", "JPEG2000", "AVIF")
"""Pictures made of pixels. Pillow knows more, some of which (EPS) it hands to other programs."""
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
"""What a HEIC file calls itself; an AVIF one has other names, and Pillow reads it."""
JPEG_XL_SIGNATURES = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")
SEVERAL_FRAMES_NOTE = "holds several frames: the first is used"
GREY16_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
"""Pillow's modes of grey pictures with 16 bits."""


class DecodedPicture(NamedTuple):
    pixels: np.ndarray
    """(H,W,3) uint8 RGB"""
    notes: list[str]
    """What was done to the file's own pixels, where something was."""


def read_picture(path: Path) -> DecodedPicture:
    """A file that Pillow can read (PNG, JPEG, WebP, TIFF, ...), turned as its EXIF says, or a video of one
    frame; what it is called does not matter. What is transparent becomes white, 16 bits become 8, of several
    frames the first is taken; each is noted. UserError where it is no picture, cut short, or too large.
    """
    if (picture := _decode(path)) is not None:
        return picture
    probed = _probe_video(path)
    if probed["frames"] == 1:
        return _only_frame(path, probed)
    raise UserError(
        f"{path} is a video of {probed['frames']:,} frames, expected a picture; take one of them: "
        f"ffmpeg -i {shlex.quote(str(path))} -frames:v 1 portrait.png"
    )


def read_picture_or_probe(path: Path) -> DecodedPicture | Probe:
    """A picture as `read_picture` reads it, or what `probe_file` finds in a video. A picture that moves (GIF)
    is a video where ffmpeg reads all of its frames. UserError where it is neither.

    A file is asked for before a model is loaded, and again when it is used; the answer is kept.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    return _picture_or_video(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1)
def _picture_or_video(path: Path, _size: int, _changed: int) -> DecodedPicture | Probe:
    picture = _decode(path)
    if picture is None:
        probed = _probe_video(path)
        return _only_frame(path, probed) if probed["frames"] == 1 else probed
    if SEVERAL_FRAMES_NOTE in picture.notes:
        with suppress(Rejected):  # ffmpeg does not decode WebP or PNG that move
            return probe_file(path)
    return picture


def _decode(path: Path) -> DecodedPicture | None:
    """The picture that Pillow reads; None where it knows none in the file."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    notes: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels, which are counted below, and of broken tags
            with Image.open(path, formats=_formats()) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise _too_large(path, f"{width:,} x {height:,}")
                if getattr(image, "is_animated", False):
                    notes.append(SEVERAL_FRAMES_NOTE)
                if _bits(image) > 8:
                    notes.append("16 bits a channel, scaled to 8")
                image.load()
                upright = ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError as error:  # Pillow's own limit, which it looks at sooner
        found = re.search(r"\d{6,}", str(error))
        raise _too_large(path, f"{int(found[0]):,}" if found else "too many") from None
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (OSError, SyntaxError, ValueError, RuntimeError) as error:  # RuntimeError: of AVIF
        raise UserError(f"{path} cannot be decoded: {error}") from error
    return DecodedPicture(np.asarray(_to_rgb(_to_8_bits(upright), notes)), notes)


def _formats() -> list[str]:
    """Those of FORMATS that this Pillow reads, and HEIF where pillow-heif is installed."""
    from PIL import Image

    Image.init()
    if "HEIF" not in Image.OPEN and importlib.util.find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()
    return [one for one in (*PICTURE_FORMATS, "HEIF") if one in Image.OPEN]


def _probe_video(path: Path) -> Probe:
    """What `probe_file` finds in a file that Pillow does not read, of which one frame is enough."""
    with path.open("rb") as file:
        head = file.read(16)
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS:
        todo = "pip install pillow-heif, or save it as JPEG"
        raise UserError(f"{path} is a HEIC picture, which pillow-heif reads: {todo}")
    if head.startswith(JPEG_XL_SIGNATURES):
        raise UserError(f"{path} is a JPEG XL picture, which cannot be read here; save it as PNG or JPEG")
    try:
        return probe_file(path, str(path), least=1)
    except Rejected as error:
        if error.code == "unreadable":
            no_video = error.sentence.removeprefix(f"{path} is ")
            kinds = ", ".join(PICTURE_FORMATS)
            raise UserError(f"{path} is not a picture that can be read ({kinds}), and {no_video}") from None
        if error.code == "no_video":
            raise UserError(f"{error.sentence}; a picture or a video shows the face") from None
        raise UserError(error.sentence) from None


def _only_frame(path: Path, probed: Probe) -> DecodedPicture:
    """The picture that a video of one frame is."""
    try:
        frames, _ = read_frames(path, probed, (probed["width"], probed["height"]))
    except Rejected as error:
        raise UserError(f"{path}: {error.sentence}") from None
    without = ", without its sound" if probed["audio_rate"] else ""
    return DecodedPicture(frames[0], [f"a video of one frame, taken as a picture{without}"])


def _too_large(path: Path, found: str) -> UserError:
    return UserError(f"{path} has {found} pixels, more than {MAX_PIXELS:,} in all; scale it down")


def _bits(image: ImageFile) -> int:
    """Bits a channel in the file. Pillow hands out the upper 8 of 16-bit colour without a word."""
    from PIL.TiffImagePlugin import TiffImageFile

    if image.mode in GREY16_MODES or image.mode == "F":
        return 16
    if image.format == "PNG":
        with open(image.filename, "rb") as file:
            return file.read(25)[
                24
            ]  # IHDR comes first: 8 of signature, 8 of chunk head, width, height, depth
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(258, (8,))  # BitsPerSample
        return max(bits) if isinstance(bits, tuple) else bits
    return 8


def _to_8_bits(image: Image) -> Image:
    from PIL import Image

    if image.mode not in GREY16_MODES and image.mode != "F":
        return image
    values = np.asarray(image).astype(np.float64)
    most = 65_535.0 if image.mode in GREY16_MODES else max(1.0, float(values.max()))
    return Image.fromarray((np.clip(values / most, 0, 1) * 255 + 0.5).astype(np.uint8))


def _to_rgb(image: Image, notes: list[str]) -> Image:
    """RGB; alpha composited over white."""
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    if np.asarray(image)[..., 3].min() < 255:
        notes.append("has transparent parts, shown over white")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")
