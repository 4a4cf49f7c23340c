from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.engine.node import Rejected
from pipelines.preprocess.keypoints import KeypointsConfig, between, find_keypoints
from storage.shards import encode_sample

CONFIG = SimpleNamespace(keypoints=KeypointsConfig())


def clip_of(frames, key="ann#rec#000000#000020"):
    return {"__key__": key, "frames": frames, "clip": {"frames": len(frames)}}


@pytest.fixture(scope="module")
def face(portrait):
    """20 frames of 192 px: the face moves to the left by 2 px a frame."""
    return clip_of(np.stack([portrait[30:222, 110 + 2 * t : 302 + 2 * t] for t in range(20)]))


@pytest.fixture(scope="module")
def sample(face, nets):
    (found,) = find_keypoints({"clips": [face]}, CONFIG, nets)
    return found


def test_landmarks_lie_on_the_face_and_move_with_it(sample):
    points = sample["landmarks"]
    assert points.shape == (20, 68, 2)
    assert points.dtype == np.float32
    assert np.isfinite(points).all()
    eyes, mouth = points[:, 36:48].mean(1), points[:, 48:].mean(1)
    assert (mouth[:, 1] > eyes[:, 1] + 20).all()
    shift = points.mean(1)[-1] - points.mean(1)[0]
    np.testing.assert_allclose(shift, [-38, 0], atol=4)


def test_box_and_score_are_there_in_every_frame(sample):
    assert sample["face_box"].shape == (20, 4)
    assert np.isfinite(sample["face_box"]).all()
    assert (sample["score"] > 0).all()


def test_the_same_clip_gives_the_same_bytes(face, sample, nets):
    (again,) = find_keypoints({"clips": [face]}, CONFIG, nets)
    assert encode_sample(again) == encode_sample(sample)


def test_frames_without_a_face_are_nan_with_score_0(face, nets):
    blank = np.zeros_like(face["frames"])
    clip = clip_of(np.concatenate([face["frames"], blank, blank]))
    (found,) = find_keypoints({"clips": [clip]}, CONFIG, nets)
    assert np.isfinite(found["landmarks"][:18]).all()
    assert np.isnan(found["landmarks"][25:]).all()
    assert np.isnan(found["face_box"][25:]).all()
    assert (found["score"][25:] == 0).all()


def test_a_recording_without_any_face_is_rejected(face, nets):
    blank = clip_of(np.zeros_like(face["frames"]))
    with pytest.raises(Rejected) as caught:
        find_keypoints({"clips": [blank, blank]}, CONFIG, nets)
    assert caught.value.code == "no_landmarks"


def test_one_clip_without_a_face_keeps_its_place(face, nets):
    blank = clip_of(np.zeros_like(face["frames"]), "ann#rec#000020#000040")
    found = find_keypoints({"clips": [face, blank]}, CONFIG, nets)
    assert [s["__key__"] for s in found] == [face["__key__"], blank["__key__"]]
    assert np.isnan(found[1]["landmarks"]).all()


def test_of_two_faces_the_larger_is_taken(portrait, nets):
    frames = np.full((4, 192, 400, 3), 90, np.uint8)
    frames[:, :, 200:392] = portrait[30:222, 110:302]
    small = portrait[30:222, 110:302][::2, ::2]
    frames[:, 40:136, 20:116] = small
    detector = SimpleNamespace(
        name="two",
        detect=lambda images: (
            [np.array([[40, 62, 86, 108, 2.0], [240, 64, 340, 164, 1.0]], np.float32)] * len(images)
        ),
    )
    (found,) = find_keypoints({"clips": [clip_of(frames)]}, CONFIG, {**nets, "dlib_hog": detector})
    assert (found["face_box"][:, 0] == 240).all()


def test_boxes_between_detections_are_interpolated():
    faces = np.array([[0, 0, 10, 10, 1], [4, 0, 14, 10, 3]], np.float32)
    boxes, score = between(faces, np.array([2, 6]), 9, max_gap=4)
    np.testing.assert_allclose(boxes[2:7, 0], [0, 1, 2, 3, 4])
    np.testing.assert_allclose(score[2:7], [1, 1.5, 2, 2.5, 3])
    assert np.isnan(boxes[[0, 1, 7, 8]]).all()
    assert (score[[0, 1, 7, 8]] == 0).all()


def test_a_long_gap_stays_open():
    faces = np.array([[0, 0, 10, 10, 1], [4, 0, 14, 10, 3]], np.float32)
    boxes, _ = between(faces, np.array([0, 6]), 7, max_gap=5)
    assert np.isfinite(boxes[:, 0]).tolist() == [True, False, False, False, False, False, True]


@pytest.mark.parametrize("bad", [{"detect_every": 0}, {"max_gap": 2}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        KeypointsConfig(**bad)
