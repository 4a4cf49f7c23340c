import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from pipelines.eval.metrics import ssim
from pipelines.eval.metrics.ssim import GAUSSIAN_11, GAUSSIAN_11_MIRRORED, UNIFORM_7, ssim_per_frame

OF_SKIMAGE = {
    GAUSSIAN_11: {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
    UNIFORM_7: {},
}


def noise(height, width, seed=0):
    """Two frames that share a part, so that SSIM is not about 0."""
    rng = np.random.default_rng(seed)
    first, second = rng.random((2, height, width, 3))
    return first, (first + second) / 2


@pytest.mark.parametrize(
    ("window", "name"),
    [
        (GAUSSIAN_11, "sk_gauss_popcov_range1_per_frame"),
        (GAUSSIAN_11, "tm_full_map_cropped5_per_frame"),
        (UNIFORM_7, "sk_default_uniform7_samplecov_range1_per_frame"),
        (GAUSSIAN_11_MIRRORED, "tm_default_gauss11_s1.5_range1_per_frame"),
    ],
)
def test_ssim_of_each_frame_is_the_golden_one(images, golden, window, name):
    assert ssim_per_frame(images[1], images[0], window) == pytest.approx(golden["ssim"][name], abs=1e-11)


@pytest.mark.parametrize(
    ("window", "name"),
    [
        (GAUSSIAN_11, "sk_u8_gauss_popcov_range255_per_frame"),
        (UNIFORM_7, "sk_u8_default_uniform7_range255_per_frame"),
    ],
)
def test_ssim_of_8_bit_frames_is_the_golden_one(images_8_bit, golden, window, name):
    values = ssim_per_frame(images_8_bit[1], images_8_bit[0], window)
    assert values == pytest.approx(golden["ssim"][name], abs=1e-11)


@pytest.mark.parametrize("window", OF_SKIMAGE, ids=lambda one: one.name)
@settings(max_examples=20, deadline=None)
@given(height=st.integers(11, 60), width=st.integers(11, 40), seed=st.integers(0, 2**32 - 1))
def test_ssim_agrees_with_skimage_on_frames_of_any_shape(window, height, width, seed):
    first, second = noise(height, width, seed)
    theirs = structural_similarity(first, second, channel_axis=-1, data_range=1, **OF_SKIMAGE[window])
    assert ssim.ssim_frame(first, second, window) == pytest.approx(theirs, abs=1e-9)


def test_ssim_agrees_with_skimage_on_256_px_frames_of_8_bit():
    first, second = ((one * 255).astype(np.uint8) for one in noise(256, 256))
    for window, how in OF_SKIMAGE.items():
        theirs = structural_similarity(first, second, channel_axis=-1, data_range=255, **how)
        assert ssim.ssim_frame(first, second, window) == pytest.approx(theirs, abs=1e-9)


def test_the_mirrored_form_agrees_with_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.image")
    first, second = noise(37, 23)
    theirs = functional.structural_similarity_index_measure(
        *(torch.from_numpy(one).permute(2, 0, 1)[None] for one in (first, second)), data_range=1.0
    )
    assert ssim.ssim_frame(first, second, GAUSSIAN_11_MIRRORED) == pytest.approx(float(theirs), abs=1e-9)


def test_covariance_of_samples_differs_from_that_of_the_population(images, golden):
    window = GAUSSIAN_11._replace(unbiased=True)
    expected = golden["ssim"]["sk_gauss_samplecov_range1_per_frame"]
    assert ssim_per_frame(images[1], images[0], window) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("window", [GAUSSIAN_11, GAUSSIAN_11_MIRRORED, UNIFORM_7], ids=lambda one: one.name)
def test_equal_frames_have_ssim_one(images, images_8_bit, window):
    for frames in (images[0], images_8_bit[0]):
        assert ssim_per_frame(frames, frames, window).tolist() == [1.0] * 4


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_ssim_is_the_same_both_ways_and_at_most_one(seed):
    first, second = noise(20, 20, seed)
    assert ssim.ssim_frame(first, second) == pytest.approx(ssim.ssim_frame(second, first), abs=1e-12)
    assert ssim.ssim_frame(first, second) < 1


def test_frames_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match="expected at least 11"):
        ssim_per_frame(np.zeros((1, 8, 8, 3)), np.zeros((1, 8, 8, 3)))
