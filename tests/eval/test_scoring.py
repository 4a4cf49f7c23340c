import numpy as np
import pytest

from pipelines.eval import scoring
from pipelines.eval.metrics import METRICS


def value(sums, method, metric):
    return METRICS[metric].compute(sums[method, metric])


@pytest.fixture
def driven(half_way, clips):
    return scoring.drive("toy", half_way, next(iter(clips.values())))


def test_every_method_gives_the_frames_of_the_truth(driven):
    methods, truth = driven
    assert truth.shape == (8, 32, 32, 3)
    assert {name: images.shape for name, images in methods.items()} == dict.fromkeys(
        ("toy", "copy_source", "codec"), truth.shape
    )


def test_a_model_half_way_to_the_truth_halves_the_l1_of_copying(driven):
    methods, truth = driven
    sums = scoring.score(methods, truth, ["l1"], None)
    assert value(sums, "toy", "l1") == pytest.approx(value(sums, "copy_source", "l1") / 2, rel=0.15)


def test_the_codec_baseline_is_nearer_the_truth_than_any_copy(driven):
    methods, truth = driven
    sums = scoring.score(methods, truth, ["psnr_frame"], None)
    assert value(sums, "codec", "psnr_frame") > value(sums, "toy", "psnr_frame")


def test_methods_are_scored_on_frames_where_all_have_a_face(driven):
    methods, truth = driven

    def landmarks(frames):  # no face where the picture is the copied source
        found = np.zeros((len(frames), 68, 2))
        if len(frames) > 1:
            found[-2:] = np.nan
        return found

    sums = scoring.score(methods, truth, ["akd_l1_dlib"], landmarks)
    assert {(s.n, s.missing) for s in sums.values()} == {(6.0, 2.0)}
    assert sums["toy", "akd_l1_dlib"].undetected == 2
    assert sums["copy_source", "akd_l1_dlib"].undetected == 0


def test_landmarks_are_sought_at_256_px(driven):
    methods, truth = driven
    sizes = set()

    def landmarks(frames):
        sizes.add(frames.shape[1:])
        return np.zeros((len(frames), 68, 2))

    scoring.score(methods, truth, ["akd_l2_dlib"], landmarks)
    assert sizes == {(256, 256, 3)}


@pytest.mark.parametrize(
    ("frames", "stride", "most", "expected"),
    [(5, 1, None, [1, 2, 3, 4]), (9, 3, None, [1, 4, 7]), (9, 1, 2, [1, 2])],
)
def test_frame_0_is_never_driven(frames, stride, most, expected):
    assert scoring.driving_indices(frames, stride, most) == expected


@pytest.mark.parametrize(("sources", "expected"), [(1, [0]), (2, [0, 8]), (3, [0, 4, 8])])
def test_sources_are_the_first_the_last_and_the_middle_frame(sources, expected):
    assert scoring.source_indices(9, sources) == expected


def test_no_source_is_ever_driven():
    for sources in (2, 3, 5):
        shown = scoring.source_indices(7, sources)
        assert set(scoring.driving_indices(7, 1, None, shown)) == set(range(7)) - set(shown)
    assert scoring.driving_indices(7, 2, None, [0, 1, 6]) == [2, 4]  # the stride counts what is left


def test_the_model_is_shown_all_sources_and_copying_shows_the_first(half_way, clips):
    frames = next(iter(clips.values()))
    shown = []

    class Keeps(type(half_way)):
        def reenact(self, source, driving):
            shown.append(source)
            return super().reenact(source[0], driving)

    methods, truth = scoring.drive("toy", Keeps(), frames, 2)
    np.testing.assert_array_equal(shown[0], frames[:2])
    one, of_one = scoring.drive("toy", half_way, frames)
    np.testing.assert_array_equal(truth, of_one[1:])
    np.testing.assert_array_equal(methods["copy_source"], one["copy_source"][1:])


def test_a_model_of_the_wrong_size_is_named(half_way, clips):
    half_way.image_size = 48
    with pytest.raises(ValueError, match=r"toy gave \(8, 32, 32, 3\)"):
        scoring.drive("toy", half_way, next(iter(clips.values())))


def test_a_model_that_gives_nan_is_an_error(half_way, clips):
    class Broken(type(half_way)):
        def reenact(self, source, driving):
            return super().reenact(source, driving) * np.nan

    with pytest.raises(FloatingPointError, match="not finite"):
        scoring.drive("toy", Broken(), next(iter(clips.values())))


def test_the_largest_of_several_faces_is_taken():
    small, large = [0, 0, 10, 10, 2.0], [5, 5, 40, 40, 0.1]
    boxes = scoring.largest_faces([np.array([small, large], np.float32), np.zeros((0, 5), np.float32)])
    np.testing.assert_array_equal(boxes[0], large[:4])
    assert np.isnan(boxes[1]).all()


def test_the_caption_says_which_weights_are_not_the_published_ones():
    text = scoring.caption("fsrt", {"kp_detector": "distilled from dlib landmarks"})
    assert text == "fsrt · kp detector: distilled from dlib landmarks"


def test_a_cell_shows_source_driving_model_and_error(driven):
    methods, truth = driven
    cell = scoring.draw("toy", methods, truth, {}, video=False)
    assert [image.shape for image in cell.row] == [(192, 192, 3)] * 4
    assert cell.video == b""
