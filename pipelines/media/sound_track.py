"""The sound of a video for an mp4: copied bit by bit where that plays as before, else encoded as AAC.

It is made and tried before the first picture is, so that no sound ends a long rendering.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from pipelines.media.clock import nearest_frames
from pipelines.media.container import demux_packets, find_sound_stream, open_container, stream_time_base
from pipelines.media.ffmpeg_failure import is_disk_error
from pipelines.media.timed_sound import (
    MAX_SOUND_AFTER_PICTURE_SECONDS,
    assemble_sound_blocks,
    audio_frame_format,
    container_start_seconds,
    decode_timed_sound_blocks,
    decode_timed_sound_frames,
)

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet

    from pipelines.media.probe_schema import Probe

COPIED_SOUND_CODECS = ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac")
"""Sound that players expect in mp4; any other is encoded as AAC."""
AAC_SAMPLE_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
AAC_BIT_RATE = 192_000
TIME_TOLERANCE = 0.002
"""Seconds by which the time of a copied frame may differ: stamps are rounded."""
UNCOMPARED_SOUND_EDGE_SECONDS = 0.1
"""Seconds at both ends of a copy that are not compared: decoders begin and end differently."""
ENCODED_AAC_FILE_PROBE = cast("Probe", {"audio_index": 0, "start": 0.0})
"""What is known of a file that was written here."""
MIN_SAME_LOUDNESS_SHARE = 0.95
"""Share of a copy's frames, at least, that are as loud as they were; decoders make up noise."""


class Mp4SoundTrack:
    """The sound of a probed file as packets for an mp4. What was encoded lies in a temporary folder until
    `close`."""

    def __init__(self, path: Path, probed: Probe):
        self._folder = tempfile.TemporaryDirectory(prefix="reenact-")
        file = Path(self._folder.name) / "sound.mp4"
        with open_container(path) as container:
            stream = find_sound_stream(container, probed)
            self.base = Fraction(stream_time_base(stream))
            """Seconds of one unit of the file's own stamps"""
            self.codec = stream.codec_context.codec.canonical_name
        self.summary, self._source = self._prepare(path, probed, file)
        self._container: InputContainer | None = None
        self._packets: Iterator[Packet] = iter(())
        self._next: Packet | None = None

    def _prepare(self, path: Path, probed: Probe, file: Path) -> tuple[str, tuple[Path, Probe] | None]:
        """What is done with the sound, and the probed file that holds its packets; None: there is none."""
        from av.error import FFmpegError

        frames = measure_sound_frames(path, probed)
        if not frames:
            return f"no sound: none of its {self.codec} can be decoded", None
        problem = try_sound_stream_copy(path, probed, self.codec, frames, file)
        if problem is None:
            return f"sound copied ({self.codec})", (path, probed)
        try:
            _encode_sound(path, probed, frames, file)
        except FFmpegError as error:
            if is_disk_error(error, path):
                raise
            return f"no sound: its {self.codec} cannot be encoded as AAC: {error.strerror}", None
        return f"sound encoded as AAC (was {self.codec}{problem})", (file, ENCODED_AAC_FILE_PROBE)

    def add_to_container(self, output: OutputContainer) -> None:
        """Give an output container a stream for it."""
        if self._source is not None:
            path, probed = self._source
            self._container = open_container(path)
            self._packets = _packets(self._container, probed, output)
            self._next = next(self._packets, None)

    def take_packets_before(self, second: float) -> Iterator[Packet]:
        """The packets, not given out yet, that begin before a second."""
        while self._next is not None:
            assert self._next.dts is not None  # _shift_times
            assert self._next.time_base is not None
            if self._next.dts * self._next.time_base >= second:
                return
            yield self._next
            self._next = next(self._packets, None)

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        self._folder.cleanup()


def _packets(container: InputContainer, probed: Probe, output: OutputContainer) -> Iterator[Packet]:
    """A new stream of the output and all packets for it, timed from the start of the probed file."""
    source = find_sound_stream(container, probed)
    stream = output.add_stream_from_template(source)
    return _shift_times(
        demux_packets(container, source),
        round(container_start_seconds(probed) / stream_time_base(source)),
        stream,
    )


def _shift_times(packets: Iterator[Packet], zero: int, stream: AudioStream) -> Iterator[Packet]:
    last: float = -math.inf
    for packet in packets:
        if not packet.size or packet.dts is None or packet.dts <= last:
            continue  # a damaged file may step back, which no mp4 can
        last = packet.dts
        packet.dts -= zero
        packet.pts = packet.dts if packet.pts is None else packet.pts - zero
        packet.stream = stream
        yield packet


# --- what is heard ------------------------------------------------------------------------------------------
class AudioFrameStats(NamedTuple):
    """A decoded frame of sound."""

    second: float
    form: tuple[int, str, str]
    """Rate, layout, sample format"""
    channels: int
    level: float
    """Mean of its samples' magnitude"""


def measure_sound_frames(path: Path, probed: Probe) -> list[AudioFrameStats]:
    """All frames of a probed file's sound that can be decoded."""
    with open_container(path) as container:
        stream = find_sound_stream(container, probed)
        return [
            AudioFrameStats(
                float(second),
                audio_frame_format(frame),
                frame.layout.nb_channels,
                _level(frame),
            )
            for second, frame in decode_timed_sound_frames(container, stream, container_start_seconds(probed))
        ]


def _level(frame: AudioFrame) -> float:
    """0 of samples of 64-bit integers, which PyAV does not hand out: sound that is copied has none."""
    if frame.format.name.startswith("s64"):
        return 0.0
    return float(np.abs(frame.to_ndarray().astype(np.float32)).mean())


def is_sound_copy_faithful(wanted: Sequence[AudioFrameStats], found: Sequence[AudioFrameStats]) -> bool:
    """Whether the frames of a copy sound as the original's, at the same times."""
    if not found:
        return False
    inner = [
        one
        for one in wanted
        if UNCOMPARED_SOUND_EDGE_SECONDS <= one.second <= wanted[-1].second - UNCOMPARED_SOUND_EDGE_SECONDS
    ]
    seconds = np.array([one.second for one in found])
    begins = np.array([one.second for one in inner])
    at = nearest_frames(seconds, begins)
    late = np.abs(seconds[at] - begins)
    levels = np.array([one.level for one in inner])
    gaps = np.abs(np.array([found[k].level for k in at]) - levels)
    loud = gaps <= 0.1 * levels + 0.01 * levels.max(initial=0)
    same = all(one.form == wanted[0].form for one in found)
    return (
        same
        and bool((late <= TIME_TOLERANCE).all())
        and (not inner or bool(loud.mean() >= MIN_SAME_LOUDNESS_SHARE))
    )


# --- copied -------------------------------------------------------------------------------------------------
def try_sound_stream_copy(
    path: Path, probed: Probe, codec: str, frames: Sequence[AudioFrameStats], out: Path
) -> str | None:
    """Try a copy -> None where it plays as the original does, else why there is none."""
    from av.error import FFmpegError

    if codec not in COPIED_SOUND_CODECS:
        return ""
    if any(one.form != frames[0].form for one in frames):
        return ", which changes on the way"
    try:
        _copy_sound(path, probed, out)
        if is_sound_copy_faithful(frames, measure_sound_frames(out, ENCODED_AAC_FILE_PROBE)):
            return None
    except (FFmpegError, ValueError) as error:
        if is_disk_error(error, path):
            raise
        return f", which mp4 does not take: {getattr(error, 'strerror', None) or error}"
    return ", of which a copy does not play as it did"


def _copy_sound(path: Path, probed: Probe, out: Path) -> None:
    with open_container(path) as container:
        base = stream_time_base(find_sound_stream(container, probed))
        with _new_file(out, base) as file:
            for packet in _packets(container, probed, file):
                file.mux(packet)


# --- encoded ------------------------------------------------------------------------------------------------
def _encode_sound(path: Path, probed: Probe, frames: Sequence[AudioFrameStats], out: Path) -> None:
    import av

    wanted = max(one.form[0] for one in frames)
    rate = min(AAC_SAMPLE_RATES, key=lambda own: abs(own - wanted))
    layout = "mono" if all(one.channels == 1 for one in frames) else "stereo"
    channels = 1 if layout == "mono" else 2
    picture = round(probed["seconds"] * rate)
    with _new_file(out, Fraction(1, rate)) as file:
        stream = file.add_stream("aac", rate=rate, layout=layout)
        stream.bit_rate, stream.options = AAC_BIT_RATE, {"flags": "+bitexact"}
        at = 0
        for block in assemble_sound_blocks(
            decode_timed_sound_blocks(path, probed, rate, layout),
            channels,
            picture,
            MAX_SOUND_AFTER_PICTURE_SECONDS * rate,
        ):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), "fltp", layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
            at += block.shape[1]
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def _new_file(out: Path, base: Fraction) -> OutputContainer:
    """A new mp4 whose times are exact in units of `base` seconds."""
    import av

    options = {"fflags": "+bitexact", "movie_timescale": str(base.denominator)}
    return av.open(f"file:{out}", "w", format="mp4", options=options)
