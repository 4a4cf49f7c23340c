import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from pipelines.eval.metrics import psnr


def test_pooled_psnr_is_the_golden_one(images, golden):
    value = psnr.compute_pooled(psnr.update_pooled(images[1], images[0]))
    assert value == pytest.approx(golden["psnr"]["of_pooled_mse_float01"], abs=1e-9)


def test_frame_psnr_is_the_golden_one(images, golden):
    value = psnr.compute_frame(psnr.update_frame(images[1], images[0]))
    assert value == pytest.approx(golden["psnr"]["mean_of_frames_float01"], abs=1e-9)


def test_psnr_of_8_bit_frames_is_the_golden_one(images, golden):
    u8 = [np.floor(np.clip(i, 0, 1) * 255 + 0.5) / 255 for i in images]
    pooled = psnr.compute_pooled(psnr.update_pooled(u8[1], u8[0]))
    assert pooled == pytest.approx(golden["psnr"]["of_pooled_mse_u8"], abs=1e-9)


def test_frame_psnr_agrees_with_skimage(images):
    ours = psnr.compute_frame(psnr.update_frame(images[1][:1], images[0][:1]))
    assert ours == pytest.approx(peak_signal_noise_ratio(images[0][0], images[1][0], data_range=1), abs=1e-9)


def test_identical_frames_count_as_the_cap_and_are_counted(images):
    sums = psnr.update_frame(images[0], images[0])
    assert (psnr.compute_frame(sums), sums.capped) == (psnr.CAP_DB, 4)


def test_identical_clips_pool_to_the_cap(images):
    assert psnr.compute_pooled(psnr.update_pooled(images[0], images[0])) == psnr.CAP_DB


def test_mean_over_frames_is_never_below_the_pooled_value(images):
    pooled = psnr.compute_pooled(psnr.update_pooled(*images))
    assert psnr.compute_frame(psnr.update_frame(*images)) >= pooled
