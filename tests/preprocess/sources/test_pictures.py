"""Still pictures as recordings of one frame, through the stages that evaluation reads."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from models.perception.head.default_head import get_analytic_head
from pipelines.errors import Rejected, Transient, UserError
from pipelines.preprocess.clips import ClipsConfig, cut_clips
from pipelines.preprocess.clips_config import FrameCodecConfig
from pipelines.preprocess.download import DownloadConfig, convert_picture_to_video
from pipelines.preprocess.fit3dmm import Fit3dmmConfig, fit_clips
from pipelines.preprocess.keypoints import KeypointsConfig, find_keypoints
from pipelines.preprocess.recordings import DataConfig, list_corpus_recordings
from pipelines.preprocess.sources.pictures import (
    PictureFolderConfig,
    describe_skipped_files,
    digest_external_files,
    list_recordings,
    recording_images_to_video,
)
from pipelines.preprocess.speech import SpeechFeaturesConfig, encode_speech
from tests.video_files import RUNTIME, face_video, helpers, nets, portrait, predictor

__all__ = ["face_video", "helpers", "nets", "portrait", "predictor"]
DOWNLOAD = SimpleNamespace(sound="required", download=DownloadConfig())
CLIPS = ClipsConfig(size=128, min_frames=30, min_size=64, frames=FrameCodecConfig(codec="png"))


@pytest.fixture
def folder(tmp_path, monkeypatch, portrait):
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "faces"
    root.mkdir()
    Image.fromarray(portrait[:301, :303]).save(root / "eileen.png")  # of odd sides
    (root / "talk.mp4").write_bytes(b"no picture")
    (root / "notes.txt").write_text("nor this")
    return root


@pytest.fixture
def row(folder):
    (listed,) = list_corpus_recordings(
        DataConfig(source="pictures", pictures=PictureFolderConfig(path=str(folder)))
    ).rows
    return listed


def downloaded(row):
    (sample,) = convert_picture_to_video({"recordings": [row]}, DOWNLOAD, {}, RUNTIME)
    return sample


def test_pictures_are_listed_and_all_held_out(folder, row):
    assert (row["id"], row["identity"], row["split"], row["source"]) == (
        "eileen", "eileen", "test", "pictures"
    )  # fmt: skip
    assert list(digest_external_files(PictureFolderConfig(path=str(folder)))) == ["eileen.png"]


def test_a_folder_of_videos_is_refused_by_the_settings_name(folder):
    (folder / "eileen.png").unlink()
    with pytest.raises(UserError, match=r"data\.NAME\.pictures\.path .* holds no picture: left out are 1"):
        list_recordings(PictureFolderConfig(path=str(folder)))


def test_what_is_left_out_is_counted(folder):
    assert "left out are 1 .mp4; data.NAME.pictures.extensions lists" in describe_skipped_files(
        PictureFolderConfig(path=str(folder))
    )


def test_a_picture_is_a_video_of_one_frame_without_loss_and_needs_no_sound(row, portrait, nets):
    sample = downloaded(row)
    assert (sample["probe"]["frames"], sample["probe"]["audio_rate"]) == (1, 0)
    assert (sample["probe"]["width"], sample["probe"]["height"]) == (303, 301)
    assert sample["video"] == recording_images_to_video(row)


def test_a_picture_becomes_a_clip_of_one_frame_with_a_fit_and_speech(row, nets):
    inputs = {"recordings": [row], "download": [downloaded(row)]}
    (clip,) = cut_clips(inputs, CLIPS, nets, RUNTIME)
    assert clip["__key__"] == "eileen#eileen#000000#000001"
    assert clip["sound"].shape == (640,)
    clip |= {"frames": clip["frames"].decode()}
    assert clip["frames"].shape == (1, 128, 128, 3)
    (points,) = find_keypoints({"clips": [clip]}, KeypointsConfig(), nets, RUNTIME)
    assert np.isfinite(points["landmarks"]).all()
    head = {"analytic_head": get_analytic_head()}
    (fit,) = fit_clips({"keypoints": [points], "clips": [clip]}, Fit3dmmConfig(), head, RUNTIME)
    assert len(fit["rotation"]) == 1
    (speech,) = encode_speech({"clips": [clip]}, SpeechFeaturesConfig(), {}, RUNTIME)
    assert len(speech["speech"]) == 1


def test_a_picture_that_changed_since_it_was_listed_is_asked_for_again(row, folder, portrait):
    Image.fromarray(portrait).save(folder / "eileen.png")
    with pytest.raises(Transient, match="changed since it was listed"):
        downloaded(row)


def test_a_file_that_is_no_picture_is_rejected(folder):
    (folder / "eileen.png").write_bytes(b"no picture at all")
    (row,) = list_recordings(PictureFolderConfig(path=str(folder))).rows
    with pytest.raises(Rejected) as caught:
        downloaded(row | {"source": "pictures"})
    assert caught.value.code == "undecodable"
