"""Short videos as bytes: one H.264 encoder for pictures of a report and for videos that our own code renders.

Files that run as another video does are written by encoding.py.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from itertools import chain
from typing import Literal

import numpy as np

DETERMINISTIC_X264_OPTIONS = {"x264-params": "mbtree=0"}
"""With macroblock trees on, x264 gave 6 different files in 40 trials on one 66 px clip, on one thread."""
SOUND_BIT_RATE = 96_000
AAC_BLOCK_SAMPLES = 1024
"""Samples that AAC encodes together."""


def encode_mp4(
    frames: Iterable[np.ndarray],
    fps: int = 25,
    *,
    crf: int = 18,
    preset: Literal["veryfast", "medium"] = "medium",
    sound: np.ndarray | None = None,
    sound_rate: int = 16_000,
) -> bytes:
    """Frames (H,W,3) uint8 one by one, H and W even, at least one, and sound (n,) float32 in [-1,1] -> H.264
    4:2:0 and AAC in MP4; the same frames and sound give the same bytes."""
    import av
    from av.codec.context import Flags

    out, images = io.BytesIO(), iter(frames)
    first = next(images)
    with av.open(out, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        options = {"crf": str(crf), "preset": preset, "threads": "1", **DETERMINISTIC_X264_OPTIONS}
        video = container.add_stream("libx264", rate=fps, options=options)
        video.height, video.width = first.shape[:2]
        video.pix_fmt = "yuv420p"
        audio = None
        if sound is not None:
            audio = container.add_stream("aac", rate=sound_rate, layout="mono", options={"threads": "1"})
            audio.bit_rate = SOUND_BIT_RATE
        streams = [stream for stream in (video, audio) if stream is not None]
        for stream in streams:
            stream.codec_context.thread_count = 1
            stream.codec_context.flags |= Flags.bitexact
        for image in chain((first,), images):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(video.encode(picture))
        if audio is not None and sound is not None:
            for start in range(0, len(sound), AAC_BLOCK_SAMPLES):
                block = av.AudioFrame.from_ndarray(
                    sound[None, start : start + AAC_BLOCK_SAMPLES], "fltp", "mono"
                )
                block.sample_rate, block.pts = sound_rate, start
                container.mux(audio.encode(block))
        for stream in streams:
            container.mux(stream.encode(None))
    return out.getvalue()


def decode_mp4(data: bytes) -> np.ndarray:
    """MP4 bytes -> (T,H,W,3) uint8."""
    import av

    with av.open(io.BytesIO(data), "r", format="mp4") as container:
        container.streams.video[0].codec_context.thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def reencode_frames(frames: np.ndarray) -> np.ndarray:
    """(T,H,W,3) -> the same frames after one trip through our MP4: what a perfect model's video would
    score."""
    height, width = frames.shape[1:3]
    return decode_mp4(encode_mp4(pad_to_even_sides(frames)))[:, :height, :width]


def pad_to_even_sides(frames: np.ndarray) -> np.ndarray:
    """(T,H,W,3) as 4:2:0 needs it: an odd side gets its last row or column twice."""
    return np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
