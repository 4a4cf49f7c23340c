"""What a file holds, found by demuxing all of it and decoding its first frame and its first sound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from pipelines.errors import Rejected, Transient
from pipelines.media.clock import FPS, LOST_FRAMES_GAP_SECONDS
from pipelines.media.colours import read_codec_colour_tags
from pipelines.media.ffmpeg_failure import is_disk_error, is_memory_error
from pipelines.media.ffmpeg_process import INPUT_FORMATS, MAX_PIXELS
from pipelines.media.interlacing import INTERLACE_CHECK_SECONDS, may_be_interlaced

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from pipelines.media.probe_schema import Probe

CONTAINER_WITH_DURATIONS = "matroska"
"""The container whose frames may end before the next one begins. In all others a frame is shown until the
next."""
CONTAINERS_WITHOUT_LENGTH = ("matroska", "flv")
"""Containers whose headers state no length of a single stream: where ffmpeg has one, and then that of the
whole as well, it was estimated from the bit rate."""
MAX_REORDERED_FRAMES = 16
"""Frames, at most, by which the order of decoding differs from that of display (H.264)."""
CONTAINER_WITH_FRAME_COUNT = "mov"
"""The container whose header counts the frames in it (AVI's counts the empty ones as well)."""
MAX_PROBED_SOUND_PACKETS = 50
"""Packets of sound, at most, in which one that can be decoded is looked for."""


def open_container(path: Path) -> InputContainer:
    """A PyAV container of a local file, of a format that names no further files."""
    import av

    options = {"format_whitelist": INPUT_FORMATS, "protocol_whitelist": "file"}
    return av.open(f"file:{path}", metadata_errors="replace", options=options)


def check_first_frame(stream: IO[bytes]) -> None:
    """Decode the first frame of an open video file. ValueError where it has none; PyAV's errors where it
    cannot be decoded."""
    import av

    options = {"format_whitelist": INPUT_FORMATS, "protocol_whitelist": "file"}
    with av.open(stream, "r", options=options) as container:
        if next(container.decode(video=0), None) is None:
            raise ValueError("a video without frames")


def demux_packets(container: InputContainer, *streams: Stream) -> Iterator[Packet]:
    """The packets of some streams, or of all.

    Where a stream appears on the way, as in broadcasts, PyAV stumbles over it after the last packet.
    """
    with suppress(IndexError):
        yield from container.demux(*streams)


def find_sound_stream(container: InputContainer, probed: Probe) -> AudioStream:
    """The sound that the probe of a file names."""
    return cast("AudioStream", container.streams[probed["audio_index"]])


def stream_time_base(stream: Stream) -> Fraction:
    """Seconds of one unit of a stream's time stamps."""
    assert stream.time_base is not None  # in every file; not in one that is being written
    return stream.time_base


def probe_file(path: Path, name: str | None = None, least: int = 2) -> Probe:
    """What a file holds: its first video and sound that can be decoded, their sizes and times.

    Demuxes the whole file and decodes its first frames; raises Rejected: empty, unreadable, no_video,
    zero_duration, truncated, undecodable, too_large. name: what to call the file in the sentence, if not by
    its name. least: fewer frames are no video.
    """
    import av.error

    name = name or path.name
    if path.stat().st_size == 0:
        raise Rejected("empty", f"{name} holds 0 bytes")
    try:
        with open_container(path) as container:
            return _probe(container, name, least)
    except av.error.FFmpegError as error:
        if is_disk_error(error, path):
            raise
        if is_memory_error(error):
            raise Transient(f"no memory is left to look into {name}") from error
        raise Rejected(
            "unreadable", f"{name} is not a video that ffmpeg can read: {error.strerror}"
        ) from error


def _probe(container: InputContainer, name: str, least: int) -> Probe:
    videos = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    if not videos:
        raise Rejected(
            "no_video", f"{name} holds no video stream, only {[s.type for s in container.streams]}"
        )
    decodable = [s for s in videos if s.codec_context is not None]
    if not decodable:
        raise Rejected("undecodable", f"{name} holds video of a codec that ffmpeg does not know")
    video = decodable[0]
    reject_too_large_frames(video.width, video.height, name)
    seen = _demux(container, video)
    begins = [begin for begin, _ in seen.frames]
    if len(begins) < least or (len(begins) > 1 and begins[-1] - begins[0] <= 0):
        untimed = f" with a time stamp, of {seen.packets}" if seen.packets > len(begins) else ""
        raise Rejected("zero_duration", f"{name} holds {len(begins)} frames{untimed}: no duration")
    start = container.start_time / 1_000_000 if container.start_time is not None else begins[0]
    seconds = seen.frames[-1][1] - start
    counted = (len(begins) - 1) / (begins[-1] - begins[0]) if len(begins) > 1 else FPS
    # headers may name a clock, such as 90000, for a rate
    rate = float(video.average_rate or counted)
    fps = rate if 0.5 < rate / counted < 2 else counted
    _check_promise(container, video, name, seen, start)
    if seen.first is None:
        raise Rejected("undecodable", f"no frame of {name} can be decoded")
    width, height = _display_size(video, seen.first, name)
    sound = seen.sound
    found = {
        "width": width,
        "height": height,
        "fps": round(fps, 6),
        "frames": len(begins),
        "start": round(start, 6),
        "begin": round(max(0.0, begins[0] - start), 6),
        "seconds": round(seconds, 6),
        "held": _frozen_spans(seen, start, LOST_FRAMES_GAP_SECONDS + 2 / fps, container.format.name),
        "interlaced": seen.interlaced,
        "video_index": video.index,
        "audio_index": sound.index if sound else -1,
        "audio_rate": int(sound.rate) if sound else 0,
        **read_codec_colour_tags(video.codec_context),
        "container": container.format.name,
        "video_codec": video.codec_context.name,
    }
    return cast("Probe", found)


# --- packets ------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class _Contents:
    """What all packets of a file say. Seconds by the file's own time stamps."""

    frames: list[tuple[float, float]] = field(default_factory=list)
    """Begin and end of every frame of the video, in order of display."""
    packets: int = 0
    """Packets of the video that are not empty."""
    hidden: int = 0
    """Packets of the video that an edit list hides."""
    has_durations: bool = True
    """Whether each packet of the video says how long its frame is shown."""
    first: VideoFrame | None = None
    """The first frame that can be decoded."""
    interlaced: bool = False
    """Whether one of the first frames is."""
    sound: AudioStream | None = None
    """The first sound stream of which something can be decoded."""
    last: float = 0.0
    """When the last packet of any other stream ends."""


def _demux(container: InputContainer, video: VideoStream) -> _Contents:
    seen = _Contents()
    video.codec_context.thread_count = 1
    trials = {
        s.index: MAX_PROBED_SOUND_PACKETS for s in container.streams.audio if s.codec_context is not None
    }
    decodable: list[int] = []
    stamps: list[tuple[int, int]] = []
    last: dict[int, int] = {}
    for packet in demux_packets(container):
        # an empty one, at the end, asks a decoder for what it holds back, and has stream_index 0 for any
        index = packet.stream_index if packet.size else packet.stream.index
        if index == video.index:
            _decode_first(packet, video, seen)
            if packet.size:
                seen.packets += 1
                if packet.is_discard:
                    seen.hidden += 1
                elif packet.pts is not None:
                    stamps.append((packet.pts, packet.duration or 0))
        elif packet.size and packet.pts is not None:
            last[index] = packet.pts + (packet.duration or 0)
            if trials.get(index):
                trials[index] -= 1
                if next(_decode(packet), None) is not None:
                    trials[index] = 0
                    decodable.append(index)
    base = stream_time_base(video)
    usual = float(1 / video.average_rate) if video.average_rate else 1 / FPS
    for stamp, duration in sorted(stamps):
        begin = stamp * base.numerator / base.denominator
        seen.frames.append((begin, begin + (duration * base.numerator / base.denominator or usual)))
    seen.has_durations = all(duration for _, duration in stamps)
    seen.sound = cast("AudioStream", container.streams[min(decodable)]) if decodable else None
    seen.last = max(
        (float(at * stream_time_base(container.streams[index])) for index, at in last.items()), default=0.0
    )
    return seen


def _decode_first(packet: Packet, video: VideoStream, seen: _Contents) -> None:
    """Decode a packet of the video if the first frame is not there, or the flags of more are asked for."""
    context = video.codec_context
    if seen.first is not None and (
        seen.interlaced
        or packet.pts is None
        or (packet.pts - (seen.first.pts or 0)) * stream_time_base(video) > INTERLACE_CHECK_SECONDS
        or not may_be_interlaced(context)
    ):
        return
    for frame in cast("Iterator[VideoFrame]", _decode(packet)):
        if seen.first is None:
            seen.first = frame
            context.skip_frame = "NONREF"  # such frames have the flags of those that they refer to
        seen.interlaced |= bool(frame.interlaced_frame)


def _decode(packet: Packet) -> Iterator[VideoFrame | AudioFrame]:
    """The frames of a packet, none of a broken one: the next packet may be whole."""
    from av.error import FFmpegError

    try:
        yield from packet.decode()
    except FFmpegError:
        return


def _frozen_spans(seen: _Contents, start: float, longest: float, container: str) -> list[list[float]]:
    """Spans of more than `longest` seconds between two frames over which the first one is shown. Where the
    container states that it ends early, frames were lost."""
    ends_early = container.startswith(CONTAINER_WITH_DURATIONS) and seen.has_durations
    found: list[list[float]] = []
    for k, ((begin, _), (after, _)) in enumerate(pairwise(seen.frames)):
        if after - begin <= longest:
            continue
        # muxers copy durations in the order of decoding, so that a neighbour may have this frame's
        near = seen.frames[max(0, k - MAX_REORDERED_FRAMES) : k + MAX_REORDERED_FRAMES + 1]
        if ends_early and after - begin - max(b - a for a, b in near) > longest:
            continue
        found.append([round(begin - start, 6), round(after - start, 6)])
    return found


# --- what the header promises -------------------------------------------------------------------------------
def _check_promise(
    container: InputContainer, video: VideoStream, name: str, seen: _Contents, start: float
) -> None:
    """A cut file holds less than its header promises: frames that mp4 counts, or the length of the video.

    Where only the length of the whole file is stated, it is that of the longest stream of any kind, such as
    subtitles. Lengths may count from 0 or from the first time stamp: the longer way is taken.
    """
    # the index lacks what an edit list cuts away, the header's count does not
    counts = container.format.name.startswith(CONTAINER_WITH_FRAME_COUNT)
    counted = min(video.frames, len(video.index_entries)) if counts else 0
    frames = len(seen.frames) + seen.hidden
    end = seen.frames[-1][1]
    file_seconds = container.duration / 1_000_000 if container.duration else None
    own = _own_duration(video)
    if video.duration and container.format.name.startswith(CONTAINERS_WITHOUT_LENGTH):
        own = file_seconds = None
    reached = end if own is not None else max(end, seen.last)
    promised = min((length for length in (own, file_seconds) if length is not None), default=0.0)
    missing = promised - max(reached, reached - start)
    if frames < 0.95 * counted or missing > max(1.0, 0.1 * promised):
        raise Rejected(
            "truncated",
            f"{name} promises {f'{counted} frames and ' if counted else ''}{promised:.2f} s, "
            f"but holds {frames} frames and {end - start:.2f} s",
        )


def _own_duration(video: VideoStream) -> float | None:
    """Seconds of the video stream by the header; Matroska keeps them in a tag, as 00:00:03.600000000."""
    if video.duration:
        return float(video.duration * stream_time_base(video))
    parts = video.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        return None
    return 3600 * hours + 60 * minutes + seconds


def _display_size(video: VideoStream, first: VideoFrame, name: str) -> tuple[int, int]:
    """Width and height as ffmpeg's filters see them: turned upright, pixels made square."""
    width, height = first.width, first.height
    reject_too_large_frames(width, height, name)
    aspect = video.sample_aspect_ratio
    if aspect and aspect != 1:
        width = max(2, round(width * float(aspect) / 2) * 2)
    return (height, width) if first.rotation % 180 else (width, height)


def reject_too_large_frames(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise Rejected(
            "too_large",
            f"{name} has frames of {width:,} x {height:,} pixels, expected at most {MAX_PIXELS:,}",
        )
