import numpy as np
import pytest

from pipelines.eval.sample_frames import read_sample_frames


@pytest.fixture
def toy(road):
    return read_sample_frames(road.inputs["self/toy/samples"])


def test_samples_are_the_frames_that_were_generated(road, toy):
    pair = toy.pairs[0].pair
    for column, method in (("source", "copy_source"), ("driving", "truth"), ("output", "toy")):
        np.testing.assert_array_equal(
            getattr(toy.pairs[0], column), road.generated[method].read(pair)["frames"]
        )


def test_of_a_pair_without_a_video_the_middle_frame_is_kept(road, toy):
    other = toy.pairs[1]
    frames = road.generated["toy"].read(other.pair)["frames"]
    assert len(frames) == 6
    np.testing.assert_array_equal(other.output, frames[3:4])
    assert len(other.driving) == 1


def test_pairs_are_spread_evenly_over_those_that_the_model_has(road, toy):
    keys = road.generated["toy"].keys
    assert [one.pair for one in toy.pairs] == [keys[0], keys[-1]]


def test_what_a_model_says_and_shows_of_its_work_comes_along(toy):
    assert toy.provenance == {"kp_detector": "distilled from dlib landmarks"}
    assert set(toy.pairs[0].visualization) == {"0 the frame itself"}
