import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from pipelines.eval.metrics import sum_frame_values
from pipelines.eval.metrics.psnr import (
    MAX_PSNR_DB,
    PSNR_FRAME_MEAN_METRIC,
    PSNR_POOLED_METRIC,
    mse_per_frame,
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


def test_psnr_of_8_bit_frames_is_the_golden_one(images_8_bit, golden):
    for metric, name in (
        (PSNR_POOLED_METRIC, "of_pooled_mse_u8"), (PSNR_FRAME_MEAN_METRIC, "mean_of_frames_u8")
    ):  # fmt: skip
        found = value(metric, images_8_bit[1], images_8_bit[0])
        assert found == pytest.approx(golden["psnr"][name], abs=1e-9)


def test_psnr_of_each_frame_is_the_golden_one(images, golden):
    values = psnr_per_frame(images[1], images[0])
    assert values == pytest.approx(golden["psnr"]["per_frame_float01"], abs=1e-9)


def test_squared_errors_are_the_golden_ones(images, images_8_bit, golden):
    values = mse_per_frame(images[1], images[0])
    assert values == pytest.approx(golden["mse"]["per_frame_float01"], abs=1e-12)
    assert values.mean() == pytest.approx(golden["mse"]["float01"], abs=1e-12)
    values = mse_per_frame(images_8_bit[1], images_8_bit[0]) * 255**2
    assert values == pytest.approx(golden["mse"]["per_frame_u8"], rel=1e-12)
    assert values.mean() == pytest.approx(golden["mse"]["u8"], rel=1e-12)


def test_psnr_agrees_with_torchmetrics_to_its_float32_data_range(images):
    functional = pytest.importorskip("torchmetrics.functional.image")
    ours = psnr_per_frame(images[1], images[0])
    theirs = functional.peak_signal_noise_ratio(
        torch.from_numpy(images[1]), torch.from_numpy(images[0]), data_range=1.0, dim=(1, 2, 3),
        reduction="none",
    )  # fmt: skip
    assert ours == pytest.approx(theirs.numpy(), abs=2e-6)


def test_frame_psnr_agrees_with_skimage(images):
    theirs = peak_signal_noise_ratio(images[0][0], images[1][0], data_range=1)
    assert value(PSNR_FRAME_MEAN_METRIC, images[1][:1], images[0][:1]) == pytest.approx(theirs, abs=1e-9)


def test_identical_frames_count_as_the_cap(images):
    assert psnr_per_frame(images[0], images[0]).tolist() == [MAX_PSNR_DB] * 4


def test_identical_clips_pool_to_the_cap(images):
    assert value(PSNR_POOLED_METRIC, images[0], images[0]) == MAX_PSNR_DB


def test_mean_over_frames_is_never_below_the_pooled_value(images):
    assert value(PSNR_FRAME_MEAN_METRIC, *images) >= value(PSNR_POOLED_METRIC, *images)
