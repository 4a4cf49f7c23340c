"""Why an ffmpeg failed: the file, the tool, this machine or our own command. They are told apart here and
nowhere else, by evidence: an exit status alone says nothing of a file.
"""

from __future__ import annotations

import errno
import mmap
import re
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pipelines.errors import DISK_ERRORS, Rejected, Transient, UserError
from pipelines.media.ffmpeg_tool import find_packaged_ffmpeg
from storage.errors import StoreError

CRASH_SIGNALS = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP)
"""Signals that a process brings about itself; any other comes from outside."""
NO_DECODER_PATTERN = r"(?:no decoder found for: |Decoder \(codec )(\w+)"
ENOMEM_MESSAGE = "Cannot allocate memory"
EAGAIN_MESSAGE = "Resource temporarily unavailable"
MEMORY_PROBE_BYTES = 2**30
"""Bytes that a machine with memory has; a file for which they are too few asks for absurd amounts."""
FFMPEG_TEST_RUN_TIMEOUT = 60


class ProcessResult(NamedTuple):
    status: int
    """Below 0: the signal that ended it"""
    log: list[str]


def ffmpeg_start_error(error: OSError) -> Exception:
    """Of a tool that was there, and able, when this process looked."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return StoreError(f"cannot write into {tempfile.gettempdir()}: {error.strerror}")
    return Transient(f"ffmpeg cannot be started: {error.strerror}")


def diagnose_ffmpeg_failure(command: Sequence[str], done: ProcessResult) -> Exception:
    """What the failure of this command means."""
    path, line = Path(command[command.index("-i") + 1]), redact_paths(last_log_line(done.log))
    if was_killed_from_outside(done):
        return Transient(f"ffmpeg was stopped from outside (status {done.status})")
    if (error := find_read_error(path)) is not None:
        return Transient(f"the recording cannot be read: {error.strerror}")
    if found := re.search(NO_DECODER_PATTERN, "\n".join(done.log)):
        return _no_decoder(command[0], found[1])
    if ENOMEM_MESSAGE in line and not _memory_left():
        return Transient("ffmpeg cannot allocate memory")
    healthy = run_on_known_good_file(command)
    if healthy.status == 0:
        return Rejected("undecodable", f"ffmpeg ended with status {done.status}: {line}")
    return _not_the_file(command, healthy)


def _not_the_file(command: Sequence[str], healthy: ProcessResult) -> Exception:
    """What it means that a command fails on a healthy file too."""
    line = last_log_line(healthy.log)
    if was_killed_from_outside(healthy) or any(
        ENOMEM_MESSAGE in one or EAGAIN_MESSAGE in one for one in healthy.log
    ):
        return Transient(f"ffmpeg fails on a healthy file too (status {healthy.status}): {line}")
    reference = find_packaged_ffmpeg()
    if (
        reference is not None
        and reference != command[0]
        and not run_on_known_good_file([reference, *command[1:]]).status
    ):
        return UserError(
            f"{command[0]} fails on a healthy file (status {healthy.status}: {line}), on which that of the "
            "package imageio-ffmpeg does not; take it off PATH, or install a full build"
        )
    return RuntimeError(f"ffmpeg fails on a healthy file: {line}: {' '.join(command)}")


def missing_timestamp_error(command: Sequence[str], pattern: str, frame: int) -> Exception:
    """What it means that the log has no time of a frame; pattern: of a line that has one."""
    if any(re.search(pattern, line) for line in run_on_known_good_file(command).log):
        return Rejected("undecodable", f"ffmpeg gave no timestamp for frame {frame}")
    return UserError(f"{command[0]} logs the times of frames in a way that is not known; take it off PATH")


def run_on_known_good_file(command: Sequence[str]) -> ProcessResult:
    """The same command over a small healthy file, from its start. Raises Transient where it is late or cannot
    be started."""
    command = list(command)
    with tempfile.TemporaryDirectory(prefix="reenact-") as folder:
        path = Path(folder) / "healthy.mkv"
        path.write_bytes(_healthy())
        command[command.index("-i") + 1] = str(path)
        for option, value in (("-ss", "0"), ("-t", "1")):
            if option in command:
                command[command.index(option) + 1] = value
        stream = "[0:v:0]" if "rawvideo" in command else "[0:a:0]"
        command = [re.sub(r"\[0:[^\]]+\]", stream, one) for one in command]
        command = [re.sub(r"trim=start=[\d.]+", "trim=start=0", one) for one in command]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                text=True, errors="replace", timeout=FFMPEG_TEST_RUN_TIMEOUT, check=False,
            )  # fmt: skip
        except OSError as error:
            raise ffmpeg_start_error(error) from error
        except subprocess.TimeoutExpired:
            raise Transient(
                f"ffmpeg needs more than {FFMPEG_TEST_RUN_TIMEOUT} s for a healthy file"
            ) from None
    return ProcessResult(done.returncode, done.stderr.splitlines())


@cache
def _healthy() -> bytes:
    """A Matroska file of four frames of 64 x 64 and 0.1 s of sound, in codecs that every ffmpeg decodes."""
    import io

    import av
    import numpy as np

    data = io.BytesIO()
    with av.open(data, "w", format="matroska") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=48_000, layout="mono")
        for k in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 40 * k, np.uint8), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.int16), "s16", "mono")
        block.sample_rate, block.pts, block.time_base = 48_000, 0, Fraction(1, 48_000)
        container.mux(sound.encode(block))
        container.mux(sound.encode(None))
    return data.getvalue()


def was_killed_from_outside(done: ProcessResult) -> bool:
    """Whether a signal from outside ended it: out of memory, a scheduler, a user. A shell around it adds 128
    to the signal's number; on SIGTERM and SIGINT ffmpeg ends by itself, and says so."""
    number = -done.status if done.status < 0 else done.status - 128
    killed = done.status < 0 and number not in CRASH_SIGNALS
    shell = done.status > 0 and number in (signal.SIGKILL, signal.SIGTERM)
    return killed or shell or any(re.match("Exiting.*received signal", one) for one in done.log)


def is_disk_error(error: BaseException, path: Path) -> bool:
    """Whether an error of PyAV over a file is about a disk. Demuxers use the system's numbers (EIO, EPERM)
    for content that they refuse, too, so the file is read to find out."""
    if not isinstance(error, OSError) or isinstance(error, ValueError | EOFError):
        return False
    return error.errno in DISK_ERRORS or find_read_error(path) is not None


def is_memory_error(error: BaseException) -> bool:
    """Whether an error of PyAV is about this machine's memory, not about a file that asks for absurd
    amounts."""
    return getattr(error, "errno", None) == errno.ENOMEM and not _memory_left()


def find_read_error(path: Path) -> OSError | None:
    """What the system says where it does not hand over all of a file."""
    try:
        with path.open("rb") as file:
            while file.read(2**20):
                pass
    except OSError as error:
        return error
    return None


def _no_decoder(tool: str, codec: str) -> Exception:
    """PyAV, which probes files, has the decoders of a full build."""
    import av

    try:
        av.Codec(codec, "r")
    except ValueError:
        return Rejected("undecodable", f"no decoder for {codec}")
    return UserError(f"{tool} lacks a decoder for {codec}: take it off PATH, or install a full build of it")


def _memory_left() -> bool:
    try:
        mmap.mmap(-1, MEMORY_PROBE_BYTES).close()
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        return False
    return True


def last_log_line(log: Sequence[str]) -> str:
    """The last that is not blank."""
    return next((line for line in reversed(log) if line.strip()), "")


def redact_paths(line: str) -> str:
    """Without addresses and file names: a reject's sentence must not differ from run to run."""
    return re.sub(r"0x[0-9a-f]+|/\S+", "...", line) or "no message"
