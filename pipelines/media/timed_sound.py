"""Sound decoded in this process, every sample where its time stamp puts it, whatever changes on the way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from pipelines.media.container import demux_packets, find_sound_stream, open_container
from pipelines.media.ffmpeg_failure import is_disk_error

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

    from pipelines.media.probe_schema import Probe

SOUND_TIMESTAMP_TOLERANCE_SECONDS = 0.02
"""Seconds by which a frame may begin off the end of the one before it, since stamps are rounded. More is a
hole or an overlap."""
MAX_SOUND_AFTER_PICTURE_SECONDS = 10
"""Seconds of silence, at most, between the end of the picture and sound: a stamp beyond is damaged."""


def decode_timed_sound_blocks(
    path: Path, probed: Probe, rate: int, layout: str, from_second: int = 0, mixing: str = ""
) -> Iterator[tuple[int, np.ndarray]]:
    """A probed file's sound at `rate` -> (index of the first sample, counted from the file's start; samples
    (C,N) float32), in the order of the file.

    Stretches that follow each other in one form come without a gap. from_second: where the sound that is
    asked for begins; some may come from before. mixing: further options of ffmpeg's resampler.
    """
    stretch: _Stretch | None = None
    for second, frame in _frames(path, probed, from_second):
        if stretch is not None and not stretch.continues_with(second, frame):
            yield from stretch.flush()
            stretch = None
        if stretch is None:
            stretch = _Stretch(second, frame, rate, layout, mixing)
        yield from stretch.resample(frame)
    if stretch is not None:
        yield from stretch.flush()


def assemble_sound_blocks(
    blocks: Iterator[tuple[int, np.ndarray]], channels: int, picture: int, far: int
) -> Iterator[np.ndarray]:
    """Placed blocks -> samples (C,N) one after the other from the file's start: silence in holes; of an
    overlap, what came first. picture: samples until the picture ends. far: how many may be silent after it.
    """
    at = 0
    for begin, block in blocks:
        if begin > max(at, picture) + far:
            continue
        while begin > at:
            hole = min(begin - at, far)
            yield np.zeros((channels, hole), np.float32)
            at += hole
        block = block[:, at - begin :]
        if block.shape[1]:
            yield block
            at += block.shape[1]


def decode_timed_sound_frames(
    container: InputContainer, stream: AudioStream, zero: Fraction
) -> Iterator[tuple[Fraction, AudioFrame]]:
    """Every frame of a sound stream that can be decoded, and the second after `zero` at which it begins.

    Damaged sound is a hole, not the end.
    """
    end = Fraction(0)
    for packet in _packets(container, stream):
        for frame in _frames_of(packet):
            # at a change, ffmpeg's MPEG audio decoder still gives a frame the rate of the one before
            frame.sample_rate = stream.codec_context.sample_rate
            if frame.pts is not None:
                assert frame.time_base is not None  # it has a stamp
                end = frame.pts * frame.time_base - zero
            yield end, frame
            end += Fraction(frame.samples, frame.sample_rate)


def audio_frame_format(frame: AudioFrame) -> tuple[int, str, str]:
    """What a resampler is made for."""
    return frame.sample_rate, frame.layout.name, frame.format.name


def container_start_seconds(probed: Probe) -> Fraction:
    """The second of a probed file's stamps that counts as 0."""
    return Fraction(probed["start"]).limit_denominator(1_000_000)


def _frames(path: Path, probed: Probe, from_second: int) -> Iterator[tuple[Fraction, AudioFrame]]:
    """The frames from a second on; all of them where the file's index leads past it."""
    from av.error import FFmpegError

    zero = container_start_seconds(probed)
    with open_container(path) as container:
        if from_second:
            with suppress(FFmpegError):  # it stays where it is, at the start
                container.seek(math.floor((from_second - 1 + zero) * 1_000_000))
        frames = decode_timed_sound_frames(container, find_sound_stream(container, probed), zero)
        first = next(frames, None)
        if first is not None and (not from_second or first[0] <= from_second):
            yield first
            yield from (found for found in frames if found[0] >= from_second - 1)
            return
    if from_second:
        yield from _frames(path, probed, 0)


def _packets(container: InputContainer, stream: AudioStream) -> Iterator[Packet]:
    from av.error import FFmpegError

    try:
        yield from demux_packets(container, stream)
    except FFmpegError as error:
        if is_disk_error(error, Path(container.name.removeprefix("file:"))):
            raise


def _frames_of(packet: Packet) -> list[AudioFrame]:
    from av.error import FFmpegError

    try:
        return cast("list[AudioFrame]", packet.decode())
    except FFmpegError:  # of whatever number: no decoder reads from a disk
        return []


class _Stretch:
    """Frames of one form that follow each other, resampled.

    Both rates have a sample at every 1/shared second. Silence leads from one of these to the first frame, so
    that the samples do not depend on where reading began.
    """

    def __init__(self, second: Fraction, frame: AudioFrame, rate: int, layout: str, mixing: str):
        from av.filter import Graph

        self._form, self._end = audio_frame_format(frame), second
        own, layout_in, format_in = self._form
        shared = math.gcd(own, rate)
        tick = math.floor(second * shared)
        self._at = tick * rate // shared
        silent = round((second - Fraction(tick, shared)) * own)
        self._graph = graph = Graph()
        source = graph.add_abuffer(
            format=format_in, sample_rate=own, layout=layout_in, time_base=Fraction(1, own)
        )
        delayed = [graph.add("adelay", f"delays={silent}S:all=1")] if silent else []
        resampler = graph.add("aresample", ":".join(filter(None, [str(rate), mixing])))
        formed = graph.add("aformat", f"sample_fmts=fltp:channel_layouts={layout}:sample_rates={rate}")
        graph.link_nodes(source, *delayed, resampler, formed, graph.add("abuffersink")).configure()
        self._pushed = 0

    def continues_with(self, second: Fraction, frame: AudioFrame) -> bool:
        """Whether a frame follows the ones before it."""
        return (
            audio_frame_format(frame) == self._form
            and abs(second - self._end) <= SOUND_TIMESTAMP_TOLERANCE_SECONDS
        )

    def resample(self, frame: AudioFrame) -> Iterator[tuple[int, np.ndarray]]:
        """What is ready once a frame is there."""
        frame.pts, frame.time_base = self._pushed, Fraction(1, frame.sample_rate)
        self._pushed += frame.samples
        self._end += Fraction(frame.samples, frame.sample_rate)
        self._graph.push(frame)
        yield from self._ready()

    def flush(self) -> Iterator[tuple[int, np.ndarray]]:
        """What is left at the end."""
        self._graph.push(None)
        yield from self._ready()

    def _ready(self) -> Iterator[tuple[int, np.ndarray]]:
        from av.error import BlockingIOError, EOFError

        with suppress(BlockingIOError, EOFError):  # it wants more, or gave all
            while True:
                block = self._graph.pull().to_ndarray()
                yield self._at, block
                self._at += block.shape[1]
