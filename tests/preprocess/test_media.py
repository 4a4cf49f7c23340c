import numpy as np
import pytest

from pipelines.engine.node import Rejected
from pipelines.preprocess import media


def grey(levels, height=48, width=64):
    return np.repeat(np.array(levels, np.uint8), height * width * 3).reshape(-1, height, width, 3)


def code_of(path):
    with pytest.raises(Rejected) as caught:
        media.probe(path)
    return caught.value.code


@pytest.fixture(scope="module")
def flash(tmp_path_factory, helpers):
    """4 s at 25 fps: frame 30 is white, and a click begins at its second 1.2."""
    levels = np.full(100, 20)
    levels[30] = 235
    sound = np.zeros(4 * 44_100, np.float32)
    sound[int(1.2 * 44_100) : int(1.2 * 44_100) + 200] = 0.9
    path = tmp_path_factory.mktemp("media") / "flash.mp4"
    return helpers.write_video(path, grey(levels), sound=sound)


def test_probe_tells_size_rate_and_sound(flash):
    probed = media.probe(flash)
    assert (probed["width"], probed["height"], probed["frames"]) == (64, 48, 100)
    assert (probed["fps"], probed["seconds"], probed["audio_rate"]) == (25.0, 4.0, 44_100)


def test_flash_and_click_meet_on_the_frame_clock(flash):
    probed = media.probe(flash)
    frames, times = media.read_frames(flash, probed, (64, 48))
    shown = frames[media.nearest(times, 0, 100)].mean((1, 2, 3))
    sound = media.read_sound(flash, probed)
    loud = np.flatnonzero(np.abs(sound) > 0.2)[0]
    assert shown.argmax() == 30
    assert loud == pytest.approx(30 * media.SAMPLES_A_FRAME, abs=16)  # a millisecond
    assert len(sound) == 100 * media.SAMPLES_A_FRAME


def test_30_fps_is_resampled_by_timestamp(tmp_path, helpers):
    path = helpers.write_video(tmp_path / "thirty.mp4", grey(np.arange(60) * 4), fps=30)
    probed = media.probe(path)
    frames, times = media.read_frames(path, probed, (64, 48))
    picked = media.nearest(times, 0, media.frames_at_25(probed))
    assert len(picked) == 50
    assert np.abs(times[picked] - np.arange(50) / 25).max() <= 0.5 / 30 + 1e-6
    assert frames[picked[10]].mean() == pytest.approx(4 * 12, abs=3)  # second 0.4 is frame 12


def test_uneven_timestamps_are_followed(tmp_path, helpers):
    times = np.array([0, 0.04, 0.5, 0.54, 0.58, 1.0])
    path = helpers.write_video(tmp_path / "uneven.mp4", grey([10, 50, 90, 130, 170, 210]), times=times)
    probed = media.probe(path)
    frames, found = media.read_frames(path, probed, (64, 48))
    np.testing.assert_allclose(found, times, atol=1e-3)
    assert frames[media.nearest(found, 5, 6)].mean() == pytest.approx(
        50, abs=4
    )  # second 0.2: 0.04 is nearer than 0.5
    assert frames[media.nearest(found, 8, 9)].mean() == pytest.approx(90, abs=4)  # second 0.32: 0.5 is nearer


def test_nearest_prefers_the_earlier_frame_on_a_tie():
    assert media.nearest(np.array([0.0, 0.08]), 0, 3).tolist() == [0, 0, 1]


def test_a_span_gives_the_frames_of_the_whole(tmp_path, helpers):
    path = helpers.write_video(tmp_path / "long.mp4", grey(np.arange(250) % 200), gop=50)
    probed = media.probe(path)
    whole, times = media.read_frames(path, probed, (64, 48))
    part, found = media.read_frames(path, probed, (64, 48), span=(6.0, 7.0))
    assert len(part) < 60
    assert (part[media.nearest(found, 150, 175)] == whole[media.nearest(times, 150, 175)]).all()


def test_map_frames_sees_every_nth_and_the_last(flash):
    probed = media.probe(flash)
    counts, times = media.map_frames(
        flash, probed, (32, 24), 30, lambda frames: [f.shape for f in frames], batch=2
    )
    assert counts == [(24, 32, 3)] * 5
    np.testing.assert_allclose(times, [0, 1.2, 2.4, 3.6, 3.96])


def test_crop_takes_the_region(tmp_path, helpers):
    frames = grey([40] * 10)
    frames[:, 16:32, 32:48] = 200
    path = helpers.write_video(tmp_path / "patch.mp4", frames)
    cropped, _ = media.read_frames(path, media.probe(path), (32, 32), (32, 16, 48, 32))
    assert cropped.mean() == pytest.approx(200, abs=3)


def test_no_sound_reads_as_silence(tmp_path, helpers):
    path = helpers.write_video(tmp_path / "silent.mp4", grey([0] * 50))
    probed = media.probe(path)
    assert probed["audio_rate"] == 0
    assert (media.read_sound(path, probed) == 0).all()
    assert len(media.read_sound(path, probed)) == 32_000


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
    probed = media.probe(tmp_path / "b.mp4")
    assert (probed["width"], probed["height"]) == (48, 64)
    frames, _ = media.read_frames(tmp_path / "b.mp4", probed, (48, 64))
    assert frames.shape == (3, 64, 48, 3)


def test_a_hung_ffmpeg_is_killed_and_named(flash):
    import ffmpeg

    endless = ffmpeg.output(ffmpeg.input("anullsrc", format="lavfi", re=None), "pipe:", format="f32le")
    with pytest.raises(TimeoutError, match="longer than 1 s"):
        media.run_ffmpeg(endless, timeout=1)


def test_ffmpeg_failure_names_no_temporary_file(tmp_path):
    import ffmpeg

    missing = ffmpeg.output(ffmpeg.input(str(tmp_path / "none.mp4")), "pipe:", format="rawvideo")
    with pytest.raises(Rejected) as caught:
        media.run_ffmpeg(missing, timeout=20)
    assert str(tmp_path) not in caught.value.sentence
