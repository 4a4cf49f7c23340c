"""Which ffmpeg is run: the one on PATH if it can do all that is asked of it, else that of the imageio-ffmpeg
package. What a tool can do is asked of it here, and never guessed from a file that it failed on.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from msgspec import Struct

from pipelines.engine.file_cache import FileFactCache
from pipelines.engine.keys import hash_json
from pipelines.errors import Transient, UserError
from storage.content_cache import cache_folder

MIN_FFMPEG_VERSION = (5, 1)
"""The first version with -fps_mode; builds that state no number are tried with it."""
REQUIRED_FFMPEG_FILTERS = (
    "aformat", "aresample", "asetpts", "ashowinfo", "bwdif", "crop", "format", "scale", "scdet", "select",
    "setparams", "setpts", "showinfo", "trim", "zscale",
)  # fmt: skip
"""All that `media` uses; zscale is there only in builds with libzimg."""
REQUIRED_FFMPEG_DECODERS = (
    "aac", "ac3", "eac3", "flac", "h264", "hevc", "mjpeg", "mp3", "mpeg2video", "mpeg4", "opus", "vorbis",
    "vp8", "vp9",
)  # fmt: skip
"""What recordings usually hold; some distributions build without those that are under patents."""
FFMPEG_CHECK_TIMEOUT = 20
"""After so long without an answer about itself, a tool counts as one that does not run."""
MACHINE_FAULT_ERRNOS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ETXTBSY)
"""Reasons why no process can be started that say nothing about the tool."""


class FfmpegTool(Struct, frozen=True):
    path: str
    version: str
    """The first line of its banner"""
    instead: str = ""
    """Why it is not the one on PATH, in a line; "" where it is, or where there is none"""


@cache
def find_ffmpeg() -> FfmpegTool:
    """The ffmpeg that is used. UserError, which says what each lacks, if there is none."""
    problems: list[str] = []
    if on_path := shutil.which("ffmpeg"):
        version, problem = _known(on_path, REQUIRED_FFMPEG_DECODERS)
        if not problem:
            return FfmpegTool(on_path, version)
        problems.append(f"{on_path} {problem}")
    packaged = _known_package()
    if packaged is None:
        problems.append("the package imageio-ffmpeg brings none for this machine")
    elif packaged != on_path:
        version, problem = _known(packaged)
        if not problem:
            instead = f"{problems[0]}: the ffmpeg of imageio-ffmpeg is used instead" if problems else ""
            return FfmpegTool(packaged, version, instead)
        problems.append(f"{packaged} {problem}")
    number = ".".join(map(str, MIN_FFMPEG_VERSION))
    raise UserError(
        f"no ffmpeg that can be used: {'; '.join(problems)}; install a full build of ffmpeg {number} or newer"
    )


def _known(path: str, decoders: Sequence[str] = ()) -> tuple[str, str]:
    """As `inspect_ffmpeg`, which takes a tenth of a second: that a tool lacks nothing is kept until its file
    changes. What one lacks is asked again, for it may be mended in the tool's libraries."""
    if not os.path.isfile(path):
        return inspect_ffmpeg(path, decoders)
    known = _cache()

    def inspect() -> str:
        version, problem = inspect_ffmpeg(path, decoders)
        if problem:
            raise _Unfit(version, problem)
        return version

    try:
        version = known.get(Path(path), inspect)
    except _Unfit as unfit:
        return unfit.args
    known.save()
    return version, ""


def _cache() -> FileFactCache:
    return FileFactCache(
        cache_folder() / "tools.json",
        hash_json(MIN_FFMPEG_VERSION, REQUIRED_FFMPEG_FILTERS, REQUIRED_FFMPEG_DECODERS),
    )


def _known_package() -> str | None:
    """As `find_packaged_ffmpeg`, which starts the tool to see that it runs: the answer is kept until the
    package's folder changes."""
    package = importlib.util.find_spec("imageio_ffmpeg")
    if "IMAGEIO_FFMPEG_EXE" in os.environ or package is None or package.origin is None:
        return find_packaged_ffmpeg()
    folder, known = Path(package.origin).parent / "binaries", _cache()

    def own() -> str:
        found = find_packaged_ffmpeg()
        return found if found and folder in Path(found).parents else ""

    place = known.get(folder, own) if folder.is_dir() else ""
    known.save()
    return place or find_packaged_ffmpeg()


class _Unfit(Exception):
    """Version line and what the tool lacks."""


def find_packaged_ffmpeg() -> str | None:
    """The ffmpeg in the imageio-ffmpeg wheel, or where IMAGEIO_FFMPEG_EXE says."""
    import imageio_ffmpeg

    try:
        found = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:  # its way to say that there is none
        return None
    return shutil.which(found) or found  # "ffmpeg" where it brings none: that on PATH


def inspect_ffmpeg(path: str, decoders: Sequence[str] = ()) -> tuple[str, str]:
    """The version line of a tool and what it lacks, "" if nothing. Raises Transient where this machine can
    start no process now. decoders: looked for too; a package's build has them all."""
    try:
        banner, listed = _query(path, ["-filters", *["-decoders"] * bool(decoders)])
    except OSError as error:
        if error.errno in MACHINE_FAULT_ERRNOS:
            raise Transient(f"{path} cannot be started: {error.strerror}") from error
        return "", f"does not run ({error.strerror})"
    except subprocess.TimeoutExpired:
        return "", f"does not run (no answer to -filters in {FFMPEG_CHECK_TIMEOUT} s)"
    version = next((line for line in banner.splitlines() if line.startswith("ffmpeg version ")), "")
    if not version:
        return "", "does not run (it states no version)"
    name = version.split()[2]
    number = parse_release_number(name)
    if number is not None and number < MIN_FFMPEG_VERSION:
        return version, f"is ffmpeg {name}, expected {'.'.join(map(str, MIN_FFMPEG_VERSION))} or newer"
    missing = [f"filter {one}" for one in REQUIRED_FFMPEG_FILTERS if one not in listed[0]]
    missing += [f"decoder {one}" for one in decoders if one not in listed[1]]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return version, f"(ffmpeg {name}) lacks {', '.join(missing[:3])}{more}"
    if number is None and (problem := _missing_option(path)):
        return version, f"(ffmpeg {name}) {problem}"
    return version, ""


def parse_release_number(name: str) -> tuple[int, int] | None:
    """Major and minor number of a release, as "7.1.1", "n5.1-2-gabc" or "7:4.4.2-0ubuntu0"; None of builds
    between releases, such as "N-12345-gabc" or "2024-01-04-git-abc"."""
    found = re.match(r"(?:\d+:)?n?(\d+)\.(\d+)", name)
    return (int(found[1]), int(found[2])) if found else None


def _query(path: str, questions: Sequence[str]) -> tuple[str, list[set[str]]]:
    """A tool's banner, and the names in each list that it is asked for; all questions are asked at once."""
    running: list[subprocess.Popen[str]] = []
    try:
        for question in questions:
            running.append(
                subprocess.Popen(
                    [path, question], text=True, errors="replace",
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                )
            )  # fmt: skip
        answers = [process.communicate(timeout=FFMPEG_CHECK_TIMEOUT) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    # a name is the second column, after what it can do
    names = [{line.split()[1] for line in out.splitlines() if len(line.split()) > 2} for out, _ in answers]
    return answers[0][1], names


def _missing_option(path: str) -> str:
    """What a build of no known version lacks of the options that came with LEAST."""
    argv = [
        path, "-nostdin", "-v", "error", "-f", "lavfi", "-i", "color=size=16x16:duration=0.1",
        "-vf", "showinfo=checksum=0", "-fps_mode", "passthrough", "-f", "null", "-",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=FFMPEG_CHECK_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return f"needs more than {FFMPEG_CHECK_TIMEOUT} s for a frame"
    return (
        ""
        if done.returncode == 0
        else f"does not know -fps_mode: {done.stderr.strip().rpartition(chr(10))[2]}"
    )
