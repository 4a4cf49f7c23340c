import numpy as np
import pytest
from scipy.stats import multivariate_normal

from pipelines.corpus.identity_distance import IdentityModel, fit_identity_model, mean_by_group

SIZE = 16


def make_people(rng, people, clips=3, frames=6, recording=0.5, spread=4.0):
    """Embeddings of clips, and whose they are: every person has a place, every clip is off it a little."""
    places = rng.normal(0, spread, (people, SIZE)).repeat(clips, axis=0)
    middle = places + rng.normal(0, recording, places.shape)
    clips_frames = [(one + rng.normal(0, 1, (frames, SIZE))).astype(np.float32) for one in middle]
    return clips_frames, np.arange(people).repeat(clips)


def distance_matrix(frames, identity):
    model = fit_identity_model(frames, identity)
    means, counts = mean_by_group(model.project(np.stack([one.mean(0) for one in frames])), identity)
    return model.distances(means, counts, means, counts)


def test_one_person_under_two_names_is_nearer_than_any_two_people():
    frames, identity = make_people(np.random.default_rng(0), 20)
    identity[2] = 20  # the last clip of the first person
    matrix = distance_matrix(frames, identity)
    others = matrix[np.triu_indices(20, 1)]
    assert matrix[0, 20] < 0 < others.min()


def test_distances_are_the_log_likelihood_ratio_of_two_people_and_one():
    rng = np.random.default_rng(1)
    model = IdentityModel(np.zeros(3), np.eye(3), np.array([4.0, 1.0, 0.3]), within=0.5)
    one, other = rng.normal(size=(2, 3))
    one_variance, other_variance = model.mean_variance(np.array([2, 5]))
    between = np.diag(model.between)
    apart = np.block([[between + one_variance * np.eye(3), np.zeros((3, 3))],
                      [np.zeros((3, 3)), between + other_variance * np.eye(3)]])  # fmt: skip
    together = apart + np.block([[np.zeros((3, 3)), between], [between, np.zeros((3, 3))]])
    both = np.concatenate([one, other])
    expected = (
        multivariate_normal.logpdf(both, cov=apart) - multivariate_normal.logpdf(both, cov=together)
    ) / 3
    (found,) = model.distances(one[None], np.array([2]), other[None], np.array([5]))[0]
    assert found == pytest.approx(expected)
    pair = model.paired_distances(one[None], np.array([2]), other[None], np.array([5]))
    assert pair[0] == pytest.approx(expected)


def test_the_scale_and_origin_of_the_embeddings_do_not_matter():
    frames, identity = make_people(np.random.default_rng(2), 8)
    moved = [3 * one + 7 for one in frames]
    np.testing.assert_allclose(distance_matrix(frames, identity), distance_matrix(moved, identity), atol=1e-3)


def test_a_clip_under_a_wrong_name_hardly_moves_how_much_recordings_differ():
    frames, identity = make_people(np.random.default_rng(3), 12)
    before = fit_identity_model(frames, identity).within
    identity[0] = 5
    assert fit_identity_model(frames, identity).within == pytest.approx(before, rel=0.15)


def test_one_clip_a_person_and_one_frame_a_clip_are_enough_to_compare():
    frames, identity = make_people(np.random.default_rng(4), 6, clips=1, frames=1)
    assert np.isfinite(distance_matrix(frames, identity)).all()
