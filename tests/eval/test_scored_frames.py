"""Whose frames are scored, and what is said of them."""

import numpy as np
import pytest

from pipelines.errors import UserError
from pipelines.eval.config import EvalConfig
from pipelines.eval.protocols import EvaluationProtocol
from pipelines.eval.scored_frames import (
    H264_PSNR,
    check_scored_view,
    describe_frame_codec,
    is_lossless,
)
from pipelines.preprocess.clips_config import CropViewConfig, FrameCodecConfig, default_crop_views
from storage.frame_codec import FRAMES_EXTENSION_BY_CODEC, encode_images


@pytest.mark.parametrize(
    ("run", "protocol", "view"),
    [
        ("clips", "", ""),
        ("views.truth", "", "truth"),
        ("views.truth", "clips", ""),
        ("clips", "views.mine", "mine"),
    ],
)
def test_a_protocol_says_more_than_the_run(run, protocol, view):
    config = EvalConfig(frames_from=run)
    assert config.scored_view(EvaluationProtocol(frames_from=protocol)) == view


def test_the_view_that_is_there_by_default_is_without_loss_and_of_test_recordings_alone():
    views = default_crop_views()
    check_scored_view("truth", views, "eval.frames_from")
    assert is_lossless(views["truth"].frames)
    assert views["truth"].splits == ("test",)


@pytest.mark.parametrize(
    ("view", "told"),
    [
        ({"recipe": "vox512", "size": 256}, "eval.frames_from is views.mine, of recipe vox512, whose frames"),
        ({"recipe": "ffhq256"}, "expected a view of recipe clip_square, as views.truth"),
        (
            {"recipe": "clip_square", "splits": ("train",)},
            r"views.mine.splits is \[train\] and pairs are made",
        ),
    ],
)
def test_a_view_that_is_not_the_test_clips_is_refused_in_one_line(view, told):
    with pytest.raises(UserError, match=told) as caught:
        check_scored_view("mine", {"mine": CropViewConfig(**view)}, "eval.frames_from")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("splits", [(), ("test",), ("train", "test")])
def test_a_view_of_all_recordings_or_of_the_tested_ones_is_taken(splits):
    view = CropViewConfig(recipe="clip_square", splits=splits)
    check_scored_view("mine", {"mine": view}, "eval.frames_from")


@pytest.mark.parametrize("codec", FRAMES_EXTENSION_BY_CODEC)
def test_a_codec_is_called_lossless_if_it_is(codec):
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    exact = np.array_equal(encode_images(image, codec).decode(), image)
    stored = FrameCodecConfig(codec=codec)
    assert is_lossless(stored) == exact
    assert ("lossless" in describe_frame_codec(stored)) == exact


def test_how_much_a_codec_loses_is_said_where_it_was_measured():
    assert describe_frame_codec(FrameCodecConfig()) == "JPEG q95 4:2:0, 41 to 47 dB"
    assert describe_frame_codec(FrameCodecConfig(quality=80)) == "JPEG q80 4:2:0"
    assert describe_frame_codec(FrameCodecConfig(codec="h264")).endswith(f"about {H264_PSNR} dB")
