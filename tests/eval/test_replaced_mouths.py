"""Mouths of other frames: where they are cut and pasted, and which frame gives which."""

import numpy as np
import pytest

from pipelines.eval import replaced_mouths as mouths
from tests.eval.landmark_faces import make_face


@pytest.fixture
def clip():
    """Ten frames of 64 px: one grey a frame, and the face in its own place in each."""
    frames = np.stack([np.full((64, 64, 3), 100 + 10 * (t % 5), np.uint8) for t in range(10)])
    landmarks = np.stack([make_face((30 + t % 3, 28 + t % 2), 18 + t % 2) for t in range(10)])
    return frames, landmarks


def mouth_of(landmarks):
    x, y = landmarks[mouths.MOUTH_POINTS].mean(axis=0).astype(int)
    return y, x


def test_the_mean_mouth_is_in_every_frame_and_nothing_else_moves(clip):
    frames, landmarks = clip
    out = mouths.replace_by_mean_mouth(frames, landmarks)
    for t in range(10):
        assert out[t][mouth_of(landmarks[t])].tolist() == [120] * 3  # the mean of the greys
        np.testing.assert_array_equal(out[t, :32], frames[t, :32])
        np.testing.assert_array_equal(out[t, 58:], frames[t, 58:])


def test_the_mouth_of_the_frame_itself_gives_the_frame(clip):
    frames, landmarks = clip
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    frames = np.stack([2 * x, 3 * y, x + y], axis=-1).astype(np.uint8)[None].repeat(10, 0)
    out = mouths.replace_by_other_mouths(frames, landmarks, range(10))
    assert abs(out.astype(int) - frames).max() <= 1  # rounding


def test_another_frames_mouth_is_pasted_where_the_mouth_is(clip):
    frames, landmarks = clip
    out = mouths.replace_by_other_mouths(frames, landmarks, [(t + 1) % 10 for t in range(10)])
    for t in range(10):
        assert out[t][mouth_of(landmarks[t])].tolist() == frames[(t + 1) % 10, 0, 0].tolist()


def test_frames_without_a_face_get_a_mouth_and_give_none_to_the_mean(clip):
    frames, landmarks = clip
    landmarks[4] = np.nan
    frames[4] = 0
    out = mouths.replace_by_mean_mouth(frames, landmarks)
    assert out[3][mouth_of(landmarks[3])].tolist() == [118] * 3  # 120, had frame 4 (140) counted; not 104
    assert out[4][mouth_of(landmarks[3])].tolist() == [118] * 3


def test_the_mean_mouth_does_not_open_with_the_frame():
    frames = np.full((2, 64, 64, 3), 128, np.uint8)
    landmarks = make_face()[None].repeat(2, 0)
    landmarks[1, [55, 56, 57, 58, 59, 65, 66, 67]] += (0, 5)  # the lower lip
    for t in range(2):
        x, y = landmarks[t, 66].astype(int)
        frames[t, y : y + 2, x - 2 : x + 3] = 0
    out = mouths.replace_by_mean_mouth(frames, landmarks)
    np.testing.assert_array_equal(out[0], out[1])


def test_places_undo_what_a_turned_head_does_to_the_face():
    face = make_face((0, 0), 1.0)
    narrow = face * (0.6, 1.0) * 20 + (30, 25)
    places = mouths.locate_faces(np.stack([face * 20 + (32, 30), narrow]))
    np.testing.assert_allclose(places.to_face(1, narrow), places.to_face(0, face * 20 + (32, 30)), atol=1e-9)
    np.testing.assert_allclose(places.to_frame(1, places.to_face(1, narrow)), narrow, atol=1e-9)


def test_donors_are_other_frames_of_the_same_clip():
    chosen = mouths.sample_donor_frames(0, "a#b", range(50), range(50))
    assert all(donor != frame and 0 <= donor < 50 for frame, donor in enumerate(chosen))
    assert len(set(chosen)) > 25


def test_a_choice_depends_on_seed_clip_and_frame_alone():
    whole = mouths.sample_donor_frames(0, "a#b", range(50), range(50))
    assert mouths.sample_donor_frames(0, "a#b", [7, 3], range(50)) == [whole[7], whole[3]]
    assert mouths.sample_donor_frames(1, "a#b", range(50), range(50)) != whole
    assert mouths.sample_donor_frames(0, "a#c", range(50), range(50)) != whole


def test_a_clip_of_one_frame_has_no_other_mouth():
    with pytest.raises(ValueError, match="frame 0 has no other frame"):
        mouths.sample_donor_frames(0, "a#b", [0], [0])
