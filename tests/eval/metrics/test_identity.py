import numpy as np
import pytest

from pipelines.eval.metrics.identity import embedding_cosine_per_frame, embedding_l2_per_frame


@pytest.fixture
def embeddings():
    """The golden file's two vectors of 8, one frame each."""
    at = np.arange(8)
    return np.sin(0.7 * at)[None], np.sin(0.7 * at + 0.4)[None]


def test_the_cosine_is_the_golden_one(embeddings, golden):
    assert embedding_cosine_per_frame(*embeddings) == pytest.approx(golden["csim"]["cos"], abs=1e-12)


def test_the_distance_of_unit_vectors_is_the_golden_one(embeddings, golden):
    units = [one / np.linalg.norm(one) for one in embeddings]
    assert embedding_l2_per_frame(*units) == pytest.approx(golden["csim"]["l2_of_unit_vectors"], abs=1e-12)


def test_the_same_face_has_cosine_1_and_distance_0(embeddings):
    assert embedding_cosine_per_frame(embeddings[0], embeddings[0]) == pytest.approx(1)
    assert embedding_l2_per_frame(embeddings[0], embeddings[0]) == pytest.approx(0)


@pytest.mark.parametrize("measure", [embedding_cosine_per_frame, embedding_l2_per_frame])
def test_a_frame_without_a_face_has_no_value(measure, embeddings):
    a, b = (np.repeat(one, 2, axis=0) for one in embeddings)
    b[1] = np.nan
    assert np.isfinite(measure(a, b)).tolist() == [True, False]
