"""Reading video and sound: what a file holds, its frames by timestamp, its sound on the same clock.

Decoding runs in an ffmpeg process with a time-out, so that a broken file cannot take a worker with it;
probing demuxes with PyAV, because the ffmpeg wheel brings no ffprobe. Times are seconds from the start of the
file.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pipelines.engine.node import Rejected

T = TypeVar("T")

FPS = 25
"""The clock of every clip: frame k shows the source at k / 25 seconds."""
SOUND_RATE = 16_000
SAMPLES_A_FRAME = SOUND_RATE // FPS
SEEK_MARGIN = 0.5
"""Seconds read on either side of a span, so that the nearest frame to its ends is among those decoded."""


# --- ffmpeg -------------------------------------------------------------------------------------------------
@cache
def ffmpeg_path() -> str:
    """The ffmpeg on PATH, else the one in the imageio-ffmpeg wheel."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


@cache
def ffmpeg_version() -> str:
    """First line of `ffmpeg -version`: part of the key of every node that decodes."""
    done = subprocess.run(
        [ffmpeg_path(), "-version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()[0]


def run_ffmpeg(output: Any, timeout: float) -> tuple[bytes, str]:
    """Run an ffmpeg-python output node -> all it wrote to its pipe, and its log."""
    with FfmpegPipe(output, timeout) as pipe:
        data = pipe.read()
    return data, pipe.log


class FfmpegPipe:
    """A running ffmpeg whose output is read as it comes; its log is there once the with-block has ended well.

    Raises Rejected where ffmpeg gives the file up, TimeoutError (after killing it) where it does not end in
    time.
    """

    def __init__(self, output: Any, timeout: float):
        import ffmpeg

        node = output.global_args("-nostdin", "-hide_banner", "-nostats", "-filter_complex_threads", "1")
        self._command = ffmpeg.compile(node, cmd=ffmpeg_path())
        self._timeout = timeout
        self._late = False
        self.log = ""

    def __enter__(self) -> FfmpegPipe:
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors
        )
        self._watch = threading.Timer(self._timeout, self._kill)
        self._watch.start()
        return self

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, fewer at the end; all that is left by default."""
        assert self._process.stdout is not None
        return self._process.stdout.read(size)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                self._process.kill()
            status = self._process.wait()
            self._errors.seek(0)
            self.log = self._errors.read().decode(errors="replace")
        finally:
            self._watch.cancel()
            self._errors.close()
            assert self._process.stdout is not None
            self._process.stdout.close()
        if self._late:
            raise TimeoutError(f"ffmpeg ran longer than {self._timeout:.0f} s: {' '.join(self._command)}")
        if kind is None and status:
            raise Rejected("undecodable", f"ffmpeg ended with status {status}: {_last_line(self.log)}")

    def _kill(self) -> None:
        self._late = True
        self._process.kill()


def _last_line(log: str) -> str:
    """Without addresses and file names: a reject's sentence must not differ from run to run."""
    lines = log.strip().splitlines()
    return re.sub(r"0x[0-9a-f]+|/\S+", "...", lines[-1]) if lines else "no message"


def _passthrough() -> dict[str, str]:
    """One output frame for each decoded one. `-vsync` became `-fps_mode` in ffmpeg 5.1, and went later."""
    number = re.search(r"version n?(\d+)\.(\d+)", ffmpeg_version())
    old = number is not None and (int(number[1]), int(number[2])) < (5, 1)
    return {"vsync" if old else "fps_mode": "passthrough"}


@contextmanager
def as_file(video: bytes) -> Iterator[Path]:
    """The bytes of a recording as a file for ffmpeg, which must seek in it."""
    with tempfile.NamedTemporaryFile(prefix="reenact-", suffix=".video") as file:
        file.write(video)
        file.flush()
        yield Path(file.name)


# --- what a file holds --------------------------------------------------------------------------------------
def probe(path: Path, name: str | None = None) -> dict[str, Any]:
    """width, height (as shown, after rotation), fps, frames, seconds, audio_rate (0 = no sound), container,
    video_codec.

    Demuxes the whole file and decodes one frame; raises Rejected: empty, unreadable, no_video, zero_duration,
    truncated, undecodable. name: what to call the file in the sentence, if not by its name.
    """
    import av
    import av.error

    name = name or path.name
    if path.stat().st_size == 0:
        raise Rejected("empty", f"{name} holds 0 bytes")
    try:
        with av.open(str(path), metadata_errors="replace") as container:
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
    begins, ends, sounds = _packet_times(container, [video, sound] if sound else [video])
    if len(begins) < 2 or ends[-1] - begins[0] <= 0:
        raise Rejected("zero_duration", f"{name} holds {len(begins)} frames: no duration")
    start = container.start_time / 1_000_000 if container.start_time is not None else begins[0]
    seconds = max(ends) - start
    promised = container.duration / 1_000_000 if container.duration else 0.0
    # mp4 counts its frames and Matroska states its length in the header: a cut file holds less than they
    # promise
    short = len(begins) < 0.95 * video.frames or (
        not sounds and promised - seconds > max(1.0, 0.1 * promised)
    )
    if short or (sounds and promised - max(seconds, sounds[-1] - start) > max(1.0, 0.1 * promised)):
        raise Rejected(
            "truncated",
            f"{name} promises {video.frames} frames and {promised:.2f} s, "
            f"but holds {len(begins)} frames and {seconds:.2f} s",
        )
    width, height = _shown_size(container, video, name)
    return {
        "width": width,
        "height": height,
        "fps": round(float(video.average_rate or (len(begins) - 1) / (begins[-1] - begins[0])), 6),
        "frames": len(begins),
        "seconds": round(seconds, 6),
        "audio_rate": int(sound.rate) if sound and sounds else 0,
        "container": container.format.name,
        "video_codec": video.codec_context.name,
    }


def _packet_times(container: Any, streams: Sequence[Any]) -> tuple[list[float], list[float], list[float]]:
    """Begin and end of every video frame in order of display, begin of every sound packet; seconds."""
    spans: list[tuple[float, float]] = []
    sounds: list[float] = []
    frame = float(1 / streams[0].average_rate) if streams[0].average_rate else 1 / FPS
    for packet in container.demux(*streams):
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
    return [b for b, _ in spans], [e for _, e in spans], sorted(sounds)


def _shown_size(container: Any, video: Any, name: str) -> tuple[int, int]:
    """Width and height as ffmpeg's filters see them: turned upright, pixels made square."""
    container.seek(0)
    video.codec_context.thread_count = 1
    first = next(container.decode(video), None)
    if first is None:
        raise Rejected("undecodable", f"no frame of {name} can be decoded")
    width, height = first.width, first.height
    aspect = video.sample_aspect_ratio
    if aspect and aspect != 1:
        width = max(2, round(width * float(aspect) / 2) * 2)
    return (height, width) if first.rotation % 180 else (width, height)


def frames_at_25(probed: Mapping[str, Any]) -> int:
    """How many frames of the 25 fps clock a probed recording covers."""
    return max(1, round(probed["seconds"] * FPS))


# --- frames -------------------------------------------------------------------------------------------------
def read_frames(
    path: Path,
    probed: dict[str, Any],
    size: tuple[int, int],
    crop: tuple[int, int, int, int] | None = None,
    span: tuple[float, float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Decoded frames -> (n,H,W,3) uint8 RGB of `size` (W,H), and their times (n,) in seconds.

    crop: x0, y0, x1, y1 in pixels of the shown frame, cut before colours are converted. span: only these
    seconds (and a margin).
    """
    data, log = run_ffmpeg(_frames_out(path, probed, size, crop, span, 1), _patience(probed))
    frames = np.frombuffer(data, np.uint8).reshape(-1, size[1], size[0], 3)
    return frames, _frame_times(log, len(frames))


def map_frames(
    path: Path,
    probed: dict[str, Any],
    size: tuple[int, int],
    every: int,
    function: Callable[[np.ndarray], Sequence[T]],
    batch: int = 32,
) -> tuple[list[T], np.ndarray]:
    """Apply `function` to batches (n,H,W,3) of each `every`th decoded frame and the last, in bounded memory.

    Returns what it gave for each frame, and the frames' times in seconds.
    """
    results: list[T] = []
    frame = size[0] * size[1] * 3
    with FfmpegPipe(_frames_out(path, probed, size, None, None, every), _patience(probed)) as pipe:
        while data := pipe.read(batch * frame):
            results += function(np.frombuffer(data, np.uint8).reshape(-1, size[1], size[0], 3))
    return results, _frame_times(pipe.log, len(results))


def _patience(probed: dict[str, Any]) -> float:
    """Seconds until ffmpeg counts as hung: 25 times slower than the slowest decode measured (720p, busy
    machine)."""
    return 120 + 5 * probed["seconds"]


def _frames_out(
    path: Path,
    probed: dict[str, Any],
    size: tuple[int, int],
    crop: tuple[int, int, int, int] | None,
    span: tuple[float, float] | None,
    every: int,
) -> Any:
    import ffmpeg

    reading: dict[str, Any] = {"threads": 1, "flags": "bitexact"}
    if span is not None and span[0] > SEEK_MARGIN:
        reading["ss"] = f"{span[0] - SEEK_MARGIN:.3f}"
    if span is not None:
        reading["t"] = f"{span[1] - span[0] + 2 * SEEK_MARGIN:.3f}"
    stream = ffmpeg.input(str(path), copyts=None, start_at_zero=None, **reading).video
    if every > 1:
        stream = stream.filter("select", f"not(mod(n,{every}))+gte(n,{probed['frames'] - 1})")
    stream = _scaled(stream, probed, size, crop).filter("showinfo", checksum=0)
    return ffmpeg.output(stream, "pipe:", format="rawvideo", pix_fmt="rgb24", threads=1, **_passthrough())


def _scaled(
    stream: Any, probed: dict[str, Any], size: tuple[int, int], crop: tuple[int, int, int, int] | None
) -> Any:
    # square pixels first, so that crop boxes mean the frame as shown; a no-op for nearly every file
    stream = stream.filter("scale", probed["width"], probed["height"], flags="bicubic+accurate_rnd+bitexact")
    shown = (probed["width"], probed["height"])
    if crop is not None:
        x0, y0, x1, y1 = crop
        stream = stream.filter("crop", x1 - x0, y1 - y0, x0, y0)
        shown = (x1 - x0, y1 - y0)
    # averaging areas keeps thin structure when shrinking; it would show blocks when enlarging
    kernel = "area" if size[0] <= shown[0] else "bicubic"
    return stream.filter("scale", *size, flags=f"{kernel}+accurate_rnd+full_chroma_int+bitexact")


def _frame_times(log: str, frames: int) -> np.ndarray:
    """Presentation times that the showinfo filter printed; its pts_time has six digits only, so pts is
    used."""
    base = re.search(r"config in time_base: (\d+)/(\d+)", log)
    ticks = re.findall(r"showinfo[^\n]*\] n: *\d+ pts: *(-?\d+) ", log)
    if base is None or len(ticks) < frames or not frames:
        raise Rejected("undecodable", f"ffmpeg gave {frames} frames with {len(ticks)} timestamps")
    return np.array([int(t) for t in ticks[:frames]], np.float64) * int(base[1]) / int(base[2])


def nearest(times: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Index of the frame nearest to each tick start..stop-1 of the 25 fps clock; the earlier one on a tie."""
    clock = np.arange(start, stop) / FPS
    right = (
        np.clip(np.searchsorted(times, clock), 1, len(times) - 1)
        if len(times) > 1
        else np.zeros(len(clock), int)
    )
    left = np.maximum(right - 1, 0)
    return np.where(clock - times[left] <= times[right] - clock + 1e-6, left, right)


# --- sound --------------------------------------------------------------------------------------------------
def read_sound(path: Path, probed: dict[str, Any]) -> np.ndarray:
    """The whole sound -> (n,) float32 in [-1,1], 16 kHz mono, sample 0 at second 0; silence when there is
    none."""
    import ffmpeg

    wanted = frames_at_25(probed) * SAMPLES_A_FRAME
    if not probed["audio_rate"]:
        return np.zeros(wanted, np.float32)
    stream = ffmpeg.input(str(path), threads=1, flags="bitexact").audio
    stream = stream.filter(
        "aresample", SOUND_RATE, **{"async": 1, "first_pts": 0}
    )  # pads a late start with silence
    stream = stream.filter("aformat", channel_layouts="mono", sample_fmts="flt")
    output = ffmpeg.output(stream, "pipe:", format="f32le", ar=SOUND_RATE, threads=1)
    data, _ = run_ffmpeg(output, _patience(probed))
    return fit_length(np.frombuffer(data, "<f4"), wanted)


def fit_length(sound: np.ndarray, samples: int) -> np.ndarray:
    """Cut or padded with zeros to exactly so many samples, within [-1,1]."""
    out = np.zeros(samples, np.float32)
    out[: min(samples, len(sound))] = np.clip(sound[:samples], -1, 1)
    return out
