from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.perception import NETS, net_on_backend
from models.perception.interfaces import InferenceSettings, LandmarkPrediction
from pipelines.errors import Rejected
from pipelines.preprocess.keypoints import (
    KeypointsConfig,
    find_keypoints,
    hull_area,
    interpolate_boxes,
    perception_inference_settings,
    read_clip_boxes,
    smooth_landmarks,
    truncate_to_whole_pixels,
)
from storage.shards import FIELD_EXTENSIONS, encode_sample
from tests.video_files import RUNTIME

CONFIG = KeypointsConfig()
PLACED_ONCE = KeypointsConfig(max_slip=0.0)
"""For landmarkers that place their points by the box alone."""


def config_of(**settings):
    return KeypointsConfig(**settings)


def keypoints_of(clips, config, nets, runtime=RUNTIME):
    return list(find_keypoints({"clips": clips}, config, nets, runtime))


def clip_of(frames, key="ann#rec#000000#000020"):
    return {"__key__": key, "frames": frames, "clip": {"frames": len(frames)}}


@pytest.fixture(scope="module")
def face(portrait):
    """20 frames of 192 px: the face moves to the left by 2 px a frame."""
    return clip_of(np.stack([portrait[30:222, 110 + 2 * t : 302 + 2 * t] for t in range(20)]))


@pytest.fixture(scope="module")
def sample(face, nets):
    (found,) = keypoints_of([face], CONFIG, nets, RUNTIME)
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
    (again,) = keypoints_of([face], CONFIG, nets, RUNTIME)
    assert encode_sample(again) == encode_sample(sample)


def test_frames_without_a_face_are_nan_with_score_0(face, nets):
    blank = np.zeros_like(face["frames"])
    clip = clip_of(np.concatenate([face["frames"], blank, blank]))
    (found,) = keypoints_of([clip], CONFIG, nets, RUNTIME)
    assert np.isfinite(found["landmarks"][:18]).all()
    assert np.isnan(found["landmarks"][25:]).all()
    assert np.isnan(found["face_box"][25:]).all()
    assert (found["score"][25:] == 0).all()


def test_a_recording_without_any_face_is_rejected(face, nets):
    blank = clip_of(np.zeros_like(face["frames"]))
    with pytest.raises(Rejected) as caught:
        keypoints_of([blank, blank], CONFIG, nets, RUNTIME)
    assert caught.value.code == "no_landmarks"


def test_one_clip_without_a_face_keeps_its_place(face, nets):
    blank = clip_of(np.zeros_like(face["frames"]), "ann#rec#000020#000040")
    found = keypoints_of([face, blank], CONFIG, nets, RUNTIME)
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
    (found,) = keypoints_of([clip_of(frames)], CONFIG, {**nets, "mp_face": detector})
    assert (found["face_box"][:, 0] == 240).all()


def test_the_largest_face_is_taken_in_each_frame_by_itself():
    """40 frames of two faces, more than are compared at once; from frame 20 on the other one is larger."""
    small, large = [10.0, 10, 30, 30, 2], [50.0, 10, 90, 50, 1]
    other = [10.0, 10, 60, 60, 2]
    detector = SimpleNamespace(
        name="two",
        detect=lambda frames: [
            np.array([other if frame[0, 0, 0] >= 20 else small, large], np.float32) for frame in frames
        ],
    )
    frames = np.zeros((40, 96, 96, 3), np.uint8) + np.arange(40, dtype=np.uint8)[:, None, None, None]
    nets = {"mp_face": detector, "mesh468_iris": Corners()}
    (found,) = keypoints_of([clip_of(frames)], config_of(detect_every=1, max_slip=0.0), nets)
    assert (found["face_box"][:20, 0] == 50).all()
    assert (found["face_box"][20:, 0] == 10).all()


def test_of_a_tracked_clip_it_is_the_face_that_was_tracked():
    """A larger face beside it; in the third frame looked at that one alone is seen."""
    own, other = [4.0, 4, 24, 24, 0.9, 0.1], [30.0, 4, 62, 36, 0.8, 0.2]
    detector = SimpleNamespace(
        name="two",
        detect=lambda frames: [
            np.array([other, own] if frame[0, 0, 0] != 7 else [other], np.float32) for frame in frames
        ],
    )
    frames = grey(13)
    frames[6] = 7
    crop = np.tile(np.float32([100, 100, 164, 164]), (13, 1))
    boxes = np.tile(np.float32([106, 102, 126, 126]), (13, 1))
    clip = clip_of(frames) | {"crop": crop, "boxes": boxes}
    nets = {"mp_face": detector, "mesh468_iris": Corners()}
    clip["clip"]["detector"] = "mp_face"
    (found,) = keypoints_of([clip], PLACED_ONCE, nets)
    np.testing.assert_allclose(found["face_box"], np.tile(own[:4], (13, 1)))
    clip["clip"]["detector"] = "given"  # a source's box holds for the whole clip, and may hold both
    (found,) = keypoints_of([clip], PLACED_ONCE, nets)
    np.testing.assert_allclose(found["face_box"], np.tile(other[:4], (13, 1)))


def test_boxes_between_detections_are_interpolated():
    faces = np.array([[0, 0, 10, 10, 1], [4, 0, 14, 10, 3]], np.float32)
    boxes, score, _, detected = interpolate_boxes(faces, np.array([2, 6]), 9, max_gap=4)
    np.testing.assert_allclose(boxes[2:7, 0], [0, 1, 2, 3, 4])
    np.testing.assert_allclose(score[2:7], [1, 1.5, 2, 2.5, 3])
    assert np.isnan(boxes[[0, 1, 7, 8]]).all()
    assert (score[[0, 1, 7, 8]] == 0).all()
    assert np.flatnonzero(detected).tolist() == [2, 6]


def test_a_long_gap_stays_open():
    faces = np.array([[0, 0, 10, 10, 1], [4, 0, 14, 10, 3]], np.float32)
    boxes, _, _, _ = interpolate_boxes(faces, np.array([0, 6]), 7, max_gap=5)
    assert np.isfinite(boxes[:, 0]).tolist() == [True, False, False, False, False, False, True]


@pytest.mark.parametrize(
    "bad",
    [{"detect_every": 0}, {"max_gap": 2}, {"smoothing_sigma": 0.0}, {"max_slip": -0.1}, {"max_slipped": 1.5}],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        KeypointsConfig(**bad)


# --- the stage as a stream ----------------------------------------------------------------------------------
class Corners:
    """A landmarker that spreads 68 points over the box; it says no more than dlib's."""

    name = "corners"

    def landmarks(self, frames, boxes, rolls=None):
        at = np.stack([np.linspace(0, 1, 68), np.linspace(0, 1, 68) ** 2], axis=1)
        return (boxes[:, None, :2] + at * (boxes[:, None, 2:] - boxes[:, None, :2])).astype(np.float32)

    def predict(self, frames, boxes, rolls=None, detected=None):
        return LandmarkPrediction(landmarks=self.landmarks(frames, boxes))


class Deep(Corners):
    """One that says all that a landmarker can, and notes how it is told to run."""

    name, told = "deep", ()

    def configure_inference(self, how):
        self.told = (*self.told, how)

    def predict(self, frames, boxes, rolls=None, detected=None):
        flat = self.landmarks(frames, boxes)
        present = np.isfinite(flat).all((1, 2))
        confidence = np.where(present[:, None], 0.8, 0).astype(np.float32) * np.ones(68, np.float32)
        depth = np.where(present[:, None, None], 7.25, np.nan) * np.ones((1, 68, 1))
        deep = np.concatenate([flat, depth.astype(np.float32)], axis=2)
        return LandmarkPrediction(landmarks=flat, confidence=confidence, landmarks3d=deep)


class Here:
    """A detector of one given box."""

    name = "here"

    def __init__(self, *box):
        self.box = np.array([box], np.float32)

    def detect(self, frames):
        return [self.box[: int(frame.any())] for frame in frames]


def grey(count, value=1):
    return np.full((count, 64, 64, 3), value, np.uint8)


def test_a_clip_is_given_away_before_the_next_is_read():
    read = []

    def clips():
        for k in range(3):
            read.append(k)
            yield clip_of(grey(4))

    stage = find_keypoints(
        {"clips": clips()},
        PLACED_ONCE,
        {"mp_face": Here(1, 2, 30, 40, 1), "mesh468_iris": Corners()},
        RUNTIME,
    )
    next(stage)
    assert read == [0]
    next(stage)
    assert read == [0, 1]


def test_a_recording_is_rejected_only_after_its_last_clip():
    nets = {"mp_face": Here(1, 2, 30, 40, 1), "mesh468_iris": Corners()}
    stage = find_keypoints({"clips": [clip_of(grey(4, 0)), clip_of(grey(4, 0))]}, CONFIG, nets, RUNTIME)
    assert np.isnan(next(stage)["landmarks"]).all()
    assert np.isnan(next(stage)["landmarks"]).all()
    with pytest.raises(Rejected, match=r"here \+ corners: no face in any of the 2 clips"):
        next(stage)


# --- fields and settings ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "landmarker",
    ["dlib68", "dlib68_precise", "fan2d", "fan2d_flip", "fan25d", "fan3d", "mesh468", "mesh468_iris"],
)
@pytest.mark.parametrize("detector", ["dlib_hog", "dlib_ladder", "s3fd", "clip", "mp_face"])
def test_every_choice_names_known_nets_fields_and_packages(detector, landmarker):
    config = KeypointsConfig(detector=detector, landmarker=landmarker)
    nets = [net_on_backend(net, "litert") for net in config.nets]
    assert set(nets) <= set(NETS)
    assert {*config.reads, *config.writes} <= set(FIELD_EXTENSIONS)
    packages = {package for net in nets for package in NETS[net].packages}
    assert ("face-alignment" in packages) == ("fan" in landmarker or detector == "s3fd")
    assert ("dlib-bin" in packages) == (detector.startswith("dlib") or landmarker.startswith("dlib"))


def test_the_stage_writes_the_fields_that_the_landmarker_has():
    nets = {"mp_face": Here(1, 2, 30, 40, 1), "dlib68": Corners(), "fan3d": Deep()}
    (flat,) = keypoints_of([clip_of(grey(4))], config_of(landmarker="dlib68", max_slip=10.0), nets, RUNTIME)
    (deep,) = keypoints_of([clip_of(grey(4))], config_of(landmarker="fan3d", max_slip=10.0), nets)
    assert set(flat) == {"__key__", *KeypointsConfig(landmarker="dlib68").writes}
    assert set(deep) == {"__key__", *KeypointsConfig(landmarker="fan3d").writes}
    assert deep["confidence"].shape == (4, 68)
    assert deep["landmarks3d"].shape == (4, 68, 3)
    encode_sample(deep)
    (once,) = keypoints_of([clip_of(grey(4))], config_of(landmarker="dlib68", max_slip=0.0), nets, RUNTIME)
    assert (
        set(once)
        == {*flat} - {"slip"}
        == {"__key__", *KeypointsConfig(landmarker="dlib68", max_slip=0.0).writes}
    )


def test_whole_pixels_are_truncated_and_depth_is_not():
    nets = {"mp_face": Here(1.6, 2.3, 30.7, 40.1, 1), "fan3d": Deep()}
    (fine,) = keypoints_of([clip_of(grey(4))], config_of(landmarker="fan3d", max_slip=0.0), nets)
    (whole,) = keypoints_of(
        [clip_of(grey(4))], config_of(landmarker="fan3d", whole_pixels=True, max_slip=0.0), nets
    )
    assert (whole["landmarks"] == np.trunc(fine["landmarks"])).all()
    assert (whole["landmarks3d"][..., 2] == 7.25).all()
    assert whole["landmarks"].dtype == np.float32
    assert truncate_to_whole_pixels(np.array([[-0.5, 1.9]]))[0].tolist() == [0, 1]


def test_landmarks_without_depth_can_be_smoothed_and_truncated():
    nets = {"mp_face": Here(1.6, 2.3, 30.7, 40.1, 1), "dlib68": Corners()}
    smooth = config_of(landmarker="dlib68", smoothing="gaussian", whole_pixels=True, max_slip=0.0)
    (found,) = keypoints_of([clip_of(grey(4))], smooth, nets)
    assert np.isfinite(found["landmarks"]).all()
    assert (found["landmarks"] == np.trunc(found["landmarks"])).all()


def test_nets_in_torch_are_told_where_to_run_and_how():
    net = Deep()
    runtime = SimpleNamespace(gpu_share=0.25, net_batch=16, net_compile=True)
    config = KeypointsConfig(landmarker="fan3d", dtype="bfloat16", max_slip=0.0)
    keypoints_of([clip_of(grey(4))], config, {"mp_face": Here(1, 2, 30, 40, 1), "fan3d": net}, runtime)
    assert net.told == (InferenceSettings(device="cuda", dtype="bfloat16", batch=16, compile=True),)
    assert perception_inference_settings(RUNTIME, "float32") == InferenceSettings()


def test_the_boxes_of_the_clip_need_no_detector():
    """A crop of 200 x 100 px of the recording, squeezed into 64 x 64."""
    boxes = np.array([[110, 60, 160, 110], [120, 60, 170, 110], [np.nan] * 4], np.float32)
    crop = np.array([[100, 50, 300, 150]] * 3, np.float32)
    clip = clip_of(grey(3)) | {"boxes": boxes, "crop": crop}
    (found,) = keypoints_of([clip], config_of(detector="clip", max_slip=0.0), {"mesh468_iris": Corners()})
    np.testing.assert_allclose(
        found["face_box"][:2], [[3.2, 6.4, 19.2, 38.4], [6.4, 6.4, 22.4, 38.4]], rtol=1e-6
    )
    assert found["score"].tolist() == [1, 1, 0]
    assert np.isnan(found["landmarks"][2]).all()
    assert read_clip_boxes(clip)[0].dtype == np.float32


def test_a_box_beside_the_clip_is_a_lost_face(formula_nets):
    from models.perception.faces import fan

    boxes = np.array([[10, 10, 50, 50], [300, 300, 340, 340], [10, 10, 10, 10]], np.float32)
    clip = clip_of(grey(3)) | {"boxes": boxes, "crop": np.array([[0, 0, 64, 64]] * 3, np.float32)}
    config = config_of(detector="clip", landmarker="fan2d")
    (found,) = keypoints_of([clip], config, {"fan2d": fan.FanLandmarker("fan2d", formula_nets.Blobs())})
    assert found["score"].tolist() == [1, 0, 0]
    assert np.isnan(found["landmarks"][1:]).all()
    assert np.isnan(found["face_box"][1:]).all()


def test_a_hull_that_is_none_has_no_area():
    assert hull_area(np.array([[0, 0], [4, 0], [4, 3], [0, 3], [1, 1]], np.float32)) == 12
    assert hull_area(np.full((68, 2), 5.0)) == 0
    assert hull_area(np.full((68, 2), np.nan)) == 0


# --- production nets, with weights made by formula ----------------------------------------------------------
def test_s3fd_and_fan_follow_a_marked_face_and_lose_it(formula_nets, tmp_path):
    """A red square that moves by 3 px a frame, then is gone: the real detector net and the real crops, peaks
    and geometry. The landmark net alone is replaced by one that sees the mean face in every crop."""
    import torch

    from models.perception.faces import fan, s3fd

    torch.save(formula_nets.red_square_state(96, 120), tmp_path / "s3fd.pth")
    nets = {
        "s3fd": s3fd.load_s3fd({"s3fd": tmp_path / "s3fd.pth"}),
        "fan2d": fan.FanLandmarker("fan2d", formula_nets.Blobs()),
    }
    where = [(70 + 3 * t, 80) for t in range(9)]
    frames = [formula_nets.with_squares([c], 160, 192) for c in where]
    frames += [formula_nets.with_squares([], 160, 192)] * 7
    config = config_of(detector="s3fd", landmarker="fan2d", detect_every=4, max_gap=5)
    (found,) = keypoints_of([clip_of(np.stack(frames))], config, nets)
    points = found["landmarks"]
    assert np.isfinite(points[:9]).all()
    assert np.isnan(points[9:]).all()
    assert (found["confidence"][9:] == 0).all()
    assert (found["confidence"][:9] > 0.6).all()
    boxes = found["face_box"][:9]
    np.testing.assert_allclose((boxes[:, :2] + boxes[:, 2:]) / 2, where, atol=8)
    assert (points[:9] > boxes[:, None, :2] - 0.3 * 120).all()
    assert (points[:9] < boxes[:, None, 2:] + 0.3 * 120).all()
    np.testing.assert_allclose(points[8].mean(0) - points[0].mean(0), [24, 0], atol=9)


# --- smoothing ----------------------------------------------------------------------------------------------
sigmas = st.floats(0.3, 10)
presence = st.lists(st.booleans(), min_size=1, max_size=60)


def gaps(present):
    return np.where(np.array(present)[:, None, None], 0.0, np.nan).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(present=presence, sigma=sigmas, start=st.floats(-300, 300), speed=st.floats(-20, 20))
def test_rest_and_constant_speed_are_kept_and_gaps_stay_open(present, sigma, start, speed):
    still = np.arange(68 * 2, dtype=np.float32).reshape(1, 68, 2) + np.float32(start)
    moving = (
        still + np.arange(len(present), dtype=np.float32)[:, None, None] * np.float32(speed) + gaps(present)
    )
    np.testing.assert_allclose(smooth_landmarks(moving, sigma), moving, atol=2e-3)


@settings(max_examples=30, deadline=None)
@given(present=presence, sigma=sigmas)
def test_runs_do_not_know_of_each_other(present, sigma):
    points = np.random.default_rng(0).normal(size=(len(present), 68, 2)).astype(np.float32) + gaps(present)
    whole = smooth_landmarks(points, sigma)
    first = np.argmin([*present, False]) if present[0] else 0
    np.testing.assert_allclose(whole[:first], smooth_landmarks(points[:first], sigma), atol=1e-5)


@pytest.mark.parametrize(("sigma", "left"), [(1, 0.53), (2, 0.38)])
def test_jitter_falls_to_what_the_setting_says(sigma, left):
    noise = np.random.default_rng(0).normal(size=(400, 68, 3)).astype(np.float32)
    assert smooth_landmarks(noise, sigma)[10:-10].std() == pytest.approx(left, abs=0.01)
    assert smooth_landmarks(noise, sigma).dtype == np.float32


def test_smoothing_is_off_unless_asked_for():
    rng = np.random.default_rng(0)
    jittery = SimpleNamespace(
        predict=lambda frames, boxes, rolls, detected: LandmarkPrediction(
            landmarks=rng.normal(size=(len(frames), 68, 2)).astype(np.float32)
        )
    )
    nets = {"mp_face": Here(1, 2, 30, 40, 1), "mesh468_iris": jittery}
    (rough,) = keypoints_of([clip_of(grey(200))], PLACED_ONCE, nets, RUNTIME)
    (smooth,) = keypoints_of([clip_of(grey(200))], config_of(smoothing="gaussian", max_slip=0.0), nets)
    assert rough["landmarks"].std() == pytest.approx(1, abs=0.02)
    assert smooth["landmarks"].std() == pytest.approx(0.53, abs=0.02)
