"""Healthy files with something odd in them are probed as they are; a cut file is still seen to be cut."""

import numpy as np
import pytest

from pipelines import media
from pipelines.errors import Rejected

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-threads", 1)
PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=3")
TONE = ("-f", "lavfi", "-i", "sine=frequency=440:duration=3")
WRAP = 2**33 / 90_000
"""Seconds after which the clock of MPEG-TS begins anew."""


def noise(frames, height=48, width=64):
    return np.random.default_rng(0).integers(0, 255, (frames, height, width, 3), np.uint8)


def late_cue(folder):
    path = folder / "late.srt"
    path.write_text("1\n00:05:00,000 --> 00:05:02,000\nHello\n")
    return path


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "srt"), ("mp4", "mov_text")])
def test_subtitles_after_the_end_do_not_count_for_its_length(tmp_path, helpers, suffix, codec):
    path = helpers.ffmpeg(*PICTURE, "-i", late_cue(tmp_path), *X264, "-c:s", codec, tmp_path / f"a.{suffix}")
    assert media.probe_file(path)["seconds"] == 3


def test_a_longer_second_sound_does_not_count_for_its_length(tmp_path, helpers):
    longer = ("-f", "lavfi", "-i", "sine=duration=60")
    maps = ("-map", 0, "-map", 1, "-map", 2)
    path = helpers.ffmpeg(*PICTURE, *TONE, *longer, *maps, *X264, "-c:a", "aac", tmp_path / "a.mkv")
    probed = media.probe_file(path)
    assert (probed["seconds"], probed["audio_index"]) == (3, 1)


def test_a_cut_file_with_late_subtitles_is_truncated(tmp_path, helpers):
    video = helpers.write_video(tmp_path / "a.mp4", noise(100))
    whole = helpers.ffmpeg("-i", video, "-i", late_cue(tmp_path), "-c:v", "copy", tmp_path / "a.mkv")
    data = whole.read_bytes()
    (tmp_path / "b.mkv").write_bytes(data[: len(data) // 2])
    with pytest.raises(Rejected, match=r"promises 4\.00 s, but holds"):
        media.probe_file(tmp_path / "b.mkv")


@pytest.mark.parametrize("suffix", ["flv", "nut", "mkv", "ts"])
def test_time_stamps_that_start_late_do_not_count_for_its_length(tmp_path, helpers, suffix):
    path = helpers.ffmpeg(
        *PICTURE, *TONE, *X264, "-c:a", "aac", "-output_ts_offset", 40, tmp_path / f"a.{suffix}"
    )
    assert media.probe_file(path)["seconds"] == pytest.approx(3, abs=0.05)


def test_a_length_that_was_estimated_from_the_bit_rate_is_no_promise(tmp_path, helpers):
    """A live recording has no length in its header; what ffmpeg makes of its bit rate is many times it."""
    codecs = ("-c:v", "libtheora", "-q:v", 10, "-s", "320x240", "-c:a", "libmp3lame", "-b:a", "32k")
    path = helpers.ffmpeg(*PICTURE, *TONE, *codecs, "-live", 1, tmp_path / "a.mkv")
    assert media.probe_file(path)["seconds"] == pytest.approx(3, abs=0.05)


def test_empty_frames_of_avi_do_not_count_as_missing(tmp_path, helpers):
    times = np.r_[np.arange(25) * 0.04, 1.8 + np.arange(50) * 0.04]
    frames = noise(75) // 4
    path = helpers.write_video(tmp_path / "a.mp4", frames, times=times)
    path = helpers.ffmpeg("-i", path, "-c:v", "mpeg4", "-fps_mode", "vfr", tmp_path / "a.avi")
    assert media.probe_file(path)["frames"] == 75


def test_what_an_edit_list_cuts_away_does_not_count_as_missing(tmp_path, helpers):
    """As a phone trims without encoding: a second's groups of pictures are in the file, but not shown."""
    trim = ("-output_ts_offset", -1.3, "-avoid_negative_ts", "disabled")
    path = helpers.ffmpeg(*PICTURE, *TONE, *X264, "-g", 12, "-c:a", "aac", *trim, tmp_path / "a.mp4")
    probed = media.probe_file(path)
    assert (probed["frames"], probed["seconds"]) == (42, 1.68)
    frames, _ = media.read_frames(path, probed, (64, 48))
    assert len(frames) == 42


def with_codec(path, old, new):
    """The file with another four-character code of a codec."""
    path.write_bytes(path.read_bytes().replace(old, new))
    return path


UNHEARD = [b"apac", b"alac"]
"""Apple's spatial sound, which ffmpeg does not know, and a codec that it cannot start without more data."""


@pytest.mark.parametrize("codec", UNHEARD)
def test_the_first_sound_that_can_be_decoded_is_taken(tmp_path, helpers, codec):
    loud = ("-f", "lavfi", "-i", "sine=frequency=880:duration=3")
    maps = ("-map", 0, "-map", 1, "-map", 2, "-c:a:0", "pcm_s16le", "-c:a:1", "aac")
    path = helpers.ffmpeg(*PICTURE, *TONE, *loud, *maps, *X264, tmp_path / "a.mov")
    probed = media.probe_file(with_codec(path, b"sowt", codec))
    assert (probed["audio_index"], probed["audio_rate"]) == (2, 44_100)
    sound = media.read_sound(path, probed, 0, 75)
    assert np.abs(np.fft.rfft(sound)).argmax() / 3 == pytest.approx(880, abs=1)


@pytest.mark.parametrize("codec", UNHEARD)
def test_no_sound_that_can_be_decoded_is_no_sound(tmp_path, helpers, codec):
    path = helpers.ffmpeg(*PICTURE, *TONE, *X264, "-c:a", "pcm_s16le", tmp_path / "a.mov")
    probed = media.probe_file(with_codec(path, b"sowt", codec))
    assert (probed["audio_index"], probed["audio_rate"]) == (-1, 0)
    assert not media.read_sound(path, probed, 0, 75).any()


def test_video_of_an_unknown_codec_is_undecodable(tmp_path, helpers):
    path = with_codec(helpers.ffmpeg(*PICTURE, *X264, tmp_path / "a.mov"), b"avc1", b"zzzz")
    with pytest.raises(Rejected, match="a codec that ffmpeg does not know") as caught:
        media.probe_file(path)
    assert caught.value.code == "undecodable"


def test_times_go_on_when_the_clock_of_a_transport_stream_begins_anew(tmp_path, helpers):
    """With one key frame, so that no seek finds a second one."""
    late = ("-muxdelay", 0, "-output_ts_offset", WRAP - 0.5)
    path = helpers.ffmpeg(*PICTURE, *TONE, *X264, "-g", 999, "-c:a", "aac", *late, tmp_path / "a.ts")
    probed = media.probe_file(path)
    assert (probed["frames"], probed["seconds"]) == (75, pytest.approx(3, abs=0.05))
    frames, times = media.read_frames(path, probed, (64, 48))
    assert len(frames) == 75
    np.testing.assert_allclose(np.diff(times), 0.04, atol=1e-4)
    later, _ = media.read_frames_at_ticks(path, probed, (64, 48), None, np.arange(40, 60))
    near = media.nearest_frames(times, np.arange(40, 60) / 25)
    np.testing.assert_array_equal(later, frames[near])


def talk_after_a_still(folder, helpers, suffix):
    """One frame for two seconds, then two seconds of 25 frames each."""
    times = np.r_[0, 2 + np.arange(50) * 0.04]
    path = helpers.write_video(folder / "still.mp4", noise(51), times=times, sound=helpers.tone(4))
    return helpers.ffmpeg("-i", path, "-c", "copy", folder / f"a.{suffix}")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "flv", "ts"])
def test_a_frame_that_is_shown_for_long_is_held_not_lost(tmp_path, helpers, suffix):
    probed = media.probe_file(talk_after_a_still(tmp_path, helpers, suffix))
    ((begin, end),) = probed["held"]
    assert end - begin == pytest.approx(2, abs=1e-3)


def test_a_webm_that_states_no_duration_holds_its_frames(tmp_path, helpers):
    """As browsers record: without DefaultDuration (23E383), which is made void (EC) here."""
    times = np.r_[np.arange(20) * 0.04, 2 + np.arange(30) * 0.04]
    path = helpers.write_video(tmp_path / "a.mkv", noise(50), times=times)
    assert media.probe_file(path)["held"] == []
    head, tail = path.read_bytes().split(b"\x23\xe3\x83", 1)
    size = tail[0] & 0x7F
    path.write_bytes(head + b"\xec" + bytes([0x80 | (size + 2)]) + bytes(size + 2) + tail[size + 1 :])
    assert media.probe_file(path)["held"] == [[0.76, 2.0]]


def combs(frames):
    """How much more each line differs from its neighbours than from the lines of its own field, in grey
    levels."""
    grey = frames.mean(-1)
    across = np.abs(grey[:, 1:-1] - (grey[:, :-2] + grey[:, 2:]) / 2).mean()
    return across - np.abs(grey[:, 2:] - grey[:, :-2]).mean()


@pytest.mark.parametrize(("order", "codec"), [("tff", "mpeg2video"), ("bff", "libx264")])
def test_interlaced_video_has_no_combs(tmp_path, helpers, order, codec):
    """A bar that moves by 4 pixels a field."""
    moving = (
        "color=c=black:size=128x96:rate=50:duration=1[b];color=c=white:size=24x96:rate=50:duration=1[w];"
        f"[b][w]overlay=x=n*4-24:eval=frame,tinterlace=interleave_{'top' if order == 'tff' else 'bottom'},"
        f"setfield={order}"
    )
    flags = ("-flags", "+ilme+ildct", "-x264-params", f"{order}=1")
    path = helpers.ffmpeg(
        "-filter_complex", moving, "-c:v", codec, "-q:v", 2, *flags[: 2 if codec == "mpeg2video" else 4],
        tmp_path / "a.mkv",
    )  # fmt: skip
    probed = media.probe_file(path)
    assert probed["interlaced"]
    frames, times = media.read_frames(path, probed, (128, 96))
    combed, combed_times = media.read_frames(path, probed | {"interlaced": False}, (128, 96))
    np.testing.assert_array_equal(times, combed_times)
    assert combs(combed) > 5 > 1 > combs(frames)


def test_progressive_video_is_not_deinterlaced(tmp_path, helpers):
    assert media.probe_file(helpers.write_video(tmp_path / "a.mp4", noise(5)))["interlaced"] is False


def test_one_frame_behind_its_sound_is_decoded(tmp_path, helpers):
    """A decoder that waits for later frames gives out this one at the end of the file."""
    maps = ("-map", 1, "-map", 0, "-frames:v", 1)
    path = helpers.ffmpeg(*PICTURE, *TONE, *maps, "-c:v", "libx264", "-c:a", "aac", tmp_path / "a.mkv")
    assert media.probe_file(path, least=1)["frames"] == 1


def test_a_file_cut_in_its_header_is_unreadable(tmp_path, helpers):
    """ffmpeg calls that an input/output error, but the disk gives all there is."""
    path = helpers.ffmpeg(*PICTURE, *X264, tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(Rejected) as caught:
        media.probe_file(path)
    assert caught.value.code == "unreadable"
