"""Stages of baselines that are made of landmarks and frames alone."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.errors import Rejected
from pipelines.eval import landmark_baselines as baselines
from pipelines.eval.pairs import read_pairs
from pipelines.figures import picture_grids

CONFIG = SimpleNamespace(size=64, motion="absolute", seed=0)
RELATIVE = SimpleNamespace(size=64, motion="relative")


@pytest.fixture
def pair(road):
    """Source frame 0, driving frames 1 to 6, of a clip of 64 px."""
    return read_pairs(road.pairs.out / "pairs.parquet")[0]


@pytest.fixture
def unit(pair, unit_of, clips):
    return unit_of(pair, clips)


@pytest.fixture
def marks(unit):
    """(9,68,2) of the only clip, to be changed."""
    return unit["keypoints"][0]["landmarks"]


def only(samples):
    (sample,) = samples
    return sample["frames"].decode(), sample["method"]


def test_the_warp_is_the_source_where_the_driving_landmarks_are_the_sources_own(unit, marks, clips, pair):
    marks[:] = marks[:1]
    frames, about = only(baselines.warp_source(unit, CONFIG, {}))
    np.testing.assert_array_equal(frames, clips[pair.id][:1].repeat(6, 0))
    assert about == {"provenance": {}, "image_size": 64, "frames_without_landmarks": 0}


def test_the_warp_moves_the_source_as_the_driving_landmarks_go(unit, marks, clips, pair):
    marks[:] = marks[:1] + 3.0 * np.arange(9)[:, None, None].clip(0, 2)
    frames, _ = only(baselines.warp_source(unit, CONFIG, {}))
    source = clips[pair.id][0]
    np.testing.assert_array_equal(frames[0][28:34, 30:36], source[25:31, 27:33])
    np.testing.assert_array_equal(frames[1][28:34, 30:36], source[22:28, 24:30])


def test_relative_warps_start_as_the_source(unit, marks, clips, pair):
    marks[1:] += 5.0
    frames, _ = only(baselines.warp_source(unit, RELATIVE, {}))
    np.testing.assert_array_equal(frames[0], clips[pair.id][0])


def test_a_warp_is_judged_at_the_size_of_the_protocol(unit, marks, clips, pair):
    marks[:] = marks[:1]
    frames, _ = only(baselines.warp_source(unit, SimpleNamespace(size=32, motion="absolute"), {}))
    expected = picture_grids.to_uint8(picture_grids.resize_frames(clips[pair.id][:1], 32))
    np.testing.assert_array_equal(frames, expected.repeat(6, 0))


def test_a_driving_frame_without_landmarks_is_warped_as_the_last_one_and_counted(unit, marks):
    marks[3:5] = np.nan
    frames, about = only(baselines.warp_source(unit, CONFIG, {}))
    np.testing.assert_array_equal(frames[2], frames[1])  # of clip frames 3 and 2
    np.testing.assert_array_equal(frames[3], frames[1])
    assert about["frames_without_landmarks"] == 2


def test_of_several_sources_the_first_with_landmarks_is_warped(unit, marks, clips, pair):
    unit["pairs"][0]["source_frames"] = [0, 8]
    marks[:] = marks[8]
    marks[0] = np.nan
    frames, _ = only(baselines.warp_source(unit, CONFIG, {}))
    np.testing.assert_array_equal(frames[0], clips[pair.id][8])


@pytest.mark.parametrize(("frames", "side"), [(slice(0, 1), "source"), (slice(1, 7), "driving")])
def test_a_pair_without_any_landmarks_is_a_row_with_a_reason(unit, marks, frames, side):
    marks[frames] = np.nan
    with pytest.raises(Rejected, match=f"none of the pair's {side} frames has landmarks"):
        list(baselines.warp_source(unit, CONFIG, {}))


@pytest.mark.parametrize("stage", [baselines.warp_source, baselines.mean_mouth, baselines.random_mouth])
def test_a_clip_that_keypoints_left_out_is_a_row_with_a_reason(unit, unit_samples, stage):
    unit["keypoints"] = unit_samples([])
    with pytest.raises(Rejected) as caught:
        list(stage(unit, CONFIG, {}))
    assert caught.value.code == "no_landmarks"


@pytest.mark.parametrize("stage", [baselines.mean_mouth, baselines.random_mouth])
def test_only_the_mouth_of_the_driving_frames_is_replaced(unit, marks, clips, pair, stage):
    frames, _ = only(stage(unit, CONFIG, {}))
    truth = clips[pair.id][1:7]
    np.testing.assert_array_equal(frames[:, :30], truth[:, :30])
    for t in range(6):
        x, y = marks[t + 1, 48:68].mean(0).astype(int)
        assert (frames[t, y - 2 : y + 3, x - 4 : x + 5] != truth[t, y - 2 : y + 3, x - 4 : x + 5]).any()


def test_random_mouths_are_of_frames_that_have_landmarks_and_another_seed_gives_others(unit, marks):
    marks[3] = np.nan
    frames, about = only(baselines.random_mouth(unit, CONFIG, {}))
    assert about["frames_without_landmarks"] == 1
    others, _ = only(baselines.random_mouth(unit, SimpleNamespace(size=64, seed=1), {}))
    assert (frames != others).any()


def test_a_mouth_of_another_frame_needs_two_frames_with_landmarks(unit, marks):
    marks[2:] = np.nan
    with pytest.raises(Rejected, match="one driving frame alone has landmarks"):
        list(baselines.random_mouth(unit, CONFIG, {}))
