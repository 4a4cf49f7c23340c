import numpy as np
import pytest

from pipelines.eval.metrics import METRICS
from pipelines.eval.metrics.identity_drift import cosine_distance, euclidean_distance, identity_drift


def turning(degrees, frames=12):
    """(frames,2): a vector of length 1 that turns by so many degrees over the clip."""
    angle = np.deg2rad(np.linspace(0, degrees, frames))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_a_face_that_stays_does_not_drift():
    for distance in (euclidean_distance, cosine_distance):
        assert identity_drift(turning(0), distance) == pytest.approx(0, abs=1e-12)


def test_drift_is_the_distance_of_the_first_and_the_last_quarter():
    clip = turning(90)
    first, last = clip[:3].mean(0), clip[-3:].mean(0)
    assert identity_drift(clip, euclidean_distance) == pytest.approx(np.linalg.norm(first - last))
    between = 90 * 9 / 11  # degrees from the middle of the one to that of the other
    assert identity_drift(clip, cosine_distance) == pytest.approx(1 - np.cos(np.deg2rad(between)))


def test_noise_of_single_frames_weighs_less_than_a_change_of_person():
    rng = np.random.default_rng(0)
    noisy = turning(0, 64) + rng.normal(0, 0.3, (64, 2))
    other = noisy.copy()
    other[32:] += [-1, 1]
    assert identity_drift(noisy, euclidean_distance) < 0.3 < 1 < identity_drift(other, euclidean_distance)


def test_frames_without_a_face_are_passed_over():
    clip = np.repeat(turning(90), 2, axis=0)
    clip[1::2] = np.nan
    assert identity_drift(clip, euclidean_distance) == identity_drift(turning(90), euclidean_distance)


def test_a_clip_of_fewer_than_eight_faces_has_no_drift():
    assert np.isnan(identity_drift(turning(90, 7), euclidean_distance))
    assert np.isfinite(identity_drift(turning(90, 8), euclidean_distance))


def test_the_gap_of_a_frozen_picture_is_the_real_clips_drift():
    drift, gap = (METRICS[name].per_clip for name in ("id_drift_dlib", "id_drift_gap_dlib"))
    frozen, real = turning(0), turning(30)
    assert drift(frozen, real) == pytest.approx(0)
    assert gap(frozen, real) == pytest.approx(drift(real, real))
    assert gap(real, real) == 0
