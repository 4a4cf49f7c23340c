"""How a clip's frames are stored: packed JPEG (default), packed PNG (lossless), or H.264 with short GOPs.

The packed forms hold one image file a frame behind an offset table, so that two random frames cost two small
reads; the H.264 form takes a quarter of the bytes and some twenty times the time for two frames.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from storage.errors import DamagedFile

FPS = 25
FrameCodec = Literal["jpeg", "png", "h264"]
FRAMES_EXTENSION_BY_CODEC: dict[str, str] = {"jpeg": "jpgs", "png": "pngs", "h264": "mp4"}
CODEC_PACKAGES: dict[str, tuple[str, ...]] = {"jpeg": ("simplejpeg",), "png": ("pillow",), "h264": ("av",)}
MAX_FRAME_SIDE = 8_192
"""Of a frame to decode: its header is looked at first, since a small file may hold a huge picture."""
GOP, CRF = 12, 12
"""41.7 dB against the crop at 4.4 KiB a 256 px frame of one clip, where JPEG q95 has 45.0 dB at 18.4 KiB, q90
43.6 at 12.8."""


@dataclass(frozen=True, slots=True)
class EncodedFrames:
    """A clip's frames as they will lie in its shard: of 256 px and JPEG a tenth of what the pictures take."""

    extension: str
    data: bytes = field(repr=False)

    def __len__(self) -> int:
        return len(frame_byte_offsets(self.extension, self.data)) - 1

    def decode(self, indices: Sequence[int] | None = None) -> np.ndarray:
        """(n,H,W,3) uint8 RGB as a reader will see them: only the frames asked for, all by default."""
        return decode_frames(self.extension, self.data, indices)


def encode_images(
    images: Iterable[np.ndarray], codec: FrameCodec = "jpeg", quality: int = 95
) -> EncodedFrames:
    """images (H,W,3) uint8 RGB, H and W even, all of one size -> the member; the same bytes for the same
    images.

    Each is encoded before the next is asked for, so that a stream of them need not be held. quality: JPEG
    only, 1 to 100.
    """
    if codec == "jpeg":
        return EncodedFrames(
            "jpgs", concatenate_with_offset_header([_jpeg(image, quality) for image in images])
        )
    if codec == "png":
        return EncodedFrames("pngs", concatenate_with_offset_header([_png(image) for image in images]))
    return EncodedFrames("mp4", _h264(images))


def encode_frames(frames: EncodedFrames | np.ndarray) -> tuple[str, bytes]:
    """-> extension, member bytes. A plain array (T,H,W,3) becomes JPEG q95."""
    done = encode_images(frames) if isinstance(frames, np.ndarray) else frames
    return done.extension, done.data


def decode_frames(extension: str, data: bytes, indices: Sequence[int] | None = None) -> np.ndarray:
    """A member -> (n,H,W,3) uint8 RGB: only the frames asked for, all by default."""
    if extension == "mp4":
        return _from_h264(data, indices)
    offsets = unpack_image_offsets(data)
    wanted = range(len(offsets) - 1) if indices is None else indices
    return np.stack([decode_image(data[offsets[i] : offsets[i + 1]]) for i in wanted])


def frame_byte_offsets(extension: str, data: bytes) -> list[int]:
    """T+1 offsets from the member's start: of each image, and the end. Of H.264, T times the whole member."""
    if extension != "mp4":
        return unpack_image_offsets(data)
    import av

    # left to its content, a text that lists other files would open them
    with av.open(io.BytesIO(data), "r", format="mp4") as container:
        count = sum(packet.size > 0 for packet in container.demux(video=0))
    return [0] * count + [len(data)]


# --- packed images ------------------------------------------------------------------------------------------
def concatenate_with_offset_header(files: Sequence[bytes]) -> bytes:
    """uint32 count, count+1 uint32 offsets from the end of that header, then the files; little endian."""
    ends = np.cumsum([0, *(len(f) for f in files)], dtype=np.uint64)
    if ends[-1] >= 2**32:
        raise ValueError(f"{len(files)} frames take {int(ends[-1])} bytes; one member holds less than 4 GiB")
    return np.uint32(len(files)).tobytes() + ends.astype("<u4").tobytes() + b"".join(files)


def unpack_image_offsets(data: bytes) -> list[int]:
    """Start of each file in a packed member, and the end of the last: count+1 numbers from its start."""
    count = int.from_bytes(data[:4], "little")
    header = 4 + 4 * (count + 1)
    return [header + int(o) for o in np.frombuffer(data, "<u4", count + 1, 4)]


def decode_image(data: bytes) -> np.ndarray:
    """One JPEG or PNG file -> (H,W,3) uint8 RGB. Damaged where its header tells of a larger one."""
    if data[:2] == b"\xff\xd8":
        import simplejpeg

        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        _check_size(int(height), int(width))
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        _check_size(image.height, image.width)
        return np.asarray(image.convert("RGB"))


def _check_size(height: int, width: int) -> None:
    if height > MAX_FRAME_SIDE or width > MAX_FRAME_SIDE:
        raise DamagedFile(
            f"a frame of {width:,} x {height:,} pixels, expected at most {MAX_FRAME_SIDE:,} a side"
        )


def _jpeg(image: np.ndarray, quality: int) -> bytes:
    import simplejpeg

    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="420"
    )


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", compress_level=1)  # level 6: a tenth smaller, five times slower
    return out.getvalue()


# --- video --------------------------------------------------------------------------------------------------
def _h264(images: Iterable[np.ndarray]) -> bytes:
    import av
    from av.codec.context import Flags

    out = io.BytesIO()
    with av.open(out, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        options = {
            "crf": str(CRF), "preset": "fast", "g": str(GOP), "bf": "0", "threads": "1",
            "x264-params": "mbtree=0:scenecut=0",  # with mbtree, files of one clip differed from run to run
        }  # fmt: skip
        stream: Any = container.add_stream("libx264", rate=FPS, options=options)
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= Flags.bitexact
        for at, image in enumerate(images):
            if at == 0:
                stream.height, stream.width, stream.pix_fmt = *image.shape[:2], "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return out.getvalue()


def _from_h264(data: bytes, indices: Sequence[int] | None) -> np.ndarray:
    """Seeks to the GOP of each frame asked for."""
    import av

    with av.open(io.BytesIO(data), "r", format="mp4") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        if indices is None:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        found: dict[int, np.ndarray] = {}
        assert stream.time_base is not None
        for i in sorted(set(indices)):
            pts = round(i / FPS / stream.time_base)
            container.seek(pts, stream=stream)
            frame = next(f for f in container.decode(stream) if f.pts is not None and f.pts >= pts)
            found[i] = frame.to_ndarray(format="rgb24")
    return np.stack([found[i] for i in indices])
