"""Distances at shifts: the specs' figures, and a sound that is delayed."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.eval.metrics import METRICS
from pipelines.eval.metrics.av_sync import (
    mean_shift_distances,
    shift_distances,
    sync_confidence,
    sync_distance,
    sync_offset,
    sync_offset_size,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "syncnet.json").read_text())
N = 40


@pytest.fixture
def speech():
    """Embeddings of 40 windows that no two of are near."""
    return np.random.default_rng(0).normal(size=(N, 64)).astype(np.float32)


def delayed(speech, frames, seed=1):
    """The same sound so many frames later, other sound before it."""
    lead = np.random.default_rng(seed).normal(size=(frames, speech.shape[1]))
    return np.concatenate([lead, speech])[:N]


def test_confidence_distance_and_offset_are_the_specs_on_waves():
    golden = GOLDEN["avconf"]
    t, j = np.arange(12)[:, None], np.arange(4)
    lips = np.sin(0.9 * t * (j + 1) + 0.3 * j)
    speech = 0.95 * np.roll(lips, 2, axis=0) + 0.05
    np.testing.assert_allclose(
        mean_shift_distances(lips, speech), golden["mean_distance_per_shift"], rtol=1e-6
    )
    assert sync_distance(lips, speech) == pytest.approx(golden["lse_d_min"], rel=1e-6)
    assert sync_confidence(lips, speech) == pytest.approx(golden["lse_c_conf_median_minus_min"], rel=1e-6)
    assert sync_offset(lips, speech) == golden["offset"]


def test_they_are_those_of_the_authors_functions_on_shifted_features():
    golden = GOLDEN["offset_confidence"]
    place = 16.0 * np.arange(46)[:, None] + np.arange(16)
    base = (0.5 + 0.5 * np.sin(place * 0.11) + 0.3 * np.sin(place**1.3)).astype(np.float32)
    lips, speech = base[3:43], base[:40] + np.float32(0.01)
    np.testing.assert_allclose(mean_shift_distances(lips, speech), golden["mean_dist_31"], rtol=1e-5)
    assert sync_distance(lips, speech) == pytest.approx(golden["min_dist"], rel=1e-5)
    assert sync_confidence(lips, speech) == pytest.approx(golden["confidence"], rel=1e-5)
    assert sync_offset(lips, speech) == golden["offset"]


@pytest.mark.parametrize("frames", [0, 1, 3, 14])
def test_sound_that_is_delayed_moves_the_offset_by_as_many_frames(speech, frames):
    assert sync_offset(speech, delayed(speech, frames)) == -frames
    assert sync_offset_size(speech, delayed(speech, frames)) == frames
    assert sync_distance(speech, speech) == pytest.approx(1e-6 * 8, rel=1e-3)


def test_sound_of_another_clip_has_little_confidence(speech):
    other = np.random.default_rng(2).normal(size=speech.shape)
    assert sync_confidence(speech, speech) > 10
    assert sync_confidence(speech, other) < 1


def test_beyond_the_ends_lies_a_vector_of_zeros(speech):
    distances = shift_distances(speech, speech)
    assert distances.shape == (N, 31)
    np.testing.assert_allclose(distances[0, 0], np.linalg.norm(speech[0].astype(float) + 1e-6), rtol=1e-12)
    np.testing.assert_allclose(distances[:, 15], 1e-6 * 8, rtol=1e-6)


def test_lips_or_sound_that_go_on_alone_are_left_out(speech):
    longer = np.concatenate([speech, speech[:7]])
    assert (
        sync_confidence(longer, speech) == sync_confidence(speech, longer) == sync_confidence(speech, speech)
    )


def test_windows_without_a_face_do_not_count(speech):
    lips = speech.copy()
    lips[5:9] = np.nan
    found = mean_shift_distances(lips, speech)
    rest = np.delete(shift_distances(speech, speech), range(5, 9), axis=0)
    np.testing.assert_allclose(found, rest.mean(0), rtol=1e-12)


def test_without_a_face_or_sound_there_is_no_value(speech):
    nothing = np.full((1, 64), np.nan)
    for lips, sound in ((nothing, speech), (speech, nothing), (np.full_like(speech, np.nan), speech)):
        assert np.isnan(
            [sync_confidence(lips, sound), sync_distance(lips, sound), sync_offset(lips, sound)]
        ).all()


def test_every_crop_has_its_three_metrics_compared_with_the_driving_sound():
    for crop in ("syncnet_mesh", "syncnet_s3fd", "fullframe"):
        for name in ("avconf", "lse_d", "av_offset"):
            metric = METRICS[f"{name}_{crop}"]
            assert (metric.counts, metric.reference_in(True), metric.reference_in(False)) == (
                "pairs", "truth", "driving"
            )  # fmt: skip
            assert metric.compared_with == ("speech.syncnet", "sync_sound")
