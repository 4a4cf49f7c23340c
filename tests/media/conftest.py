"""A video whose picture flashes while its sound clicks, with sound that changes on the way; a place on PATH
for another ffmpeg."""

import io
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from pipelines.media import ffmpeg_tool
from tests.video_files import face_video, grey, helpers, nets, portrait, predictor

__all__ = ["face_video", "helpers", "nets", "portrait", "predictor"]

CLICK = 0.48
"""The part of every second at which a click and a flash begin."""


def clicks(rate, begin, end):
    """A loud burst of 20 ms at every second + CLICK over a faint hum."""
    time = np.arange(round(begin * rate), round(end * rate)) / rate
    loud = (time % 1 >= CLICK) & (time % 1 < CLICK + 0.02)
    return (0.5 * loud * np.sin(2 * np.pi * 1000 * time) + 0.004 * np.sin(400 * time)).astype(np.float32)


def encoded(codec, rate, layout, begin, end):
    """A transport stream in memory that holds the clicks from second `begin` to `end`, at these times."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        sound = clicks(rate, begin, end)
        channels = stream.codec_context.channels
        for at in range(0, len(sound), 1024):
            block = np.tile(sound[at : at + 1024], (channels, 1))
            frame = av.AudioFrame.from_ndarray(block, "fltp", stream.codec_context.layout.name)
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = round(begin * rate) + at
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    return file


def film(path, parts, seconds=5):
    """A video with flashes whose one sound track is made of parts (codec, rate, layout, begin, end)."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.options = {"preset": "ultrafast", "threads": "1", "g": "12", "bf": "0"}
        sources = [av.open(encoded(*part)) for part in parts]
        sound = container.add_stream_from_template(sources[0].streams.audio[0]) if sources else None
        packets = []
        for k in range(25 * seconds):
            level = 235 if k % 25 == round(CLICK * 25) else 20
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            packets += video.encode(frame)
        packets += video.encode(None)
        for source in sources:
            for packet in source.demux(source.streams.audio[0]):
                if packet.size:
                    packet.stream = sound
                    packets.append(packet)
        for packet in sorted(packets, key=lambda one: one.dts * one.time_base):
            container.mux(packet)
    return path


def onsets(sound, rate=16_000):
    """Seconds at which clicks begin in (N,)."""
    loud = np.flatnonzero(np.abs(sound) > 0.1)
    return loud[np.diff(loud, prepend=-rate) > rate // 4] / rate


def flashes(path):
    """Seconds of the file's stamps at which the picture turns white."""
    with av.open(str(path)) as container:
        shown = [(frame.time, frame.to_ndarray(format="gray").mean()) for frame in container.decode(video=0)]
    return np.array([time for time, level in shown if level > 120])


@pytest.fixture(scope="session")
def clicking():
    return SimpleNamespace(film=film, onsets=onsets, flashes=flashes, at=CLICK)


@pytest.fixture
def put_on_path(tmp_path, monkeypatch):
    """put_on_path(script) -> its path, first on PATH; what this process knew of tools is forgotten."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def put(script):
        path = folder / "ffmpeg"
        path.write_text(script)
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        ffmpeg_tool.find_ffmpeg.cache_clear()
        return str(path)

    yield put
    ffmpeg_tool.find_ffmpeg.cache_clear()


@pytest.fixture(scope="session")
def flash(tmp_path_factory, helpers):
    """4 s at 25 fps: frame 30 is white, and a click begins at its second 1.2."""
    levels = np.full(100, 20)
    levels[30] = 235
    sound = np.zeros(4 * 44_100, np.float32)
    sound[int(1.2 * 44_100) : int(1.2 * 44_100) + 200] = 0.9
    path = tmp_path_factory.mktemp("media") / "flash.mp4"
    return helpers.write_video(path, grey(levels), sound=sound)
