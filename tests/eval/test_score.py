import numpy as np
import pytest

from pipelines.errors import UserError
from pipelines.eval import score
from pipelines.eval.captions import caption, column_titles
from pipelines.eval.metrics import METRICS


def value(sums, method, metric):
    return METRICS[metric].compute(sums[method, metric])


@pytest.fixture
def clip(half_way, clips):
    """Nine frames."""
    return half_way.clip_of(next(iter(clips.values())))


@pytest.fixture
def driven(half_way, clip):
    return score.drive("toy", half_way, clip, [0], range(1, 9))


def test_every_method_gives_the_frames_of_the_truth(driven):
    methods, truth = driven
    assert truth.shape == (8, 32, 32, 3)
    assert {name: images.shape for name, images in methods.items()} == dict.fromkeys(
        ("toy", "copy_source", "codec"), truth.shape
    )


def test_a_model_half_way_to_the_truth_halves_the_l1_of_copying(driven):
    methods, truth = driven
    sums = score.score(methods, truth, ["l1"], None)
    assert value(sums, "toy", "l1") == pytest.approx(value(sums, "copy_source", "l1") / 2, rel=0.15)


def test_the_codec_baseline_is_nearer_the_truth_than_any_copy(driven):
    methods, truth = driven
    sums = score.score(methods, truth, ["psnr_frame"], None)
    assert value(sums, "codec", "psnr_frame") > value(sums, "toy", "psnr_frame")


def test_methods_are_scored_on_frames_where_all_have_a_face(driven):
    methods, truth = driven

    def landmarks(frames):  # no face where the picture is the copied source
        found = np.zeros((len(frames), 68, 2))
        if len(frames) > 1:
            found[-2:] = np.nan
        return found

    sums = score.score(methods, truth, ["akd_l1_dlib"], landmarks)
    assert {(s.n, s.missing) for s in sums.values()} == {(6.0, 2.0)}
    assert sums["toy", "akd_l1_dlib"].undetected == 2
    assert sums["copy_source", "akd_l1_dlib"].undetected == 0


def test_landmarks_are_sought_at_256_px(driven):
    methods, truth = driven
    sizes = set()

    def landmarks(frames):
        sizes.add(frames.shape[1:])
        return np.zeros((len(frames), 68, 2))

    score.score(methods, truth, ["akd_l2_dlib"], landmarks)
    assert sizes == {(256, 256, 3)}


@pytest.mark.parametrize(
    ("frames", "stride", "most", "expected"),
    [(5, 1, None, [1, 2, 3, 4]), (9, 3, None, [1, 4, 7]), (9, 1, 2, [1, 2])],
)
def test_frame_0_is_never_driven(frames, stride, most, expected):
    assert score.driving_indices(frames, stride, most) == expected


@pytest.mark.parametrize(("sources", "expected"), [(1, [0]), (2, [0, 8]), (3, [0, 4, 8])])
def test_sources_are_the_first_the_last_and_the_middle_frame(sources, expected):
    assert score.source_indices(9, sources) == expected


def test_no_source_is_ever_driven():
    for sources in (2, 3, 5):
        shown = score.source_indices(7, sources)
        assert set(score.driving_indices(7, 1, None, shown)) == set(range(7)) - set(shown)
    assert score.driving_indices(7, 2, None, [0, 1, 6]) == [2, 4]  # the stride counts what is left


def test_the_model_is_shown_all_sources_and_copying_shows_the_first(half_way, clip):
    shown = []

    class Keeps(type(half_way)):
        def drive(self, source, driving):
            shown.append((source.indices, driving.indices))
            return super().drive(source, driving)

    methods, truth = score.drive("toy", Keeps(), clip, [0, 8], range(1, 8))
    assert shown == [([0, 8], range(1, 8))]
    one, of_one = score.drive("toy", half_way, clip, [0], range(1, 9))
    np.testing.assert_array_equal(truth, of_one[:-1])
    np.testing.assert_array_equal(methods["copy_source"], one["copy_source"][:-1])


def test_a_model_of_the_wrong_size_is_named(half_way, clip):
    half_way.image_size = 48
    with pytest.raises(ValueError, match=r"toy gave \(8, 32, 32, 3\)"):
        score.drive("toy", half_way, clip, [0], range(1, 9))


def test_a_model_that_gives_nan_is_an_error(half_way, clip):
    class Broken(type(half_way)):
        def drive(self, source, driving):
            return super().drive(source, driving) * np.nan

    with pytest.raises(UserError, match="not finite"):
        score.drive("toy", Broken(), clip, [0], range(1, 9))


def test_the_largest_of_several_faces_is_taken():
    small, large = [0, 0, 10, 10, 2.0], [5, 5, 40, 40, 0.1]
    boxes = score.largest_faces([np.array([small, large], np.float32), np.zeros((0, 5), np.float32)])
    np.testing.assert_array_equal(boxes[0], large[:4])
    assert np.isnan(boxes[1]).all()


def test_the_caption_says_which_weights_are_not_the_published_ones():
    text = caption("fsrt", {"kp_detector": "distilled from dlib landmarks"})
    assert text == "fsrt · kp detector: distilled from dlib landmarks"


def test_a_cell_shows_source_driving_model_and_error(driven):
    methods, truth = driven
    cell = score.draw("toy", methods, truth, {}, {}, video=False)
    assert [image.shape for image in cell.row] == [(192, 192, 3)] * 4
    assert cell.titles == column_titles("toy")
    assert cell.video == b""


def test_what_a_model_shows_of_its_own_work_stands_between_truth_and_output(half_way, driven, clip):
    methods, truth = driven
    own = score.explained(half_way, clip, [0], range(1, 9))
    cell = score.draw("toy", methods, truth, {}, own, video=False)
    assert cell.titles == ["source", "driving = truth", "the frame itself", "toy", "error x4"]
    shown = cell.row[2][::6, ::6]  # enlarged sixfold; every other pixel of the middle driving frame
    np.testing.assert_array_equal(shown, clip.frames([5])[0, ::2, ::2])


def test_a_picture_of_its_own_that_does_not_fit_is_named(half_way, clip):
    half_way.image_size = 48
    with pytest.raises(
        ValueError, match=r"'the frame itself': uint8 \(32, 32, 3\), expected uint8 \(48, 48, 3"
    ):
        score.explained(half_way, clip, [0], range(1, 9))


def test_a_frame_is_decoded_once_for_model_and_baselines(half_way, clip):
    asked = []

    class Counts(type(clip)):
        def frames(self, indices):
            asked.extend(indices)
            return super().frames(indices)

    held = score.HeldClip(Counts(clip.images))
    score.drive("toy", half_way, held, [0], range(1, 9))
    np.testing.assert_array_equal(held.frames([7, 2, 2]), clip.frames([7, 2, 2]))
    assert sorted(asked) == list(range(9))
