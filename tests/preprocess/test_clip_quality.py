import numpy as np
import pytest

from pipelines.preprocess.clip_quality import ClipQualityMeter, audible_share, laplacian_variance


def passed(looks, images):
    """The frames that came through, each looked at before it is overwritten."""
    frame, shown = np.empty_like(images[0]), []

    def stream():
        for image in images:
            frame[:] = image
            yield frame

    for one in looks.observe(stream()):
        shown.append(one.copy())
    return np.stack(shown)


class Eyes:
    """A detector that sees a face in frames that are not black."""

    name = "eyes"

    def __init__(self):
        self.shown = []

    def detect(self, frames):
        self.shown.append(len(frames))
        return [np.ones((int(frame.max() > 0), 5), np.float32) for frame in frames]


def test_blur_lowers_sharpness(portrait):
    from scipy.ndimage import uniform_filter

    image, box = portrait[20:220, 120:320], np.array([50, 50, 150, 150], np.float32)
    assert laplacian_variance(uniform_filter(image, (5, 5, 1)), box) < 0.1 * laplacian_variance(image, box)
    assert laplacian_variance(image * 0, box) == 0


def test_sharpness_is_the_variance_of_the_laplacian():
    from scipy.ndimage import laplace

    grey = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    wanted = laplace(grey.astype(float))[6:29, 4:34].var()  # the box without its border
    assert laplacian_variance(grey[..., None].repeat(3, -1), np.array([3, 5, 35, 30.0])) == pytest.approx(
        wanted
    )


def test_a_box_outside_the_frame_has_no_sharpness():
    image = np.zeros((40, 40, 3), np.uint8)
    assert laplacian_variance(image, np.array([50, 50, 90, 90.0])) is None
    looks = ClipQualityMeter(np.tile(np.array([50, 50, 90, 90.0]), (6, 1)))
    passed(looks, image[None].repeat(6, 0))
    assert looks.sharpness() == 0


def test_sharpness_is_the_median_of_each_fifth_frame():
    images = np.random.default_rng(0).integers(0, 256, (16, 40, 40, 3), np.uint8)
    images[1:5] = 0
    boxes = np.tile(np.array([3, 5, 35, 30.0]), (16, 1))
    looks = ClipQualityMeter(boxes)
    np.testing.assert_array_equal(passed(looks, images), images)
    assert looks.sharpness() == np.median([laplacian_variance(image, boxes[0]) for image in images[::5]])
    assert looks.face_visible_share() is None


@pytest.mark.parametrize(("frames", "shown"), [(96, [32]), (99, [32, 1]), (10, [4])])
def test_a_detector_sees_each_third_frame_as_it_passes_by(frames, shown):
    images = np.zeros((frames, 8, 8, 3), np.uint8)
    images[::6] = 9  # half of those
    detector = Eyes()
    looks = ClipQualityMeter(np.zeros((frames, 4)), detector, 3)
    passed(looks, images)
    assert detector.shown == shown
    assert looks.face_visible_share() == images[::3].any((1, 2, 3)).mean()


def test_audible_share_counts_frames_above_the_floor():
    sound = np.zeros(10 * 640, np.float32)
    sound[640:1280] = 0.002
    sound[1280:1920] = 0.0005
    assert audible_share(sound, 0.001) == 0.1
