"""Lips and sound by SyncNet on the frame clock: what is embedded, what is missing, and what a delay does."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipelines.eval.metrics.av_sync import sync_confidence, sync_offset
from pipelines.eval.metrics.mouth_sound import lagged_correlations
from pipelines.eval.sync_features import (
    compute_lips_of_mesh_boxes,
    compute_lips_of_s3fd_boxes,
    compute_lips_of_whole_frames,
    compute_loudness,
    compute_speech,
    embed_speech,
    loudness_at_lags,
    runs_of_frames,
)

RUNTIME = SimpleNamespace(gpu_share=0, net_batch=0, net_compile=False)
FRAME = 640


class EnvelopeNet:
    """In SyncNet's place: it knows how bright the faces of a window are, and how loud the sound is, each of
    its five frames in units of its own spread, so that a mouth that brightens with the sound is near it."""

    name, device = "envelope", torch.device("cpu")

    def configure_inference(self, how):
        self.how = how

    def embed_lips(self, faces):
        bright = faces.mean((2, 3, 4))  # (1, T)
        return self._embedding(bright.unfold(1, 5, 1))

    def embed_speech(self, coefficients):
        energy = coefficients[..., 0].unfold(1, 20, 4).unflatten(2, (5, 4)).mean(3)
        return self._embedding((energy / 2).exp() / 2e6)

    def _embedding(self, five):
        out = torch.zeros(*five.shape[:2], 1024)
        out[..., :5] = five
        return out


def talk(frames=60, seed=0):
    """Loudness of each frame (frames,) in [0,.5], and noise as loud (640 frames,)."""
    rng = np.random.default_rng(seed)
    loudness = rng.uniform(0, 0.5, frames)
    return loudness, (np.repeat(loudness, FRAME) * rng.choice([-1, 1], frames * FRAME)).astype(np.float32)


def clip_sample(sound, has_sound=True):
    return {"__key__": "id#rec#0#60", "sound": sound, "clip": {"has_sound": has_sound, "frames": 60}}


@pytest.fixture
def inputs_of(unit_samples):
    def make(frames=None, sound=None, driving=range(60), has_sound=True, sound_clip="", landmarks=None):
        pair = {
            "id": "p", "source_clip": "s", "driving_clip": "id#rec#0#60", "driving_frames": list(driving),
            "sound_clip": sound_clip,
        }  # fmt: skip
        made = {"pairs": [pair]}
        if frames is not None:
            made["generated"] = unit_samples([{"__key__": "p", "frames": frames}])
        if sound is not None:
            made["clips"] = unit_samples([clip_sample(sound, has_sound)])
        if landmarks is not None:
            made["landmarks.mesh468_iris"] = unit_samples([{"__key__": "p", **landmarks}])
        return made

    return make


def grey(levels, side=64):
    """(T,S,S,3) uint8"""
    return np.broadcast_to(
        np.round(np.asarray(levels))[:, None, None, None], (len(levels), side, side, 3)
    ).astype(np.uint8)


def one(stage, inputs, nets=None):
    (sample,) = stage(inputs, None, {"syncnet": EnvelopeNet()} if nets is None else nets, RUNTIME)
    return sample


# --- a real signal --------------------------------------------------------------------------------------
@pytest.mark.parametrize("delay", [0, 2, 5])
def test_a_delayed_sound_moves_the_offset_of_confident_lips(inputs_of, delay):
    loudness, sound = talk()
    late = np.concatenate([np.zeros(delay * FRAME, np.float32), sound])[: len(sound)]
    lips = one(compute_lips_of_whole_frames, inputs_of(grey(255 * loudness)))["sync_lips"]
    heard = one(compute_speech, inputs_of(sound=late))["sync_sound"]
    assert (lips.shape, heard.shape) == ((56, 1024), (55, 1024))
    assert sync_offset(lips, heard) == -delay
    other = one(compute_speech, inputs_of(sound=talk(seed=1)[1]))["sync_sound"]
    assert sync_confidence(lips, heard) > 2 * sync_confidence(lips, other)


@pytest.mark.parametrize("delay", [0, 2, 5])
def test_a_delayed_sound_moves_the_lag_of_a_mouth_that_follows_it(inputs_of, delay):
    loudness, sound = talk()
    late = np.concatenate([np.zeros(delay * FRAME, np.float32), sound])[: len(sound)]
    found = one(compute_loudness, inputs_of(sound=late))["loudness"]
    correlations = lagged_correlations(loudness, found)
    assert correlations.argmax() - 5 == -delay
    assert correlations.max() > 0.99


# --- what is embedded ---
def test_the_sound_of_the_driving_frames_alone_is_heard(inputs_of):
    loudness, sound = talk()
    found = one(compute_loudness, inputs_of(sound=sound, driving=range(10, 30)))["loudness"]
    np.testing.assert_allclose(found[:, 5], loudness[10:30], rtol=1e-5)
    heard = one(compute_speech, inputs_of(sound=sound, driving=range(10, 30)))["sync_sound"]
    alone = embed_speech(EnvelopeNet(), sound[10 * FRAME : 30 * FRAME], range(20))
    np.testing.assert_array_equal(heard, alone)


def test_another_clip_is_heard_where_the_pair_says_so(inputs_of, unit_samples):
    inputs = inputs_of(sound=talk()[1], sound_clip="other#rec#0#60")
    loudness, sound = talk(seed=5)
    inputs["clips"].append({**clip_sample(sound), "__key__": "other#rec#0#60"})
    np.testing.assert_allclose(one(compute_loudness, inputs)["loudness"][:, 5], loudness, rtol=1e-5)


def test_no_window_reaches_over_a_frame_that_is_left_out(inputs_of):
    driving = [*range(1, 20), *range(21, 40)]
    assert runs_of_frames(driving) == [(0, 19), (19, 38)]
    heard = one(compute_speech, inputs_of(sound=talk()[1], driving=driving))["sync_sound"]
    missing = np.flatnonzero(np.isnan(heard).any(axis=1))
    assert len(heard) == 33
    assert missing.tolist() == [14, 15, 16, 17, 18]


def test_frames_that_are_not_in_a_row_have_loudness_and_no_windows(inputs_of):
    loudness, sound = talk()
    driving = range(0, 60, 2)
    assert np.isnan(one(compute_speech, inputs_of(sound=sound, driving=driving))["sync_sound"]).all()
    found = one(compute_loudness, inputs_of(sound=sound, driving=driving))["loudness"]
    for lag in (-5, 0, 4):  # of the clip's frames, not of those that drive
        beside = np.arange(0, 60, 2) - lag
        inside = (beside >= 0) & (beside < 60)
        np.testing.assert_allclose(found[inside, 5 + lag], loudness[beside[inside]], rtol=1e-5)
        assert np.isnan(found[~inside, 5 + lag]).all()


def test_a_single_picture_is_one_window_of_it(inputs_of):
    lips = one(compute_lips_of_whole_frames, inputs_of(grey([100])))["sync_lips"]
    still = one(compute_lips_of_whole_frames, inputs_of(grey([100] * 5)))["sync_lips"]
    assert lips.shape == (1, 1024)
    np.testing.assert_array_equal(lips, still)


def test_faces_are_cropped_about_landmarks_at_the_frames_own_size(inputs_of):
    """Frames of 64 px, landmarks in 256: white face on black, and SyncNet sees little but white."""
    frames = grey([0] * 8)
    frames = frames.copy()
    frames[:, 14:52, 12:44] = 255
    corner = np.array([56.0, 56.0])
    points = corner + np.random.default_rng(0).uniform(0, 1, (8, 68, 2)) * [120, 110]
    points[:, 0], points[:, 1] = corner, corner + np.array([120, 110])
    lips = one(compute_lips_of_mesh_boxes, inputs_of(frames, landmarks={"landmarks": points}))["sync_lips"]
    whole = one(compute_lips_of_whole_frames, inputs_of(frames))["sync_lips"]
    assert lips.shape == (4, 1024)
    assert lips[0, 0] > 2 * whole[0, 0]


# --- what is missing ---
def test_windows_without_a_face_are_nan_and_those_of_others_are_not(inputs_of):
    points = np.random.default_rng(0).uniform(60, 180, (40, 68, 2))
    points[:5] = np.nan
    points[36:] = np.nan
    frames = grey(np.linspace(0, 255, 40))
    lips = one(compute_lips_of_mesh_boxes, inputs_of(frames, landmarks={"landmarks": points}))["sync_lips"]
    assert np.flatnonzero(np.isfinite(lips).all(axis=1)).tolist() == list(range(5, 32))


def test_a_face_that_s3fd_is_not_sure_of_is_none(inputs_of):
    class Detector:
        def detect(self, frames):
            return [
                np.array([[10, 10, 50, 50, 0.95 if t < 8 else 0.8]], np.float32) for t in range(len(frames))
            ]

    nets = {"syncnet": EnvelopeNet(), "s3fd": Detector()}
    lips = one(compute_lips_of_s3fd_boxes, inputs_of(grey([90] * 12)), nets)["sync_lips"]
    assert np.flatnonzero(np.isfinite(lips).all(axis=1)).tolist() == [0, 1, 2, 3]


def test_a_clip_without_sound_is_nan(inputs_of):
    silent = inputs_of(sound=np.zeros(60 * FRAME, np.float32), has_sound=False)
    assert np.isnan(one(compute_speech, silent)["sync_sound"]).all()
    assert np.isnan(one(compute_loudness, silent)["loudness"]).all()
    assert len(one(compute_loudness, silent)["loudness"]) == 60


def test_silence_is_quiet_and_no_trouble(inputs_of):
    silent = inputs_of(sound=np.zeros(60 * FRAME, np.float32))
    assert np.isfinite(one(compute_speech, silent)["sync_sound"]).all()
    assert np.nanmax(one(compute_loudness, silent)["loudness"]) == 0


@pytest.mark.parametrize("frames", [2, 4])
def test_a_clip_shorter_than_a_window_is_one_row_of_nan(inputs_of, frames):
    lips = one(compute_lips_of_whole_frames, inputs_of(grey([90] * frames)))["sync_lips"]
    heard = one(compute_speech, inputs_of(sound=talk()[1], driving=range(frames)))["sync_sound"]
    assert lips.shape == heard.shape == (1, 1024)
    assert np.isnan(lips).all()
    assert np.isnan(heard).all()


def test_sound_that_ends_early_has_nan_for_the_rest():
    _, sound = talk(10)
    found = loudness_at_lags(sound[: 7 * FRAME], range(10))
    assert np.isnan(found[:, 5]).tolist() == [False] * 7 + [True] * 3


def test_without_a_net_its_weights_are_named(inputs_of):
    frames = inputs_of(grey([90] * 6), sound=talk()[1], landmarks={"landmarks": np.zeros((6, 68, 2))})
    for stage in (compute_lips_of_mesh_boxes, compute_lips_of_whole_frames, compute_speech):
        assert one(stage, frames, {})["needs"] == {"weights": "syncnet"}
    assert one(compute_lips_of_s3fd_boxes, frames)["needs"] == {"weights": "s3fd"}
    unseen = inputs_of(grey([90] * 6), landmarks={"needs": {"weights": "mp_iris"}})
    assert one(compute_lips_of_mesh_boxes, unseen)["needs"] == {"weights": "mp_iris"}
