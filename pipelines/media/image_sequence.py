"""Pictures as a video without loss: numbered files as they are, and one picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import Rejected
from pipelines.media.clock import FPS
from pipelines.media.container import reject_too_large_frames

if TYPE_CHECKING:
    from av.container import InputContainer

IMAGE_DEMUXERS = "image2,jpeg_pipe,png_pipe"
"""What such a file may be: ffmpeg goes by content, and a play list names further files."""


def mux_images_to_video(files: Sequence[Path], fps: float) -> bytes:
    """JPEG or PNG files of one codec and size -> QuickTime, frame by frame the bytes of the files. Raises
    Rejected: undecodable, uneven_images, too_large."""
    import av

    rate = Fraction(fps).limit_denominator(1001)
    out = io.BytesIO()
    # bitexact: no random ids and no time of writing in the file
    with (
        av.open(out, "w", format="mov", options={"fflags": "+bitexact"}) as video,
        _open(files[0]) as first,
    ):
        kind = _codec_and_size(first)
        stream = video.add_stream_from_template(first.streams.video[0])
        for place, path in enumerate(files):
            with _open(path) as image:
                if (own := _codec_and_size(image)) != kind:
                    raise Rejected("uneven_images", f"{path.name} is {own}, those before it are {kind}")
                packet = next(image.demux(video=0))
                packet.stream = stream
                packet.time_base = 1 / rate
                packet.pts = packet.dts = place
                packet.duration = 1
                video.mux(packet)
    return out.getvalue()


def picture_to_video(pixels: np.ndarray) -> bytes:
    """(H,W,3) uint8 RGB -> a QuickTime video of one frame; the same pixels give the same bytes."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mov", options={"fflags": "+bitexact"}) as video:
        stream = video.add_stream("png", rate=FPS)
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = "rgb24"
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts = 0
        video.mux([*stream.encode(frame), *stream.encode(None)])
    return out.getvalue()


def _open(path: Path) -> InputContainer:
    import av

    options = {"format_whitelist": IMAGE_DEMUXERS, "protocol_whitelist": "file", "pattern_type": "none"}
    try:
        return av.open(f"file:{path}", options=options)
    except ValueError:  # av's InvalidDataError is one
        raise Rejected("undecodable", f"{path.name} is not an image") from None


def _codec_and_size(image: InputContainer) -> str:
    """Rejected where the file has none."""
    stream, name = image.streams.video[0], Path(image.name).name
    if not stream.width:
        raise Rejected("undecodable", f"{name} is not an image")
    reject_too_large_frames(stream.width, stream.height, name)
    return f"{stream.codec_context.name} {stream.width}x{stream.height}"
