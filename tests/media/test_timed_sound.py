"""Blocks of sound by their time stamps."""

import numpy as np

from pipelines import media
from pipelines.media.timed_sound import assemble_sound_blocks, decode_timed_sound_blocks


def joined(blocks, picture=0, far=100):
    return np.concatenate(list(assemble_sound_blocks(iter(blocks), 1, picture, far)), axis=1)[0].tolist()


def block(*values):
    return np.array([values], np.float32)


def test_a_hole_becomes_silence():
    assert joined([(0, block(1, 2)), (4, block(3))]) == [1, 2, 0, 0, 3]


def test_of_an_overlap_what_came_first_stays():
    assert joined([(0, block(1, 2, 3)), (1, block(8, 9, 4))]) == [1, 2, 3, 4]


def test_a_stamp_far_behind_the_end_of_the_picture_is_damaged():
    blocks = [(0, block(1)), (500, block(2)), (1, block(3))]
    assert joined(blocks, picture=1, far=100) == [1, 3]
    assert len(joined(blocks[:2], picture=450, far=100)) == 501


def test_every_stretch_begins_where_its_stamps_put_it(clicking, tmp_path):
    parts = [("mp2", 48_000, "stereo", 0.2, 1.9), ("mp2", 32_000, "mono", 2.6, 4)]
    path = clicking.film(tmp_path / "a.ts", parts, seconds=4)
    blocks = list(decode_timed_sound_blocks(path, media.probe_file(path), 16_000, "mono"))
    stops = [at + len(sound[0]) for at, sound in blocks]
    holes = [(stop, at) for stop, (at, _) in zip(stops, blocks[1:], strict=False) if at > stop]
    assert len(holes) == 1
    np.testing.assert_allclose(np.array(holes[0]) / 16_000, (1.9, 2.6), atol=0.05)
