from pathlib import Path

import pytest

from pipelines import media
from pipelines.errors import Transient
from tests.video_files import grey


def test_a_log_is_read_while_it_grows_and_whole_at_the_end(flash):
    from pipelines.media.decoding import _ffmpeg_output

    probed = media.probe_file(flash)
    with media.FfmpegOutputPipe(_ffmpeg_output(flash, probed, (64, 48), None, None, 1), 60) as pipe:
        lines = []
        for _ in range(100):
            assert pipe.read_into(memoryview(bytearray(64 * 48 * 3))) == 64 * 48 * 3
            lines += pipe.read_log_lines()
        assert pipe.read_into(memoryview(bytearray(1))) == 0
    lines += pipe.read_log_lines()
    assert sum("] n:" in line for line in lines) == 100


def test_a_buffer_is_filled_whole_but_for_the_end(flash):
    from pipelines.media.decoding import _ffmpeg_output

    size = 64 * 48 * 3
    output = _ffmpeg_output(flash, media.probe_file(flash), (64, 48), None, None, 1)
    with media.FfmpegOutputPipe(output, 60) as pipe:
        whole = pipe.read()
    buffer, parts = bytearray(7 * size + 5), []
    with media.FfmpegOutputPipe(output, 60) as pipe:
        while count := pipe.read_into(memoryview(buffer)):
            parts.append(bytes(buffer[:count]))
    assert b"".join(parts) == whole
    assert [len(part) for part in parts] == [7 * size + 5] * 14 + [100 * size - 14 * (7 * size + 5)]


def test_a_hung_ffmpeg_is_killed_and_named(flash):
    import ffmpeg

    endless = ffmpeg.output(ffmpeg.input("anullsrc", format="lavfi", re=None), "pipe:", format="f32le")
    with pytest.raises(Transient, match="longer than 1 s"):
        media.run_ffmpeg(endless, timeout=1)


def test_a_relative_name_with_a_colon_is_a_file(tmp_path, helpers, monkeypatch):
    """ffmpeg takes what stands before a colon for a protocol."""
    path, name = helpers.write_video(tmp_path / "a.mp4", grey([90] * 5)), Path("12:30.mp4")
    path.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    frames, _ = media.read_frames(name, media.probe_file(name), (64, 48))
    assert len(frames) == 5
