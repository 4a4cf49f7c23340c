"""Sound stays where its time stamps put it, whatever changes on the way."""

import av
import numpy as np
import pytest

from pipelines import media

CHANGES = {
    "slower and mono": [("mp2", 48_000, "stereo", 0.2, 2.3), ("mp2", 32_000, "mono", 2.3, 5)],
    "there and back": [
        ("mp2", 48_000, "stereo", 0.2, 1.7),
        ("mp2", 32_000, "mono", 1.7, 3.2),
        ("mp2", 48_000, "stereo", 3.2, 5),
    ],
    "more channels": [("ac3", 48_000, "stereo", 0.2, 2.3), ("ac3", 48_000, "5.1", 2.3, 5)],
    "another rate of AAC": [("aac", 44_100, "stereo", 0.2, 2.3), ("aac", 48_000, "mono", 2.3, 5)],
    "a change over a hole": [("mp2", 48_000, "stereo", 0.2, 1.9), ("mp2", 32_000, "mono", 2.6, 5)],
    "a short hole": [("aac", 48_000, "stereo", 0.2, 2.1), ("aac", 48_000, "stereo", 2.164, 5)],
    "a late start": [("mp2", 48_000, "stereo", 1.2, 2.6), ("mp2", 44_100, "mono", 2.6, 5)],
}


@pytest.fixture(scope="module", params=CHANGES)
def changing(request, clicking, tmp_path_factory):
    """A film, and the seconds of its clicks."""
    parts = CHANGES[request.param]
    path = clicking.film(tmp_path_factory.mktemp("changing") / "a.ts", parts)
    whole = np.arange(5) + clicking.at
    return path, whole[[any(begin < t < end for *_, begin, end in parts) for t in whole]]


def test_sound_that_changes_on_the_way_stays_in_place(changing, clicking):
    path, expected = changing
    sound = media.read_sound(path, media.probe_file(path), 0, 125)
    np.testing.assert_allclose(clicking.onsets(sound), expected, atol=0.001)


def test_a_span_of_changing_sound_is_that_of_the_whole(changing):
    path, _ = changing
    probed = media.probe_file(path)
    whole = media.read_sound(path, probed, 0, 125)
    for start, stop in ((30, 75), (56, 64), (65, 110), (82, 120)):
        part = media.read_sound(path, probed, start, stop)
        np.testing.assert_allclose(part, whole[start * 640 : stop * 640], atol=0.01)


def test_of_an_overlap_what_came_first_is_kept(clicking, tmp_path):
    parts = [("mp2", 48_000, "stereo", 0.2, 2.6), ("mp2", 32_000, "mono", 2.3, 5)]
    path = clicking.film(tmp_path / "a.ts", parts)
    sound = media.read_sound(path, media.probe_file(path), 0, 125)
    np.testing.assert_allclose(clicking.onsets(sound), np.arange(5) + clicking.at, atol=0.001)


def test_channels_keep_their_level_through_a_change(clicking, tmp_path):
    parts = [("ac3", 48_000, "stereo", 0.2, 2.3), ("ac3", 48_000, "5.1", 2.3, 5)]
    path = clicking.film(tmp_path / "a.ts", parts)
    sound = media.read_sound(path, media.probe_file(path), 0, 125).reshape(5, -1)
    np.testing.assert_allclose(np.abs(sound).max(1), 0.5, atol=0.05)


def test_sound_after_a_damaged_stamp_is_still_there(clicking, tmp_path):
    """As one flipped bit in a broadcast makes it."""
    path = clicking.film(tmp_path / "a.ts", [("mp2", 48_000, "stereo", 0.2, 5)])
    data, at = bytearray(path.read_bytes()), 0
    for _ in range(30):
        at = data.index(b"\0\0\1\xc0", at + 1)  # the header of a packet of sound, here that of second 0.9
    data[at + 9] ^= 0b110
    path.write_bytes(data)
    sound = media.read_sound(path, media.probe_file(path), 0, 125)
    np.testing.assert_allclose(clicking.onsets(sound), np.arange(5) + clicking.at, atol=0.001)


def test_a_stream_that_appears_on_the_way_ends_no_reading(clicking, helpers, tmp_path):
    """After the seconds and megabytes (here empty packets) in which the streams of a file are looked for."""
    first = clicking.film(tmp_path / "a.ts", [("mp2", 48_000, "stereo", 0.2, 9)], 9)
    more, path = tmp_path / "b.ts", tmp_path / "c.ts"
    later = ("-c", "copy", "-muxdelay", 0, "-muxpreload", 0, "-output_ts_offset", 9)
    helpers.ffmpeg("-i", first, "-map", "0:v", *["-map", "0:a"] * 40, *later, more)
    empty = b"\x47\x1f\xff\x10".ljust(188, b"\xff")
    path.write_bytes(first.read_bytes() + 30_000 * empty + more.read_bytes())
    probed = media.probe_file(path)
    assert probed["frames"] == 450
    assert len(clicking.onsets(media.read_sound(path, probed, 200, 300))) == 4


def test_damaged_sound_is_a_hole_whatever_its_decoder_calls_it(clicking, tmp_path):
    """ffmpeg's decoder says -1 of some of these packets, which PyAV takes for a missing permission."""
    path = clicking.film(tmp_path / "a.mkv", [("aac", 48_000, "stereo", 0.2, 5)])
    probed, data, rng = media.probe_file(path), bytearray(path.read_bytes()), np.random.default_rng(0)
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(audio=0) if p.size][80:180]
    for packet in packets:
        at = data.index(packet)
        data[at : at + 4] = rng.bytes(4)
    path.write_bytes(data)
    sound = media.read_sound(path, probed, 0, 125)
    np.testing.assert_allclose(clicking.onsets(sound)[[0, 1, -1]], [0.48, 1.48, 4.48], atol=0.001)
