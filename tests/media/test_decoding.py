from fractions import Fraction

import av
import numpy as np
import pytest

from pipelines import media
from pipelines.errors import Rejected
from tests.video_files import grey


def code_of(path):
    with pytest.raises(Rejected) as caught:
        media.probe_file(path)
    return caught.value.code


def test_probe_tells_size_rate_and_sound(flash):
    probed = media.probe_file(flash)
    assert (probed["width"], probed["height"], probed["frames"]) == (64, 48, 100)
    assert (probed["fps"], probed["seconds"], probed["audio_rate"]) == (25.0, 4.0, 44_100)


def test_flash_and_click_meet_on_the_frame_clock(flash):
    probed = media.probe_file(flash)
    frames, times = media.read_frames(flash, probed, (64, 48))
    shown = frames[media.nearest_frames(times, np.arange(100) / 25)].mean((1, 2, 3))
    sound = media.read_sound(flash, probed, 0, 100)
    loud = np.flatnonzero(np.abs(sound) > 0.2)[0]
    assert shown.argmax() == 30
    assert loud == pytest.approx(30 * media.SAMPLES_PER_FRAME, abs=16)  # a millisecond
    assert len(sound) == 100 * media.SAMPLES_PER_FRAME


def test_30_fps_is_resampled_by_timestamp(tmp_path, helpers):
    path = helpers.write_video(tmp_path / "thirty.mp4", grey(np.arange(60) * 4), fps=30)
    probed = media.probe_file(path)
    frames, times = media.read_frames(path, probed, (64, 48))
    assert media.video_tick_range(probed) == (0, 50)
    picked = media.nearest_frames(times, np.arange(50) / 25)
    assert len(picked) == 50
    assert np.abs(times[picked] - np.arange(50) / 25).max() <= 0.5 / 30 + 1e-6
    assert frames[picked[10]].mean() == pytest.approx(4 * 12, abs=3)  # second 0.4 is frame 12


def test_uneven_timestamps_are_followed(tmp_path, helpers):
    times = np.array([0, 0.04, 0.5, 0.54, 0.58, 1.0])
    path = helpers.write_video(tmp_path / "uneven.mp4", grey([10, 50, 90, 130, 170, 210]), times=times)
    probed = media.probe_file(path)
    frames, found = media.read_frames(path, probed, (64, 48))
    np.testing.assert_allclose(found, times, atol=1e-3)
    assert frames[media.nearest_frames(found, np.array([0.2]))].mean() == pytest.approx(
        50, abs=4
    )  # second 0.2: 0.04 is nearer than 0.5
    assert frames[media.nearest_frames(found, np.array([0.32]))].mean() == pytest.approx(
        90, abs=4
    )  # second 0.32: 0.5 is nearer


def test_a_span_gives_the_frames_of_the_whole(tmp_path, helpers):
    path = helpers.write_video(tmp_path / "long.mp4", grey(np.arange(250) % 200), gop=50)
    probed = media.probe_file(path)
    whole, times = media.read_frames(path, probed, (64, 48))
    part, found = media.read_frames(path, probed, (64, 48), span=(6.0, 7.0))
    assert len(part) < 60
    clock = np.arange(150, 175) / 25
    assert (part[media.nearest_frames(found, clock)] == whole[media.nearest_frames(times, clock)]).all()


@pytest.mark.parametrize("fps", [10, 25, 30, 60])
def test_streamed_ticks_are_the_nearest_frames(tmp_path, helpers, fps):
    path = helpers.write_video(tmp_path / "a.mp4", grey(np.arange(3 * fps) % 120 * 2), fps=fps, gop=10)
    probed = media.probe_file(path)
    whole, times = media.read_frames(path, probed, (64, 48))
    for start, stop in ((0, 75), (40, 60), (70, 75)):
        frames, seen = media.read_frames_at_ticks(path, probed, (64, 48), None, np.arange(start, stop))
        assert (frames == whole[media.nearest_frames(times, np.arange(start, stop) / 25)]).all()
        assert len(seen) <= (stop - start) / 25 * fps + 2 * 0.6 * fps


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv", "mov"])
def test_spans_of_every_container_are_those_of_the_whole(tmp_path, helpers, suffix):
    """With B-frames, a second between key frames, and sound that starts with the picture."""
    path = helpers.write_video(tmp_path / f"a.{suffix}", grey(np.arange(200)), sound=helpers.tone(8), gop=25)
    probed = media.probe_file(path)
    first, last = media.video_tick_range(probed)
    whole, _ = media.read_frames_at_ticks(path, probed, (64, 48), None, np.arange(first, last))
    assert (first, last) in ((0, 200), (0, 201))  # a transport stream's sound starts before its picture
    for start, stop in ((0, 20), (26, 40), (99, 130), (180, 200)):
        part, _ = media.read_frames_at_ticks(path, probed, (64, 48), None, np.arange(start, stop))
        np.testing.assert_array_equal(part, whole[start:stop])


def test_a_part_of_a_recording_keeps_the_recordings_clock(flash):
    probed = {**media.probe_file(flash), "offset": 100.0}
    assert media.video_tick_range(probed) == (2500, 2600)
    frames, _ = media.read_frames_at_ticks(flash, probed, (64, 48), None, np.arange(2520, 2540))
    assert frames.mean((1, 2, 3)).argmax() == 10
    sound = media.read_sound(flash, probed, 2520, 2540)
    assert np.flatnonzero(np.abs(sound) > 0.2)[0] == pytest.approx(10 * media.SAMPLES_PER_FRAME, abs=16)


@pytest.mark.parametrize(("suffix", "off"), [("mp4", 0), ("mkv", 8), ("ts", 1)])
@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_the_sound_of_a_span_is_that_of_the_whole(tmp_path, helpers, suffix, off, rate):
    time = np.arange(8 * rate) / rate
    chirp = (0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time)).astype(np.float32)
    path = helpers.write_video(tmp_path / f"a.{suffix}", grey([0] * 200), sound=chirp, rate=rate)
    probed = media.probe_file(path)
    whole = media.read_sound(path, probed, 0, 200)
    for start, stop in ((3, 30), (77, 120), (150, 195)):
        part = media.read_sound(path, probed, start, stop)
        assert len(part) == (stop - start) * 640
        middle = part[200:-200]
        moved = [whole[start * 640 + 200 + d :][: len(middle)] for d in range(-20, 21)]
        assert abs(int(np.argmin([np.abs(middle - other).mean() for other in moved])) - 20) <= off
        if suffix == "mp4":
            np.testing.assert_allclose(part, whole[start * 640 : stop * 640], atol=1e-3)


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
def test_channels_that_say_the_same_keep_their_level(tmp_path, helpers, layout):
    path = tmp_path / "a.mkv"
    tone = f"aevalsrc=0.9*sin(600*t):c=mono:s=48000:d=2,pan={layout}|" + "|".join(
        f"c{k}=c0" for k in range({"mono": 1, "stereo": 2, "5.1": 6}[layout])
    )
    picture = "color=size=64x48:rate=25:duration=2"
    helpers.ffmpeg("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", tone, "-c:a", "pcm_s16le", path)
    level = np.abs(media.read_sound(path, media.probe_file(path), 5, 45)).max()
    assert level == pytest.approx(0.9, abs=0.02)


def test_map_frames_sees_every_nth_and_the_last(flash):
    probed = media.probe_file(flash)
    seen = media.map_frame_batches(
        flash, probed, (32, 24), 30, lambda frames: [f.shape for f in frames], batch=2
    )
    assert seen.results == [(24, 32, 3)] * 5
    np.testing.assert_allclose(seen.times, [0, 1.2, 2.4, 3.6, 3.96])


def test_map_frames_tells_where_the_picture_changes_at_once(tmp_path, helpers):
    path = helpers.write_video(tmp_path / "a.mp4", grey([20] * 33 + [220] * 30))
    seen = media.map_frame_batches(path, media.probe_file(path), (32, 24), 10, list, change=10)
    np.testing.assert_allclose(seen.changes, [33 / 25])


def test_crop_takes_the_region(tmp_path, helpers):
    frames = grey([40] * 10)
    frames[:, 16:32, 32:48] = 200
    path = helpers.write_video(tmp_path / "patch.mp4", frames)
    cropped, _ = media.read_frames(path, media.probe_file(path), (32, 32), (32, 16, 48, 32))
    assert cropped.mean() == pytest.approx(200, abs=3)


def test_no_sound_reads_as_silence(tmp_path, helpers):
    path = helpers.write_video(tmp_path / "silent.mp4", grey([0] * 50))
    probed = media.probe_file(path)
    assert probed["audio_rate"] == 0
    assert (media.read_sound(path, probed, 0, 50) == np.zeros(32_000)).all()


def test_empty_file_is_rejected(tmp_path):
    (tmp_path / "a.mp4").touch()
    assert code_of(tmp_path / "a.mp4") == "empty"


def test_unreadable_bytes_are_rejected(tmp_path):
    (tmp_path / "a.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    assert code_of(tmp_path / "a.mp4") == "unreadable"


def test_sound_without_video_is_rejected(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 16_000)
    assert code_of(tmp_path / "a.wav") == "no_video"


def test_one_frame_is_no_duration(tmp_path, helpers):
    assert code_of(helpers.write_video(tmp_path / "a.mp4", grey([9]))) == "zero_duration"


def test_mp4_cut_short_is_rejected(tmp_path, flash):
    (tmp_path / "a.mp4").write_bytes(flash.read_bytes()[:-2000])  # its index stands at the end
    assert code_of(tmp_path / "a.mp4") == "unreadable"


def test_matroska_cut_short_is_rejected(tmp_path, helpers):
    noise = np.random.default_rng(0).integers(0, 255, (100, 48, 64, 3), np.uint8)
    data = helpers.write_video(tmp_path / "a.mkv", noise).read_bytes()
    (tmp_path / "b.mkv").write_bytes(data[: len(data) // 2])
    assert code_of(tmp_path / "b.mkv") == "truncated"


def test_mp4_with_its_index_first_cut_short_is_rejected(tmp_path, helpers):
    import subprocess

    noise = np.random.default_rng(0).integers(0, 255, (100, 48, 64, 3), np.uint8)
    whole = helpers.write_video(tmp_path / "a.mp4", noise)
    command = [
        media.ffmpeg_path(),
        "-nostdin",
        "-i",
        whole,
        "-c",
        "copy",
        "-movflags",
        "faststart",
        tmp_path / "b.mp4",
    ]
    subprocess.run(command, check=True, capture_output=True)
    data = (tmp_path / "b.mp4").read_bytes()
    (tmp_path / "c.mp4").write_bytes(data[: len(data) // 2])
    assert code_of(tmp_path / "c.mp4") == "truncated"


def test_turned_video_is_probed_as_shown(tmp_path, helpers):
    import subprocess

    flat = helpers.write_video(tmp_path / "a.mp4", grey([10, 20, 30]))
    command = [
        media.ffmpeg_path(),
        "-nostdin",
        "-display_rotation",
        "90",
        "-i",
        flat,
        "-c",
        "copy",
        tmp_path / "b.mp4",
    ]
    subprocess.run(command, check=True, capture_output=True)
    probed = media.probe_file(tmp_path / "b.mp4")
    assert (probed["width"], probed["height"]) == (48, 64)
    frames, _ = media.read_frames(tmp_path / "b.mp4", probed, (48, 64))
    assert frames.shape == (3, 64, 48, 3)


def test_a_video_of_larger_frames_than_any_camera_makes_is_rejected_before_one_is_decoded(tmp_path):
    """Only its header says so: no packet holds a frame at all."""
    with av.open(tmp_path / "bomb.mov", "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width = stream.height = 13_000
        stream.pix_fmt = "yuvj420p"
        for k in range(4):
            packet = av.Packet(b"\xff\xd8nothing\xff\xd9")
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, k, k, Fraction(1, 25)
            container.mux(packet)
    with pytest.raises(Rejected, match="13,000 x 13,000 pixels, expected at most 64,000,000") as caught:
        media.probe_file(tmp_path / "bomb.mov")
    assert caught.value.code == "too_large"
