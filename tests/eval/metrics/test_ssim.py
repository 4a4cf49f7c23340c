import numpy as np
import pytest
from skimage.metrics import structural_similarity

from pipelines.errors import UserError
from pipelines.eval.metrics import ssim


def test_ssim_of_each_frame_is_the_golden_one(images, golden):
    values = [ssim.ssim_frame(images[1][i], images[0][i]) for i in range(4)]
    assert values == pytest.approx(golden["ssim"]["sk_gauss_popcov_range1_per_frame"], abs=1e-12)


def test_ssim_of_a_clip_is_the_mean_over_its_frames(images, golden):
    expected = np.mean(golden["ssim"]["sk_gauss_popcov_range1_per_frame"])
    assert ssim.ssim_per_frame(images[1], images[0]).mean() == pytest.approx(expected, abs=1e-12)


def test_ssim_agrees_with_skimage_on_noise_of_any_shape():
    rng = np.random.default_rng(0)
    a, b = rng.random((37, 23, 3)), rng.random((37, 23, 3))
    theirs = structural_similarity(
        a, b, channel_axis=-1, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim.ssim_frame(a, b) == pytest.approx(theirs, abs=1e-12)


def test_equal_frames_have_ssim_one(images):
    assert ssim.ssim_per_frame(images[0], images[0]) == pytest.approx(np.ones(4), abs=1e-12)


def test_frames_smaller_than_the_window_are_refused():
    with pytest.raises(UserError, match="expected at least 11"):
        ssim.ssim_per_frame(np.zeros((1, 8, 8, 3)), np.zeros((1, 8, 8, 3)))
