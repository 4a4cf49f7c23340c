import numpy as np
import pytest

from pipelines.corpus.near_duplicates import (
    difference_at_shifts,
    find_near_duplicates,
    match_landmark_motion,
    neighbour_clips,
)


def moving_face(rng, frames=60, base=None):
    """Landmarks (T,68,2) of a face 100 px wide that wanders, turns and speaks."""
    base = rng.normal(0, 35, (68, 2)) if base is None else base
    t = np.arange(frames)[:, None]
    waves = [np.sin(t * rng.uniform(0.05, 0.4, 6) + rng.uniform(0, 6, 6)) for _ in range(4)]
    wander = 10 * np.stack([waves[0].mean(1), waves[1].mean(1)], axis=1)
    turn, mouth = waves[2].mean(1), waves[3].mean(1)
    points = base[None] * (1 + 0.15 * np.stack([turn, np.zeros(frames)], axis=1)[:, None])
    points[:, 48:, 1] += 8 * mouth[:, None]
    return (128 + points + wander[:, None]).astype(np.float32)


def cut_anew(rng, landmarks, start, jitter=0.8):
    """The same video cut later, in a square that is 10 % larger and lies elsewhere."""
    return (0.9 * (landmarks[start:] - 12) + rng.normal(0, jitter, landmarks[start:].shape)).astype(
        np.float32
    )


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_clip_cut_anew_is_found_with_where_it_begins(rng):
    first = moving_face(rng)
    difference, shift = match_landmark_motion(first, cut_anew(rng, first, 11), 0.3)
    assert shift == 11
    assert difference < 0.05
    assert match_landmark_motion(cut_anew(rng, first, 11), first, 0.3)[1] == -11


def test_another_recording_of_the_same_face_is_not_taken_for_it(rng):
    base = rng.normal(0, 35, (68, 2))
    assert match_landmark_motion(moving_face(rng, base=base), moving_face(rng, base=base), 0.1) is None


def test_frames_without_a_face_are_left_out(rng):
    first = moving_face(rng)
    second = cut_anew(rng, first, 5)
    second[10:20] = np.nan
    assert match_landmark_motion(first, second, 0.3)[1] == 5
    assert match_landmark_motion(first, np.full_like(first, np.nan), 0.3) is None


def test_two_heads_at_rest_are_not_one_clip(rng):
    base = rng.normal(0, 35, (68, 2))
    still = [(128 + base + rng.normal(0, 0.8, (60, 68, 2))).astype(np.float32) for _ in range(2)]
    assert match_landmark_motion(*still, 0.3) is None


def test_still_pictures_are_one_where_landmarks_and_embeddings_are(rng):
    picture = moving_face(rng, frames=1)
    assert match_landmark_motion(picture, cut_anew(rng, picture, 0, jitter=0.2), 0.05) is not None
    assert match_landmark_motion(picture, cut_anew(rng, picture, 0, jitter=0.2), 0.8) is None


def test_every_shift_is_compared_as_by_hand(rng):
    a, b = moving_face(rng, 30), moving_face(rng, 24)
    a[3] = np.nan
    found = difference_at_shifts(a, b, 10)
    for shift in (-9, 0, 4, 12):
        one, other = a[max(shift, 0) : 24 + shift], b[max(-shift, 0) : 30 - shift]
        both = np.isfinite(one).all((1, 2))
        x, y = (p[both].reshape(-1, 2).astype(np.float64) for p in (one, other))
        x, y = x - x.mean(0), y - y.mean(0)
        rest = x - (x * y).sum() / (y**2).sum() * y
        radius = one[both] - one[both].mean(1, keepdims=True)
        expected = np.sqrt((rest**2).sum() / (radius.astype(np.float64) ** 2).sum())
        assert found[shift + 23] == pytest.approx(expected, rel=1e-4)
    assert np.isinf(found[0])  # one frame in common


def test_clips_of_one_recording_are_not_compared():
    embeddings = np.zeros((3, 4))
    pairs = [(a, b) for a, b, _ in neighbour_clips(embeddings, np.array([0, 0, 1]))]
    assert pairs == [(0, 2), (1, 2)]


def test_only_the_nearest_clips_are_compared():
    embeddings = np.arange(20)[:, None] * np.full(4, 0.1)
    pairs = {pair[:2] for pair in neighbour_clips(embeddings, np.arange(20))}
    assert (0, 6) in pairs
    assert (0, 7) not in pairs


def test_the_clip_that_is_there_twice_is_the_only_pair(rng):
    clips = [moving_face(rng) for _ in range(6)]
    clips.append(cut_anew(rng, clips[2], 7))
    found = find_near_duplicates(np.zeros((7, 4)), np.arange(7), clips.__getitem__)
    assert [(one.first, one.second, one.shift) for one in found] == [(2, 6, 7)]
