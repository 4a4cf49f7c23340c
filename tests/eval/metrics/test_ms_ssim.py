import numpy as np
import pytest
import torch

from pipelines.eval.metrics.ms_ssim import (
    MIN_MS_SSIM_SIZE,
    SCALE_WEIGHTS,
    halve,
    ms_ssim_frame,
    ms_ssim_per_frame,
)


@pytest.fixture(scope="module")
def smooth() -> tuple[np.ndarray, np.ndarray]:
    """Two frames of 192 x 208 pixels in [0,1] that are alike at coarse scales and not at fine ones."""
    rng = np.random.default_rng(0)
    y, x, c = np.meshgrid(np.arange(192.0), np.arange(208.0), np.arange(3.0), indexing="ij")
    first = 0.5 + 0.3 * np.sin(0.05 * x * (c + 1) + 0.08 * y)
    return first, np.clip(first + 0.1 * rng.normal(size=first.shape), 0, 1)


def as_batch(frame):
    return torch.from_numpy(frame).permute(2, 0, 1)[None]


def test_every_scale_agrees_with_torchmetrics_where_windows_lie_inside(smooth):
    functional = pytest.importorskip("torchmetrics.functional.image")
    product, images = 1.0, smooth
    for scale, weight in enumerate(SCALE_WEIGHTS):
        batches = [as_batch(image) for image in images]
        if scale < len(SCALE_WEIGHTS) - 1:
            _, mean = functional.structural_similarity_index_measure(
                *batches, data_range=1.0, return_contrast_sensitivity=True
            )
        else:
            _, map_ = functional.structural_similarity_index_measure(
                *batches, data_range=1.0, return_full_image=True
            )
            mean = map_[..., 5:-5, 5:-5].mean()
        product *= float(mean) ** weight
        images = [torch.nn.functional.avg_pool2d(one, 2)[0].permute(1, 2, 0).numpy() for one in batches]
    assert ms_ssim_frame(*smooth) == pytest.approx(product, abs=1e-9)


def test_torchmetrics_whole_differs_by_the_border_of_the_coarsest_scale_alone(smooth):
    functional = pytest.importorskip("torchmetrics.functional.image")
    theirs = functional.multiscale_structural_similarity_index_measure(
        *(as_batch(image) for image in smooth), data_range=1.0
    )
    assert ms_ssim_frame(*smooth) == pytest.approx(float(theirs), abs=0.01)


def test_equal_frames_have_ms_ssim_one(smooth):
    assert ms_ssim_per_frame(smooth[0][None], smooth[0][None]).tolist() == [1.0]


def test_noise_counts_for_less_than_in_ssim(smooth):
    from pipelines.eval.metrics.ssim import ssim_frame

    assert ssim_frame(*smooth) < ms_ssim_frame(*smooth) < 1


def test_a_scale_below_zero_counts_as_zero():
    frame = np.random.default_rng(0).random((MIN_MS_SSIM_SIZE, MIN_MS_SSIM_SIZE, 3))
    assert ms_ssim_frame(frame, 1 - frame) == 0


def test_an_odd_last_row_and_column_are_left_out():
    image = np.random.default_rng(0).random((5, 3, 3))
    expected = torch.nn.functional.avg_pool2d(as_batch(image), 2)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(halve(image), expected)


def test_8_bit_frames_are_what_their_values_say(smooth):
    bytes_ = [np.round(one * 255).astype(np.uint8) for one in smooth]
    assert ms_ssim_frame(*bytes_) == pytest.approx(ms_ssim_frame(*(one / 255 for one in bytes_)), abs=1e-12)


def test_frames_too_small_for_five_scales_are_refused():
    frames = np.zeros((1, MIN_MS_SSIM_SIZE - 1, 256, 3))
    with pytest.raises(ValueError, match="175 x 256 px frames: the window fits into five scales from 176"):
        ms_ssim_per_frame(frames, frames)
