"""Running ffmpeg: one process a span, its output read as it comes, its log beside it."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipelines.errors import Transient
from pipelines.media.ffmpeg_failure import ProcessResult, diagnose_ffmpeg_failure, ffmpeg_start_error
from pipelines.media.ffmpeg_tool import find_ffmpeg
from storage.errors import StoreError

if TYPE_CHECKING:
    from pipelines.media.filters import FfmpegOutputNode, FilterStream
    from pipelines.media.probe_schema import Probe

INPUT_FORMATS = (
    "mov,mp4,m4a,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,live_flv,asf,ogg,h264,hevc,av1,ivf,mxf,"
    "rm,dv,nut,y4m,yuv4mpegpipe,gif,3gp,wav,aac,mp3,flac"
)
"""The containers that are read. Play lists and other formats that name further files are not among them."""
PIPE_BYTES = 2**20
LOG_TAIL_LINES = 50
"""Lines of a log that are kept for the case that ffmpeg fails."""
MAX_PIXELS = 64_000_000
"""Of a picture or a video's frame: twice 8K video, more than any common camera. A file of a few kilobytes can
hold more than a machine has memory for, so sizes are looked at before anything is decoded."""
INPUT_OPTIONS = {
    "threads": 1,
    "max_pixels": MAX_PIXELS,
    "flags": "bitexact",
    "format_whitelist": INPUT_FORMATS,
    "protocol_whitelist": "file",
}


class SupportsCopyToPath(Protocol):
    """A member of a shard that is too large to hold (`storage.shards.LazyMember`)."""

    def copy_to(self, path: Path) -> None: ...


def ffmpeg_path() -> str:
    """Of the ffmpeg that is used."""
    return find_ffmpeg().path


def ffmpeg_version() -> str:
    """First line of its banner: part of the key of every node that decodes."""
    return find_ffmpeg().version


def packaged_ffmpeg_reason() -> str:
    """Why it is not the one on PATH, in a line; "" where there is no need to say so."""
    return find_ffmpeg().instead


def run_ffmpeg(output: FfmpegOutputNode, timeout: float) -> tuple[bytes, str]:
    """Run an ffmpeg-python output node -> all it wrote to its pipe, and its log."""
    with FfmpegOutputPipe(output, timeout) as pipe:
        data = pipe.read()
    return data, "\n".join(pipe.read_log_lines())


class FfmpegOutputPipe:
    """A running ffmpeg whose output is read as it comes.

    timeout: seconds that may be spent waiting for it, all together; what the reader does between two reads
    does not count. Raises what `diagnose_ffmpeg_failure` finds where ffmpeg fails, Transient (after killing
    it) where it is late.
    """

    def __init__(self, output: FfmpegOutputNode, timeout: float):
        import ffmpeg

        # repeat: else equal lines become one, unless another thread's comes between: not the same in each run
        node = output.global_args(
            "-nostdin", "-hide_banner", "-nostats", "-loglevel", "repeat+info", "-filter_complex_threads", "1"
        )
        self.command = ffmpeg.compile(node, cmd=ffmpeg_path())
        self._timeout = timeout
        self._left = timeout
        self._rest = b""
        self._log_read = 0
        self._tail: deque[str] = deque(maxlen=LOG_TAIL_LINES)

    def __enter__(self) -> FfmpegOutputPipe:
        try:
            self._errors = tempfile.TemporaryFile()
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0
            )
        except OSError as error:
            raise ffmpeg_start_error(error) from error
        assert self._process.stdout is not None
        self._out = self._process.stdout.fileno()
        os.set_blocking(self._out, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):  # Linux: a frame in one or two turns, not in one for every 64 KiB
            with suppress(PermissionError):  # the user's pipes hold all that they may
                fcntl.fcntl(self._out, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._ready = select.poll()
        self._ready.register(self._out, select.POLLIN)
        return self

    def read_into(self, buffer: memoryview) -> int:
        """The next bytes of its output, written over a buffer -> how many: as many as it holds, fewer only
        at the end."""
        view, at = buffer.cast("B"), 0
        while at < len(view) and (count := self._some(view[at:])):
            at += count
        return at

    def read(self) -> bytes:
        """All that is left of its output."""
        parts: list[bytes] = []
        buffer = memoryview(bytearray(PIPE_BYTES))
        while count := self.read_into(buffer):
            parts.append(bytes(buffer[:count]))
        return b"".join(parts)

    def _some(self, view: memoryview) -> int:
        """What is there, once something is -> bytes read, 0 at the end."""
        try:
            return os.readv(self._out, [view])
        except BlockingIOError:
            began = time.monotonic()
            ready = self._ready.poll(max(1.0, 1000 * self._left))
            self._left -= time.monotonic() - began
            if not ready or self._left <= 0:
                raise self._late() from None
            return os.readv(self._out, [view])

    def read_log_lines(self) -> list[str]:
        """The lines that ffmpeg has logged since this was last asked; all of them are there at the end."""
        data = b""
        if not self._errors.closed:
            # pread: the position of this file is where ffmpeg writes
            while part := os.pread(self._errors.fileno(), 2**20, self._log_read):
                self._log_read += len(part)
                data += part
        lines = (self._rest + data).decode(errors="replace").split("\n")
        self._rest = lines.pop().encode()
        self._tail += lines
        return lines

    def check_log_writable(self) -> None:
        """StoreError where the disk that holds the log takes no more: lines may be missing."""
        try:
            os.write(self._errors.fileno(), b"\n" * 2**16)
        except OSError as error:
            raise StoreError(f"cannot write into {tempfile.gettempdir()}: {error.strerror}") from error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._process.stdout is not None
        try:
            if kind is not None:
                self._process.kill()
            self._process.stdout.close()
            status = self._wait()
            unread = self.read_log_lines()
        finally:
            self._errors.close()
        self._rest = "\n".join([*unread, self._rest.decode()]).encode()
        if kind is None and status:
            raise diagnose_ffmpeg_failure(self.command, ProcessResult(status, list(self._tail)))

    def _wait(self) -> int:
        try:
            return self._process.wait(max(1.0, self._left))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise self._late() from None

    def _late(self) -> Transient:
        return Transient(f"ffmpeg ran longer than {self._timeout:.0f} s: {' '.join(self.command)}")


def ffmpeg_input_name(path: Path) -> str:
    """A file as ffmpeg's -i takes it: absolute, since it reads 12:30.mp4 as a protocol's name and a path."""
    return str(path.absolute())


def shift_times_to_file_start(stream: FilterStream, setter: str, probed: Probe) -> FilterStream:
    """An ffmpeg-python stream read with copyts, its times counted from the file's start (setpts, asetpts).

    ffmpeg's own start_at_zero counts each stream of a transport stream from its own start when it reads them
    apart.
    """
    start = probed.get("start", 0.0)
    return stream.filter(setter, f"PTS-({start:.6f})/TB") if start else stream


def ffmpeg_timeout(seconds: float) -> float:
    """Seconds until ffmpeg counts as hung on a video this long: 25 times slower than the slowest decode
    measured (720p, busy machine)."""
    return 120 + 5 * seconds


@contextmanager
def open_as_local_file(video: bytes | Path | SupportsCopyToPath) -> Iterator[Path]:
    """A recording as a local file for ffmpeg, which must seek in it; a copy goes with the with-block."""
    if isinstance(video, Path):
        yield video
        return
    with tempfile.TemporaryDirectory(prefix="reenact-") as folder:
        path = Path(folder) / "recording.video"
        if isinstance(video, bytes):
            path.write_bytes(video)
        else:
            video.copy_to(path)
        yield path
