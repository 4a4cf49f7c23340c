import numpy as np
import pytest

from models.perception.head.default_head import get_analytic_head
from pipelines.preprocess.sources.common.head_appearance import (
    ATLAS_SIZE,
    closed_eyes_mean_vertices,
    hair_density,
    paint_atlas,
    sample_person_appearance,
    sample_synthetic_recording_appearance,
)


def person(seed, index=0):
    return sample_person_appearance(np.random.default_rng(seed), index, get_analytic_head())


def test_a_person_is_a_function_of_the_seed():
    one, again, other = person(0), person(0), person(1)
    np.testing.assert_array_equal(one.id, again.id)
    assert (one.style, one.texture_seed) == (again.style, again.texture_seed)
    assert np.abs(one.id - other.id).max() > 0.1


def test_a_wall_has_colours_and_the_size_of_the_video():
    setting = sample_synthetic_recording_appearance(np.random.default_rng(0), 160, 200)
    assert setting.wall.shape == (160, 200, 3)
    assert 0 <= setting.wall.min() < setting.wall.max() <= 1
    assert np.linalg.norm(setting.key) == pytest.approx(1)


def test_hair_grows_on_the_crown_and_not_on_the_nose():
    points = closed_eyes_mean_vertices(get_analytic_head())
    crown, nose = points[points[:, 1].argmax()], points[points[:, 2].argmax()]
    assert hair_density(crown, "short") > 0.9
    assert hair_density(nose, "short") < 0.1


def test_the_atlas_is_painted_in_the_persons_skin():
    one = person(0)
    atlas = paint_atlas(get_analytic_head(), one)
    assert atlas.shape == (ATLAS_SIZE, ATLAS_SIZE, 3)
    assert np.isfinite(atlas).all()
    near = np.abs(atlas - one.skin).max(-1) < 0.15
    assert near.mean() > 0.1
