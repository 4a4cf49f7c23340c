from dataclasses import replace

import numpy as np
import pytest

from pipelines.eval.sample_frames import read_sample_frames
from pipelines.eval.sample_pictures import (
    middle_frame_visualizations,
    render_model_samples,
    render_pair_picture_columns,
)
from pipelines.media.mp4_bytes import decode_mp4


@pytest.fixture
def frames(road):
    return read_sample_frames(road.inputs["self/toy/samples"])


@pytest.fixture
def first(frames):
    return frames.pairs[0]


def test_columns_are_source_driving_output_and_error_large_enough_to_see(first):
    columns = render_pair_picture_columns(first, True)
    assert [images.shape for images in columns] == [(6, 192, 192, 3)] * 4
    np.testing.assert_array_equal(columns[0][0], columns[0][5])


def test_without_a_truth_no_error_is_shown(frames, first):
    assert len(render_pair_picture_columns(first, False)) == 3
    assert render_model_samples("toy", frames, False, 0).titles == [
        "source",
        "driving",
        "the frame itself",
        "toy",
    ]


def test_what_a_model_shows_of_its_own_work_stands_between_driving_and_output(frames, first, clips):
    samples = render_model_samples("toy", frames, True, 0)
    assert samples.titles == ["source", "driving = truth", "the frame itself", "toy", "error x4"]
    own, clip = middle_frame_visualizations(first)["the frame itself"], clips[first.pair]
    np.testing.assert_array_equal(own[::6, ::6], clip[4, ::2, ::2])  # the middle one, enlarged sixfold


def test_a_picture_of_another_size_is_brought_to_that_of_the_others(first):
    small = replace(first, visualization={"0 flow": np.zeros((8, 8, 3), np.uint8)})
    assert middle_frame_visualizations(small)["flow"].shape == (192, 192, 3)


def test_the_first_rows_of_the_grid_are_also_shown_moving(frames):
    samples = render_model_samples("toy", frames, True, 1)
    assert samples.pairs == [one.pair for one in frames.pairs]
    assert list(samples.videos) == samples.pairs[:1]
    assert len(decode_mp4(samples.videos[samples.pairs[0]])) == 6


def test_the_same_frames_give_the_same_bytes(frames):
    assert render_model_samples("toy", frames, True, 1) == render_model_samples("toy", frames, True, 1)
