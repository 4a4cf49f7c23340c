"""What a file holds, found by demuxing all of it and decoding one frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import Rejected
from pipelines.preprocess.media.clock import FPS
from pipelines.preprocess.media.process import FORMATS, MOST_PIXELS

HDR = {16: "smpte2084", 18: "arib-std-b67"}
"""Transfer curves of high dynamic range (ITU-T H.273), by ffmpeg's names."""


def probe(path: Path, name: str | None = None) -> dict[str, Any]:
    """width, height (as shown, after rotation), fps, frames, start, begin, seconds, audio_rate (0 = no
    sound), transfer ("" unless HDR), container, video_codec.

    start: the time stamp that counts as second 0, the first of any stream. begin: when the first frame is
    shown, later than 0 where sound comes first. seconds: when the last frame ends. Demuxes the whole file and
    decodes one frame; raises Rejected: empty, unreadable, no_video, zero_duration, truncated, undecodable,
    too_large.
    name: what to call the file in the sentence, if not by its name.
    """
    import av
    import av.error

    name = name or path.name
    if path.stat().st_size == 0:
        raise Rejected("empty", f"{name} holds 0 bytes")
    try:
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
        with av.open(f"file:{path}", metadata_errors="replace", options=options) as container:
            return _probe(container, name)
    except av.error.FFmpegError as error:
        if isinstance(error, OSError) and not isinstance(error, ValueError | EOFError):
            raise  # the disk, not the file
        raise Rejected(
            "unreadable", f"{name} is not a video that ffmpeg can read: {error.strerror}"
        ) from error


def _probe(container: Any, name: str) -> dict[str, Any]:
    videos = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    if not videos:
        raise Rejected(
            "no_video", f"{name} holds no video stream, only {[s.type for s in container.streams]}"
        )
    video = videos[0]
    sound = container.streams.audio[0] if container.streams.audio else None
    begins, ends, sounds, hidden = _packet_times(container, [video, sound] if sound else [video])
    if len(begins) < 2 or begins[-1] - begins[0] <= 0:
        raise Rejected("zero_duration", f"{name} holds {len(begins)} frames: no duration")
    start = container.start_time / 1_000_000 if container.start_time is not None else begins[0]
    seconds = max(ends) - start
    counted = (len(begins) - 1) / (begins[-1] - begins[0])
    # headers may name a clock, such as 90000, for a rate
    rate = float(video.average_rate or counted)
    heard = sounds[-1] - start if sounds else None
    _check_promise(container, video, name, len(begins) + hidden, seconds, heard)
    width, height = _shown_size(container, video, name)
    return {
        "width": width,
        "height": height,
        "fps": round(rate if 0.5 < rate / counted < 2 else counted, 6),
        "frames": len(begins),
        "start": round(start, 6),
        "begin": round(max(0.0, begins[0] - start), 6),
        "seconds": round(seconds, 6),
        "audio_rate": int(sound.rate) if sound and sounds else 0,
        "transfer": HDR.get(int(video.codec_context.color_trc or 0), ""),
        "container": container.format.name,
        "video_codec": video.codec_context.name,
    }


def _check_promise(
    container: Any, video: Any, name: str, frames: int, seconds: float, heard: float | None
) -> None:
    """mp4 counts its frames and Matroska states its length in the header: a cut file holds less than they
    promise. frames: also those that an edit list hides. heard: when the last packet of sound begins."""
    promised = container.duration / 1_000_000 if container.duration else 0.0
    missing = promised - max(seconds, heard or 0.0)
    if frames < 0.95 * video.frames or missing > max(1.0, 0.1 * promised):
        raise Rejected(
            "truncated",
            f"{name} promises {video.frames} frames and {promised:.2f} s, "
            f"but holds {frames} frames and {seconds:.2f} s",
        )


def _packet_times(
    container: Any, streams: Sequence[Any]
) -> tuple[list[float], list[float], list[float], int]:
    """Begin and end of every video frame in order of display, begin of every sound packet; seconds. And how
    many video frames an edit list hides."""
    hidden = 0
    spans: list[tuple[float, float]] = []
    sounds: list[float] = []
    frame = float(1 / streams[0].average_rate) if streams[0].average_rate else 1 / FPS
    for packet in container.demux(*streams):
        if packet.size and packet.is_discard:
            hidden += packet.stream is streams[0]
        if packet.pts is None or packet.size == 0 or packet.is_discard:
            continue
        begin = float(packet.pts * packet.time_base)
        if packet.stream is not streams[0]:
            sounds.append(begin)
            continue
        spans.append(
            (begin, begin + (float(packet.duration * packet.time_base) if packet.duration else frame))
        )
    spans.sort()
    return [b for b, _ in spans], [e for _, e in spans], sorted(sounds), hidden


def _shown_size(container: Any, video: Any, name: str) -> tuple[int, int]:
    """Width and height as ffmpeg's filters see them: turned upright, pixels made square."""
    check_pixels(video.width, video.height, name)
    container.seek(0)
    video.codec_context.thread_count = 1
    first = next(container.decode(video), None)
    if first is None:
        raise Rejected("undecodable", f"no frame of {name} can be decoded")
    width, height = first.width, first.height
    check_pixels(width, height, name)
    aspect = video.sample_aspect_ratio
    if aspect and aspect != 1:
        width = max(2, round(width * float(aspect) / 2) * 2)
    return (height, width) if first.rotation % 180 else (width, height)


def check_pixels(width: int, height: int, name: str) -> None:
    if width * height > MOST_PIXELS:
        raise Rejected(
            "too_large",
            f"{name} has frames of {width:,} x {height:,} pixels, expected at most {MOST_PIXELS:,}",
        )
