"""Exact times: the grid of a constant rate behind rounded stamps, and frames found on it again."""

from fractions import Fraction

import av
import numpy as np
import pytest

from pipelines.media.encoding import FrameTimeline, Mp4Writer, read_timeline


def stamped(path, times, base, rate=25):
    """A small video that states a rate and whose frames appear at `times` units of `base` seconds."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate)
        video.width = video.height = 32
        video.pix_fmt, video.options = "yuv420p", {"bf": "0", "preset": "ultrafast"}
        video.codec_context.time_base = base
        for k, at in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 9 * k, np.uint8), format="rgb24")
            frame.time_base, frame.pts = base, at
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def test_milliseconds_of_a_constant_rate_become_exact(tmp_path):
    times = [round(1000 * k * 1001 / 30000) for k in range(20)]
    ntsc = Fraction(30000, 1001)
    found = read_timeline(stamped(tmp_path / "a.mkv", times, Fraction(1, 1000), ntsc), 0.0)
    assert (found.constant, found.rate) == (True, ntsc)
    assert [t * found.base for t in found.stamps] == [k / ntsc for k in range(20)]
    assert np.abs(found.seconds - np.array(times) / 1000).max() <= 0.001


def test_a_rate_that_the_units_hold_keeps_the_units(tmp_path):
    found = read_timeline(stamped(tmp_path / "a.mp4", range(0, 72_000, 3_600), Fraction(1, 90_000)), 0.0)
    assert (found.constant, found.rate, found.base) == (True, 25, Fraction(1, 90_000))
    assert (found.stamps[0], found.stamps[1], found.end) == (0, 3_600, 72_000)


def test_a_skipped_frame_makes_a_video_uneven(tmp_path):
    times = [0, 1, 2, 4, 5, 6]
    found = read_timeline(stamped(tmp_path / "a.mp4", times, Fraction(1, 25)), 0.0)
    assert not found.constant
    np.testing.assert_allclose(found.seconds, np.array(times) / 25)
    assert found.end * found.base == Fraction(7, 25)


@pytest.mark.parametrize(
    ("second", "after", "expected"),
    [(0.0, -1, 0), (0.033, 0, 1), (0.067, 1, 2), (9, 1, 3), (0.0, 1, 2), (9, 3, 3)],
)
def test_a_decoded_frame_is_found_on_the_timeline(second, after, expected):
    times = FrameTimeline(Fraction(1, 30_000), (0, 1001, 2002, 3003), 4004, Fraction(30_000, 1001), True)
    assert times.nearest_frame(second, after) == expected


def test_uneven_times_and_the_last_frames_duration_are_kept(tmp_path):
    times = FrameTimeline(Fraction(1, 1000), (0, 40, 500, 510, 900), 1_400, Fraction(5, 1), False)
    out = tmp_path / "out.mp4"
    with Mp4Writer(out, (32, 32), times, {}) as writer:
        for at in range(5):
            writer.write(np.full((32, 32, 3), 40 * at, np.uint8), at)
    found = read_timeline(out, 0.0)
    np.testing.assert_allclose(found.seconds, [0, 0.04, 0.5, 0.51, 0.9])
    assert found.end * found.base == Fraction(7, 5)
    with av.open(str(out)) as container:
        assert container.duration == 1_400_000


def test_colours_survive_the_file(tmp_path):
    """Written as BT.709 and marked so; a reader that heeds the marks gets the colours back."""
    times = FrameTimeline(Fraction(1, 25), (0, 1), 2, Fraction(25), True)
    colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [128, 128, 128]], np.uint8)
    picture = np.repeat(np.repeat(colours[None], 64, 0), 16, 1)
    with Mp4Writer(tmp_path / "out.mp4", (64, 64), times, {}) as writer:
        for at in range(2):
            writer.write(picture, at)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.colorspace == 1
        frame = next(container.decode(video=0)).reformat(format="rgb24", src_colorspace="ITU709")
    middle = frame.to_ndarray()[32, 8::16].astype(int)
    assert np.abs(middle - colours).max() <= 6
