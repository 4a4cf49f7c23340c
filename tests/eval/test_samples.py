import numpy as np
import pytest

from pipelines.eval.samples import SampleFrames, columns_of, make_samples, own_pictures
from pipelines.media.mp4_bytes import decode_mp4


@pytest.fixture
def frames(road):
    made = road.generated
    return SampleFrames(
        generated=made["toy"], source=made["copy_source"], driving=made["truth"], has_truth=True
    )


@pytest.fixture
def pair(frames):
    return frames.generated.keys[0]


def test_columns_are_source_driving_output_and_error_large_enough_to_see(frames, pair):
    columns = columns_of(frames, pair)
    assert [images.shape for images in columns] == [(6, 192, 192, 3)] * 4
    np.testing.assert_array_equal(columns[0][0], columns[0][5])


def test_without_a_truth_no_error_is_shown(road, pair):
    made = road.generated
    cross = SampleFrames(
        generated=made["toy"], source=made["copy_source"], driving=made["truth"], has_truth=False
    )
    assert len(columns_of(cross, pair)) == 3
    assert make_samples("toy", {}, cross, [pair], 0).titles == [
        "source",
        "driving",
        "the frame itself",
        "toy",
    ]


def test_what_a_model_shows_of_its_own_work_stands_between_driving_and_output(frames, pair, clips):
    samples = make_samples("toy", {}, frames, [pair], 0)
    assert samples.titles == ["source", "driving = truth", "the frame itself", "toy", "error x4"]
    own = own_pictures(frames, pair)["the frame itself"]
    np.testing.assert_array_equal(own[::6, ::6], clips[pair][4, ::2, ::2])  # the middle one, enlarged sixfold


def test_a_picture_of_another_size_is_brought_to_that_of_the_others(frames, kept_family, pair):
    sample = dict(frames.generated.read(pair)) | {"visualization": {"0 flow": np.zeros((8, 8, 3), np.uint8)}}
    small = SampleFrames(
        generated=kept_family([sample]), source=frames.source, driving=frames.driving, has_truth=True
    )
    assert own_pictures(small, pair)["flow"].shape == (192, 192, 3)


def test_the_first_rows_of_the_grid_are_also_shown_moving(frames):
    pairs = frames.generated.keys[:3]
    samples = make_samples("toy", {}, frames, pairs, 2)
    assert samples.pairs == pairs
    assert list(samples.videos) == pairs[:2]
    assert len(decode_mp4(samples.videos[pairs[0]])) == 6


def test_the_same_frames_give_the_same_bytes(frames, pair):
    assert make_samples("toy", {}, frames, [pair], 1) == make_samples("toy", {}, frames, [pair], 1)
