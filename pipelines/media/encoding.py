"""Writing an mp4 that runs as another video does: the same times, the same sound, one frame for each of its
frames. The same frames give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.media.container import demux_packets, open_container, stream_time_base
from pipelines.media.sound_track import Mp4SoundTrack

if TYPE_CHECKING:
    from av.packet import Packet

ENCODER_THREADS = 4
"""Of the encoder: fixed, since x264's output depends on their number."""
X264_OPTIONS: dict[str, object] = {"preset": "medium", "flags": "+bitexact", "x264-params": "mbtree=0"}
"""Without macroblock trees: with them, the same frames gave different files now and then."""
BT709_CODE = 1
"""ITU-T H.273: primaries, transfer curve and matrix of HD video. Written into the file, so that players need
not guess from the size."""
MIN_TIMESCALE = 10_000
"""Units a second, at least, of a grid that the file's own units do not hold."""
MAX_VIDEO_TIMESCALE = 50_000_000


@dataclass(frozen=True)
class FrameTimeline:
    """When each frame of a video is shown, exactly."""

    base: Fraction
    """Seconds of one unit"""
    stamps: tuple[int, ...]
    """Units from the start of the file (its first stream) at which each frame appears, ascending"""
    end: int
    """Units at which the last frame ends"""
    rate: Fraction
    """Frames a second; the mean where the video has no constant rate"""
    constant: bool

    @property
    def seconds(self) -> np.ndarray:
        """(T,) float64"""
        return np.array(self.stamps) * float(self.base)

    @cached_property
    def midpoints(self) -> np.ndarray:
        """(T-1,) seconds half way between two frames"""
        return (self.seconds[1:] + self.seconds[:-1]) / 2

    @property
    def durations_by_stamp(self) -> dict[int, int]:
        """Units for which the frame of each time is shown."""
        return {begin: end - begin for begin, end in pairwise((*self.stamps, self.end))}

    def nearest_frame(self, second: float, after: int) -> int:
        """The frame, later than frame `after`, that is shown nearest to a second; the last frame if all are
        used."""
        at = int(np.searchsorted(self.midpoints, second))
        return min(max(after + 1, at), len(self.stamps) - 1)


def read_timeline(path: Path, start: float, index: int | None = None) -> FrameTimeline:
    """The times of a probed file's video frames; `start`: the second of its stamps that counts as 0. index:
    of the stream; None: the first that is a video.

    Where all stamps lie on the grid of a constant rate, rounded to the file's own units (Matroska counts
    milliseconds), the grid itself is taken: 29.97 frames a second stay 30000/1001.
    """
    with open_container(path) as container:
        videos = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
        video = videos[0] if index is None else container.streams[index]
        base = stream_time_base(video)
        spans = [
            (packet.pts, packet.duration or 0)
            for packet in demux_packets(container, video)
            if packet.pts is not None and packet.size and not packet.is_discard
        ]
        rates = [Fraction(r) for r in (video.average_rate, video.base_rate, video.guessed_rate) if r]
    zero = round(Fraction(start).limit_denominator(1_000_000) / base)
    stamps = sorted({pts - zero for pts, _ in spans})
    last = max(d for pts, d in spans if pts - zero == stamps[-1])
    for rate in rates:
        if (grid := _on_grid(stamps, base, rate)) is not None:
            return grid
    last = last or (stamps[-1] - stamps[0]) // max(1, len(stamps) - 1) or 1
    rate = Fraction(len(stamps), 1) / ((stamps[-1] + last - stamps[0]) * base)
    return FrameTimeline(base, tuple(stamps), stamps[-1] + last, rate.limit_denominator(10_000), False)


def _on_grid(stamps: Sequence[int], base: Fraction, rate: Fraction) -> FrameTimeline | None:
    """The frames at `rate`, if each lies within one unit of where the file says."""
    step = 1 / (rate * base)
    if any(abs(pts - stamps[0] - k * step) > min(1, step / 4) for k, pts in enumerate(stamps)):
        return None
    finer = Fraction(1, rate.numerator * (1 if rate.numerator >= MIN_TIMESCALE else 1000))
    fine = base if step.denominator == 1 else finer
    step, first = round(1 / (rate * fine)), round(stamps[0] * base / fine)
    grid = tuple(first + k * step for k in range(len(stamps)))
    return FrameTimeline(fine, grid, grid[-1] + step, rate, True)


# --- the file -----------------------------------------------------------------------------------------------
class Mp4Writer:
    """H.264 4:2:0 in an mp4 that starts to play before it is all there, with a video's times and sound.

    size: (W,H), even. tags: kept as they are (QuickTime metadata keys). sound: closed with the file. A
    with-block finishes the file; after an error the file is not whole.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        times: FrameTimeline,
        tags: Mapping[str, str],
        sound: Mp4SoundTrack | None = None,
        crf: int = 16,
    ):
        import av

        self.times, self._durations = times, times.durations_by_stamp
        timescale = _timescale(times.base, sound.base if sound else None)
        options = {
            "movflags": "+faststart+use_metadata_tags",
            "fflags": "+bitexact",
            "movie_timescale": str(timescale),
            "video_track_timescale": str(times.base.denominator),
        }
        self._container = av.open(f"file:{path}", "w", format="mp4", options=options)
        self._container.metadata.update(tags)
        self._video = self._container.add_stream("libx264", rate=times.rate.limit_denominator(100_000))
        self._video.width, self._video.height = size
        self._video.pix_fmt = "yuv420p"
        context = self._video.codec_context
        context.time_base, context.thread_count = times.base, ENCODER_THREADS
        context.colorspace = context.color_primaries = context.color_trc = BT709_CODE
        context.color_range = 1  # 16 to 235, as players expect of video
        # without B-frames where times are uneven: mp4 keeps the durations of frames in the order of decoding
        self._video.options = X264_OPTIONS | {"crf": str(crf)} | ({} if times.constant else {"bf": "0"})
        self.sound = sound
        if sound is not None:
            sound.add_to_container(self._container)

    def __enter__(self) -> Mp4Writer:
        return self

    def write(self, image: np.ndarray, at: int) -> None:
        """The image (H,W,3) uint8 RGB that is shown at the time of frame `at` of the timeline."""
        import av
        from av.video.reformatter import ColorRange, Colorspace

        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        frame.time_base, frame.pts = self.times.base, self.times.stamps[at]
        self._mux(self._video.encode(frame))

    def _mux(self, packets: Sequence[Packet]) -> None:
        for packet in packets:
            assert packet.pts is not None  # that of its frame
            packet.duration = self._durations[packet.pts]
            if self.sound is not None:
                for block in self.sound.take_packets_before(float(packet.pts * self.times.base)):
                    self._container.mux(block)
            self._container.mux(packet)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._mux(self._video.encode(None))
                if self.sound is not None:
                    for block in self.sound.take_packets_before(math.inf):
                        self._container.mux(block)
        finally:
            if self.sound is not None:
                self.sound.close()
            self._container.close()


class SinglePngWriter:
    """One picture in place of a video. tags: kept as its text."""

    sound = None

    def __init__(self, path: Path, tags: Mapping[str, str]):
        self.path, self.tags = path, tags

    def __enter__(self) -> SinglePngWriter:
        return self

    def write(self, image: np.ndarray, at: int) -> None:
        """image (H,W,3) uint8; a later one takes its place."""
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        about = PngInfo()
        for name, text in self.tags.items():
            about.add_itxt(name, text)
        Image.fromarray(image).save(self.path, format="PNG", pnginfo=about)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """The file is whole already."""


def _timescale(base: Fraction, of_sound: Fraction | None) -> int:
    """Units a second of the whole file, in which offsets of its tracks are kept: exact for both where it
    can."""
    both = math.lcm(base.denominator, of_sound.denominator) if of_sound else base.denominator
    return both if both <= MAX_VIDEO_TIMESCALE else base.denominator
