import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from pipelines.eval.metrics import sum_frame_values
from pipelines.eval.metrics.psnr import (
    MAX_PSNR_DB,
    PSNR_FRAME_MEAN_METRIC,
    PSNR_POOLED_METRIC,
    psnr_per_frame,
)


def value(metric, prediction, target):
    return metric.compute(sum_frame_values(metric.per_frame(prediction, target)))


def test_pooled_psnr_is_the_golden_one(images, golden):
    expected = golden["psnr"]["of_pooled_mse_float01"]
    assert value(PSNR_POOLED_METRIC, images[1], images[0]) == pytest.approx(expected, abs=1e-9)


def test_frame_psnr_is_the_golden_one(images, golden):
    expected = golden["psnr"]["mean_of_frames_float01"]
    assert value(PSNR_FRAME_MEAN_METRIC, images[1], images[0]) == pytest.approx(expected, abs=1e-9)


def test_psnr_of_8_bit_frames_is_the_golden_one(images, golden):
    u8 = [np.floor(np.clip(i, 0, 1) * 255 + 0.5) / 255 for i in images]
    assert value(PSNR_POOLED_METRIC, u8[1], u8[0]) == pytest.approx(
        golden["psnr"]["of_pooled_mse_u8"], abs=1e-9
    )


def test_frame_psnr_agrees_with_skimage(images):
    theirs = peak_signal_noise_ratio(images[0][0], images[1][0], data_range=1)
    assert value(PSNR_FRAME_MEAN_METRIC, images[1][:1], images[0][:1]) == pytest.approx(theirs, abs=1e-9)


def test_identical_frames_count_as_the_cap(images):
    assert psnr_per_frame(images[0], images[0]).tolist() == [MAX_PSNR_DB] * 4


def test_identical_clips_pool_to_the_cap(images):
    assert value(PSNR_POOLED_METRIC, images[0], images[0]) == MAX_PSNR_DB


def test_mean_over_frames_is_never_below_the_pooled_value(images):
    assert value(PSNR_FRAME_MEAN_METRIC, *images) >= value(PSNR_POOLED_METRIC, *images)
