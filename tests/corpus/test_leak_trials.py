"""Mistakes among sixteen rendered people are found: dlib's embeddings of their clips as
tests/bench/bench_identity_leaks.py makes them, three recordings each (tests/golden/rendered_identity.npz)."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.preprocess.identity import IdentityConfig
from tests.corpus.leak_trials import (
    Clip,
    rename_clips,
    sum_trials,
    try_clip_twice,
    try_two_names,
    try_wrong_name,
)
from tests.corpus.test_near_duplicates import cut_anew, moving_face

TRIALS, CONFIG = 10, IdentityConfig()
GOLDEN = Path(__file__).parents[1] / "golden" / "rendered_identity.npz"


@pytest.fixture(scope="module")
def people():
    """The embeddings are real, the landmarks are made."""
    embeddings = np.load(GOLDEN)["embeddings"].astype(np.float32)  # (16,3,8,128)
    rng = np.random.default_rng(0)
    return {
        f"p{number:02d}": [
            [Clip(f"p{number:02d}#p{number:02d}-{take}#000000#000040", frames, moving_face(rng))]
            for take, frames in enumerate(recordings)
        ]
        for number, recordings in enumerate(embeddings)
    }


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def assert_found(trial):
    found, false_names, pairs = sum_trials([trial() for _ in range(TRIALS)])
    assert found >= 0.9 * TRIALS
    assert false_names <= pairs / 1000


@pytest.mark.parametrize("recordings", [1, 2])
def test_one_person_under_two_names_is_found(people, rng, recordings):
    assert_found(lambda: try_two_names(people, recordings, CONFIG, rng))


def test_one_clip_under_a_wrong_name_is_found(people, rng):
    assert_found(lambda: try_wrong_name(people, CONFIG, rng))


def test_one_clip_that_is_there_twice_is_found(people, rng):
    copies = {}
    for own in people.values():
        for (clip,) in own:
            recording = clip.key.split("#")[1]
            copy = clip._replace(landmarks=cut_anew(rng, clip.landmarks, 8))
            copies[recording] = rename_clips([copy], clip.key.split("#")[0], f"{recording}-copy")
    assert_found(lambda: try_clip_twice(people, copies, rng))
