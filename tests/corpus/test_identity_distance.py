import numpy as np
import pytest
from scipy.stats import multivariate_normal

from pipelines.corpus.identity_distance import (
    SEVERAL_CLIPS_OFFSET,
    IdentityModel,
    UsualPairs,
    fit_identity_model,
    mean_by_group,
)
from pipelines.preprocess.identity import IdentityConfig

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
    assert matrix[0, 20] < -4 < others.min()


@pytest.mark.parametrize("people", [8, 16, 60])
def test_one_threshold_tells_two_people_from_one_among_few_people_and_among_many(people):
    frames, identity = make_people(np.random.default_rng(0), people)
    identity[2] = people
    matrix = distance_matrix(frames, identity)
    others = matrix[np.triu_indices(people, 1)]
    assert matrix[0, people] < IdentityConfig().threshold < others.min()


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
    (found,) = model.log_likelihood_ratios(one[None], np.array([2]), other[None], np.array([5]))[0]
    assert found == pytest.approx(expected)


def test_distances_of_rows_are_those_of_the_matrix():
    frames, identity = make_people(np.random.default_rng(5), 8)
    model = fit_identity_model(frames, identity)
    means, counts = mean_by_group(model.project(np.stack([one.mean(0) for one in frames])), identity)
    matrix = model.distances(means[:4], counts[:4], means[4:], counts[4:])
    rows = model.paired_distances(means[:4], counts[:4], means[4:], counts[4:])
    np.testing.assert_allclose(rows, matrix.diagonal())


def test_a_pair_is_compared_with_the_other_pairs():
    ratios = np.exp(np.random.default_rng(6).normal(size=20)) - 1
    logarithms = np.log(ratios + 1)
    usual = UsualPairs(float(logarithms.mean()), float(logarithms.std()), 20)
    for at, value in enumerate(usual.standardize(ratios)):
        others = np.delete(logarithms, at)
        expected = (logarithms[at] - others.mean()) / others.std(ddof=1) / np.sqrt(20 / 19)
        assert value == pytest.approx(expected, rel=0.02)


def test_two_names_with_several_clips_each_must_be_nearer_than_single_clips():
    model = IdentityModel(np.zeros(3), np.eye(3), np.array([4.0, 1.0, 0.3]), within=0.5)
    place = np.zeros((1, 3))
    one, several = np.array([1]), np.array([2])
    ratio = model.log_likelihood_ratios(place, several, place, several)
    offset = model.distances(place, several, place, several) - model.usual.standardize(ratio)
    assert offset == pytest.approx(SEVERAL_CLIPS_OFFSET)
    ratio = model.log_likelihood_ratios(place, one, place, several)
    assert model.distances(place, one, place, several) == pytest.approx(model.usual.standardize(ratio))


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
