"""Stage `download_or_render`: one recording as a file, probed before anything is computed from it.

How it is transferred is in `fetch/` (mirrors, http, yt-dlp) and `runtime.download`; what is requested is
decided here, from settings that are part of the key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

from msgspec import Struct

from pipelines import media
from pipelines.dataset.recording_table import recording_row_from_inputs
from pipelines.engine.node import Inputs
from pipelines.errors import Rejected, Transient
from storage.shards import Sample

if TYPE_CHECKING:
    import numpy as np

    from models.perception.head.morphable import MorphableModel
    from pipelines.cluster.runtime import RuntimeConfig
    from pipelines.dataset.recording_table import Recording
    from pipelines.media.probe_schema import Probe
    from pipelines.preprocess.fetch.request import VideoDownloadRequest

MIN_PREFERRED_H264_HEIGHT = 720


class DownloadConfig(Struct, frozen=True, kw_only=True):
    """What a recording's bytes are. How they are fetched is runtime.download."""

    max_height: int = 1080
    """Lines of the largest version to take from a site that offers several."""
    codec: Literal["h264", "any"] = "h264"
    """h264: H.264, which decodes fastest, where the site has it in 720 lines or in its largest version; any:
    what the site holds for best."""
    sections: Literal["off", "exact"] = "off"
    """exact: of a video that yt-dlp fetches, only the seconds its tracks need, cut by encoding them once
    more (near lossless). Plain files and mirrors give whole files all the same."""
    section_margin: float = 1.0
    """Seconds kept before and after a section."""
    max_bytes: int = 20 * 2**30
    """A recording with more bytes is rejected."""

    def __post_init__(self) -> None:
        if self.max_height < 64 or self.max_bytes < 1:
            raise ValueError("max_height: expected 64 lines or more; max_bytes: 1 or more")
        if self.section_margin < 0:
            raise ValueError(f"section_margin {self.section_margin}: expected 0 seconds or more")


class DownloadSettings(Protocol):
    """Settings of the stage."""

    sound: Literal["required", "optional"]
    download: DownloadConfig


def download_or_render(
    inputs: Inputs,
    config: DownloadSettings,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """A row of the recordings table -> one sample: video, probe, truth (empty unless synthetic).

    probe: what `media.probe_file` finds, and sha256 of the bytes, transport (synthetic, local, mirror, http,
    ytdlp), offset (seconds of the recording at which the file starts), origin (which of a site's versions).
    """
    row = recording_row_from_inputs(inputs)
    if row["source"] != "synthetic":
        yield from download_video(inputs, config, nets, runtime)
        return
    from pipelines.preprocess.sources.synthetic import render_synthetic_recording

    video, truth = render_synthetic_recording(row, cast("MorphableModel", nets["analytic_head"]))
    with media.open_as_local_file(video) as path:
        yield _sample(row, video, _FileCheck(row, config)(path), "synthetic", truth=truth)


def download_video(
    inputs: Inputs,
    config: DownloadSettings,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """The same for sources that render nothing: a change of the renderer must not fetch a corpus again."""
    row = recording_row_from_inputs(inputs)
    check = _FileCheck(row, config)
    if row["source"] == "celebv":  # a folder of pictures becomes one file
        from pipelines.preprocess.sources.celebv import recording_images_to_video

        video = recording_images_to_video(row)
        with media.open_as_local_file(video) as path:
            yield _sample(row, video, check(path), "local")
        return
    if row["uri"].startswith("/"):
        yield _sample(row, path := _local_file(row), check(path), "local")
        check.check_unchanged()
        return
    from pipelines.preprocess.fetch.transports import fetch_recording

    with fetch_recording(make_download_request(row, config.download), runtime.download, check) as fetched:
        yield _sample(row, fetched.path, fetched.probe, fetched.transport, fetched.offset, fetched.facts)
        check.check_unchanged()


def convert_picture_to_video(
    inputs: Inputs,
    config: DownloadSettings,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """The same for still pictures, each of which becomes a video of one frame."""
    from pipelines.preprocess.sources.pictures import recording_images_to_video

    row = recording_row_from_inputs(inputs)
    video = recording_images_to_video(row)
    with media.open_as_local_file(video) as path:
        yield _sample(row, video, _FileCheck(row, config)(path), "local")


def _sample(
    row: Recording, video: bytes | Path, probed: Probe, transport: str, offset: float = 0.0,
    origin: Mapping[str, str | int | float] | None = None, truth: Mapping[str, np.ndarray] | None = None,
) -> Sample:  # fmt: skip
    travel = {"transport": transport, "offset": offset, "origin": dict(origin or {})}
    return {"__key__": row["id"], "video": video, "probe": {**probed, **travel}, "truth": dict(truth or {})}


class _FileCheck:
    """Checks complete files of one recording: call it with a path -> probe and sha256; may raise
    Rejected."""

    def __init__(self, row: Recording, config: DownloadSettings):
        self._row, self._sound = row, config.sound
        self._seen: tuple[Path, tuple[int, int]] | None = None

    def __call__(self, path: Path) -> Probe:
        row = self._row
        self._seen = path, _state(path)
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if row["sha256"] and found != row["sha256"]:
            message = f"sha256 {found}, expected {row['sha256']}"
            if row["uri"].startswith("/"):
                # no property of the recording: replaced while the run is under way
                raise Transient(f"{path} changed since it was listed: {message}; run again", soon=False)
            raise Rejected("checksum", f"{row['id']} has {message}")
        still = row["source"] == "pictures"
        probed = media.probe_file(path, row["id"], least=1 if still else 2)
        if not probed["audio_rate"] and self._sound == "required" and not still:
            raise Rejected(
                "no_sound", f"{row['id']} has no sound; sound=optional of its corpus gives it silence"
            )
        probed["sha256"] = found
        return probed

    def check_unchanged(self) -> None:
        """After the file was copied into the shard: it is still the one that was checked."""
        if self._seen is not None and _state(self._seen[0]) != self._seen[1]:
            raise Transient(f"{self._seen[0]} changed while it was read; run again", soon=False)


def _local_file(row: Recording) -> Path:
    """A local file; its size and time where it was listed by them, because hashing a mirror takes hours."""
    path = Path(row["uri"])
    listed = json.loads(row["spec"]) if row["spec"].startswith("{") else {}
    if "mtime_ns" in listed and _state(path) != (listed["bytes"], listed["mtime_ns"]):
        raise Transient(f"{path} changed since it was listed; run again", soon=False)
    return path


def _state(path: Path) -> tuple[int, int]:
    """Size in bytes, time of the last change in nanoseconds."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise Transient(f"{path} is gone since it was listed; run again", soon=False) from None
    return stat.st_size, stat.st_mtime_ns


# --- the request --------------------------------------------------------------------------------------------
def make_download_request(row: Recording, config: DownloadConfig) -> VideoDownloadRequest:
    """A mirror may name a video by the recording or by YouTube's id."""
    from pipelines.preprocess.fetch.request import VideoDownloadRequest

    names = dict.fromkeys((row["id"], row["uri"].removeprefix("youtube:")))
    return VideoDownloadRequest(
        uri=row["uri"], names=tuple(name for name in names if name and "/" not in name),
        formats=ytdlp_formats(config), format_sort=_format_sort(config), section=section_to_download(row,
        config),
        max_bytes=config.max_bytes,
    )  # fmt: skip


def ytdlp_formats(config: DownloadConfig) -> str:
    """yt-dlp's selection, best first. Sites that do not say a version's height or codec come in by `?` and
    at the end; above the height only where there is nothing below it."""
    low = f"[height<=?{config.max_height}]"
    choices = [f"bv*{low}+ba", f"b{low}", f"bv*{low}", "wv*+wa", "w"]
    if config.codec == "h264":
        # not at any price: a site's only H.264 may be its 360 line version, too small for faces of 256 pixels
        large = f"[vcodec^=avc1]{low}[height>=?{min(MIN_PREFERRED_H264_HEIGHT, config.max_height)}]"
        choices = [f"bv*{large}+ba[ext=m4a]", f"b{large}", *choices]
    return "/".join(choices)


def _format_sort(config: DownloadConfig) -> tuple[str, ...]:
    height = f"res:{config.max_height}"
    return (height, "vcodec:h264", "acodec:aac") if config.codec == "h264" else (height,)


def section_to_download(row: Recording, config: DownloadConfig) -> tuple[float, float] | None:
    """Seconds of the recording to fetch; None = all of it."""
    span = row.get("span", [])  # a row has the fields that the node reads
    if config.sections == "off" or len(span) == 0:
        return None
    return max(0.0, span[0] - config.section_margin), span[1] + config.section_margin
