import importlib.util
from pathlib import Path

import numpy as np
import pytest

from models.perception.faces.dlib_resnet import load_dlib_resnet
from pipelines.errors import Rejected
from pipelines.preprocess.identity import (
    IdentityConfig,
    embed_identity,
    spread_over_frames_with_landmarks,
)
from storage.shards import encode_sample
from tests.eval.conftest import UnitSamples
from tests.video_files import RUNTIME

CONFIG = IdentityConfig(frames=4)


@pytest.fixture(scope="module")
def net():
    found = importlib.util.find_spec("face_recognition_models")
    folder = Path(found.submodule_search_locations[0]) / "models"
    return load_dlib_resnet({"dlib_resnet": folder / "dlib_face_recognition_resnet_model_v1.dat"})


@pytest.fixture(scope="module")
def walking_face(portrait, nets):
    """6 frames of 192 px and their landmarks: the face moves to the left by 4 px a frame."""
    frames = np.stack([portrait[30:222, 110 + 4 * t : 302 + 4 * t] for t in range(6)])
    box = nets["dlib_hog"].detect(frames[:1])[0][0, :4]
    boxes = np.stack([box - np.float32([4 * t, 0, 4 * t, 0]) for t in range(6)])
    return frames, nets["dlib68"].landmarks(frames, boxes)


def embed(net, *clips):
    """clips: (key, frames, landmarks)"""
    samples = {
        "clips": UnitSamples([{"__key__": key, "frames": frames} for key, frames, _ in clips]),
        "keypoints": UnitSamples([{"__key__": key, "landmarks": points} for key, _, points in clips]),
    }
    return list(embed_identity(samples, CONFIG, {"dlib_resnet": net}, RUNTIME))


def test_frames_are_spread_over_those_with_landmarks():
    landmarks = np.full((100, 68, 2), np.nan)
    landmarks[20:60] = 1
    assert spread_over_frames_with_landmarks(landmarks, 4).tolist() == [20, 33, 46, 59]
    assert spread_over_frames_with_landmarks(landmarks[:22], 4).tolist() == [20, 21]


def test_the_frames_of_one_face_are_embedded_near_each_other(net, walking_face):
    (sample,) = embed(net, ("ann#rec#000000#000006", *walking_face))
    embeddings = sample["embeddings"]
    assert embeddings.shape == (4, 128)
    assert embeddings.dtype == np.float32
    assert np.linalg.norm(embeddings - embeddings[0], axis=1).max() < 0.3


def test_a_clip_without_a_face_keeps_its_place_with_no_embedding(net, walking_face):
    frames, landmarks = walking_face
    lost = ("ann#rec#000006#000012", frames, np.full_like(landmarks, np.nan))
    found = embed(net, ("ann#rec#000000#000006", frames, landmarks), lost)
    assert [len(sample["embeddings"]) for sample in found] == [4, 0]
    encode_sample(found[1])


def test_a_clip_that_keypoints_left_out_keeps_its_place_with_no_embedding(net, walking_face):
    frames, landmarks = walking_face
    keys = ("ann#rec#000000#000006", "ann#rec#000006#000012")
    samples = {
        "clips": UnitSamples([{"__key__": key, "frames": frames} for key in keys]),
        "keypoints": UnitSamples([{"__key__": keys[0], "landmarks": landmarks}]),
    }
    found = list(embed_identity(samples, CONFIG, {"dlib_resnet": net}, RUNTIME))
    assert [(one["__key__"], len(one["embeddings"])) for one in found] == [(keys[0], 4), (keys[1], 0)]


def test_a_recording_without_any_face_is_rejected(net, walking_face):
    frames, landmarks = walking_face
    with pytest.raises(Rejected, match="no_face: none of the 1 clips has landmarks in any frame"):
        embed(net, ("ann#rec#000000#000006", frames, np.full_like(landmarks, np.nan)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": 1}, "frames 1: expected 2 to 256"),
        ({"threshold": 0.25}, "threshold 0.25, unlike -2.0: expected a threshold from -20 to 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        IdentityConfig(**settings)
