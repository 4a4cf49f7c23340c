"""The sound of an animated portrait: in place, whatever the driving video's is; the summary says how."""

import av
import numpy as np
import pytest

from pipelines import media
from pipelines.media.encoding import Mp4Writer, read_timeline
from pipelines.media.sound_track import (
    ENCODED_AAC_FILE_PROBE,
    AudioFrameStats,
    Mp4SoundTrack,
    is_sound_copy_faithful,
)

STEREO = [("aac", 48_000, "stereo", 0.2, 4)]


@pytest.fixture
def write(tmp_path):
    """A probed video's frames and sound in an mp4 -> the file, and what it says of its sound."""

    def run(path):
        probed = media.probe_file(path)
        times = read_timeline(path, probed["start"], probed["video_index"])
        out = tmp_path / "written.mp4"
        after = -1
        with Mp4Writer(out, (64, 48), times, {}, Mp4SoundTrack(path, probed)) as writer:
            for frame, second in zip(*media.read_frames(path, probed, (64, 48)), strict=True):
                if (at := times.nearest_frame(second, after)) > after:
                    writer.write(frame, at)
                    after = at
        return out, writer.sound.summary

    return run


def lag(path, clicking):
    """Seconds by which each click comes after its flash."""
    probed = media.probe_file(path)
    sound = media.read_sound(path, probed, 0, int(25 * probed["seconds"]) + 25)
    clicks, flashes = clicking.onsets(sound) + probed["start"], clicking.flashes(path)
    assert len(clicks) >= 2
    return np.array([click - flashes[np.abs(flashes - click).argmin()] for click in clicks])


def test_sound_that_changes_on_the_way_is_encoded_in_place(clicking, tmp_path, write):
    parts = [
        ("ac3", 48_000, "stereo", 0.2, 1.7),
        ("ac3", 48_000, "5.1", 2.1, 3),
        ("ac3", 32_000, "mono", 3, 4),
    ]
    out, summary = write(clicking.film(tmp_path / "a.ts", parts, 4))
    assert summary == "sound encoded as AAC (was ac3, which changes on the way)"
    np.testing.assert_allclose(lag(out, clicking), 0, atol=0.002)
    assert len(lag(out, clicking)) == 4


def test_sound_that_mp4_cannot_hold_is_encoded_and_the_reason_given(clicking, tmp_path, write):
    out, summary = write(clicking.film(tmp_path / "a.mkv", [("libmp3lame", 11_025, "mono", 0.2, 4)], 4))
    assert summary == "sound encoded as AAC (was mp3, which mp4 does not take: Invalid argument)"
    np.testing.assert_allclose(lag(out, clicking), 0, atol=0.002)


def test_sound_that_no_mp4_player_expects_is_encoded_at_a_rate_of_aac(helpers, tmp_path, write):
    tone = "sine=frequency=500:sample_rate=96000:duration=1,pan=7.1|" + "|".join(f"c{k}=c0" for k in range(8))
    path = tmp_path / "a.mkv"
    helpers.ffmpeg("-f", "lavfi", "-i", "color=size=64x48:rate=25:duration=1", "-f", "lavfi", "-i", tone,
                   "-c:a", "pcm_s24le", path)  # fmt: skip
    out, summary = write(path)
    assert summary == "sound encoded as AAC (was pcm_s24le)"
    with av.open(str(out)) as container:
        sound = container.streams.audio[0]
        assert (sound.rate, sound.layout.name) == (48_000, "stereo")


@pytest.mark.parametrize("suffix", ["ts", "flv", "mkv"])
def test_copied_sound_plays_in_place(clicking, helpers, tmp_path, write, suffix):
    path = clicking.film(tmp_path / "a.ts", STEREO, 4)
    if suffix != "ts":
        path = helpers.ffmpeg("-i", path, "-c", "copy", tmp_path / f"b.{suffix}")
    out, summary = write(path)
    assert summary == "sound copied (aac)"
    np.testing.assert_allclose(lag(out, clicking), 0, atol=0.002)


@pytest.mark.parametrize("codec", ["aac", "mp2"])
def test_sound_goes_on_through_the_wrap_of_a_transport_streams_clock(
    clicking, helpers, tmp_path, write, codec
):
    path = clicking.film(tmp_path / "a.ts", [(codec, 48_000, "stereo", 0.2, 4)], 4)
    wrapped = tmp_path / "b.ts"
    helpers.ffmpeg(
        "-i", path, "-c", "copy", "-output_ts_offset", 2**33 / 90_000 - 1.5, "-muxdelay", 0, wrapped
    )
    out, _ = write(wrapped)
    np.testing.assert_allclose(lag(out, clicking), 0, atol=0.002)
    assert len(lag(out, clicking)) == 4


def test_a_picture_that_starts_after_its_sound_stays_there(clicking, helpers, tmp_path, write):
    path, late = clicking.film(tmp_path / "a.ts", STEREO, 4), tmp_path / "b.mp4"
    helpers.ffmpeg(
        "-itsoffset", 0.3, "-i", path, "-i", path, "-map", "0:v", "-map", "1:a", "-c", "copy", late
    )
    out, _ = write(late)
    assert (lag(late, clicking) < -0.2).all()
    np.testing.assert_allclose(lag(out, clicking), lag(late, clicking), atol=0.002)


def test_sound_of_which_nothing_can_be_decoded_is_left_out_and_said(clicking, helpers, tmp_path):
    path = helpers.ffmpeg("-i", clicking.film(tmp_path / "a.ts", STEREO, 4), "-c", "copy", tmp_path / "a.mkv")
    with av.open(str(path)) as whole, av.open(str(tmp_path / "b.mkv"), "w") as damaged:
        streams = [damaged.add_stream_from_template(stream) for stream in whole.streams]
        for packet in whole.demux():
            if packet.size:
                blank = packet if packet.stream.type == "video" else av.Packet(b"\xee" * packet.size)
                blank.pts, blank.dts, blank.time_base = packet.pts, packet.dts, packet.time_base
                blank.stream = streams[packet.stream.index]
                damaged.mux(blank)
    probed = media.probe_file(tmp_path / "b.mkv")
    sound = Mp4SoundTrack(tmp_path / "b.mkv", probed | {"audio_index": 1})
    assert sound.summary == "no sound: none of its aac can be decoded"
    times = read_timeline(tmp_path / "b.mkv", probed["start"])
    with Mp4Writer(tmp_path / "c.mp4", (64, 48), times, {}, sound) as writer:
        for at in range(100):
            writer.write(np.zeros((48, 64, 3), np.uint8), at)
    with av.open(str(tmp_path / "c.mp4")) as container:
        assert container.streams.video[0].frames == 100
        assert not container.streams.audio


@pytest.mark.parametrize("fault", ["late", "lost", "silent", "slower"])
def test_a_copy_that_plays_otherwise_is_noticed(fault):
    form = (48_000, "stereo", "fltp")
    frames = [AudioFrameStats(0.02 * k, form, 2, 1.0 + k % 3) for k in range(50)]
    assert is_sound_copy_faithful(frames, [one._replace(second=one.second + 0.001) for one in frames])
    copy = {
        "late": [one._replace(second=one.second + 0.005) for one in frames],
        "lost": frames[:20] + frames[30:],
        "silent": [one._replace(level=0.0) for one in frames],
        "slower": [one._replace(form=(24_000, "stereo", "fltp")) for one in frames],
    }
    assert not is_sound_copy_faithful(frames, copy[fault])


def test_what_was_encoded_is_gone_once_the_file_is_closed(clicking, tmp_path, write, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    path = clicking.film(tmp_path / "a.ts", [("mp2", 48_000, "stereo", 0.2, 2)], 2)
    assert write(path)[1] == "sound encoded as AAC (was mp2)"
    assert not list((tmp_path / "temporary").iterdir())
    assert ENCODED_AAC_FILE_PROBE["start"] == 0


def test_sound_of_64_bit_integers_is_encoded(helpers, tmp_path, write):
    sources = ("-f", "lavfi", "-i", "testsrc2=size=64x48:duration=1", "-f", "lavfi", "-i", "sine=duration=1")
    _, summary = write(helpers.ffmpeg(*sources, "-c:v", "mpeg4", "-c:a", "pcm_s64le", tmp_path / "a.nut"))
    assert summary == "sound encoded as AAC (was pcm_s64le)"
