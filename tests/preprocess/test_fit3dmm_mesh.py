"""Fits to MediaPipe's face mesh on a rendered recording, against the truth it was rendered from."""

import numpy as np
import pytest

from models.perception.head.default_head import get_analytic_head
from pipelines import media
from pipelines.eval.mesh_features import eye_openness
from pipelines.nets import load_nets
from pipelines.preprocess.fit3dmm import Fit3dmmConfig, fit_clips
from pipelines.preprocess.keypoints import KeypointsConfig, find_keypoints
from pipelines.preprocess.sources.common.head_appearance import (
    sample_person_appearance,
    sample_synthetic_recording_appearance,
)
from pipelines.preprocess.sources.common.rendered_head import HeadRenderer, SyntheticHeadState
from pipelines.preprocess.sources.synthetic import (
    IMAGE_HEIGHT_UNITS,
    SyntheticConfig,
    list_recordings,
    render_synthetic_recording,
)
from storage.files import Store
from tests.bench.face_truth import (
    agreement_within_clips,
    expression_agreement,
    mean_error_by_group,
    pose_error,
    relative_errors,
)
from tests.video_files import RUNTIME

FITS = {
    "landmarks": Fit3dmmConfig(eyelid_weight=3.0),
    "dense": Fit3dmmConfig(backend="algorithm1", points="dense", alignments=5, camera_target="fitted"),
}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """3 s of one rendered head at 320 px: its truth, and the stage's keypoints."""
    (row,) = list_recordings(
        SyntheticConfig(identities=1, test_identities=0, clips_per_identity=1, seconds=3)
    )
    video, truth = render_synthetic_recording(row, get_analytic_head())
    with media.open_as_local_file(video) as path:
        frames, _ = media.read_frames(path, media.probe_file(path), (320, 320))
    nets = load_nets(["mp_face.litert", "mesh468_iris.litert"], Store(str(tmp_path_factory.mktemp("store"))))
    clips = [{"__key__": "000", "frames": frames, "clip": {}}]
    settings = KeypointsConfig(detector="mp_face", landmarker="mesh468_iris")
    (points,) = find_keypoints({"clips": clips}, settings, nets, RUNTIME)
    return truth, points


@pytest.fixture(scope="module")
def fits(recording):
    nets = {"analytic_head": get_analytic_head()}
    inputs = {"keypoints": [recording[1]], "clips": []}
    return {name: next(fit_clips(inputs, config, nets, RUNTIME)) for name, config in FITS.items()}


def test_a_face_is_seen_in_every_frame_and_its_inner_points_are_near_the_truth(recording):
    truth, points = recording
    assert (points["score"] > 0).all()
    errors = relative_errors(points["landmarks"], truth["landmarks"])
    assert mean_error_by_group([errors])["inner"] < 6


@pytest.mark.parametrize("name", FITS)
def test_pose_is_within_four_degrees_of_the_truth_and_alike_for_both_kinds_of_points(recording, fits, name):
    error = pose_error([fits[name]["angles"]], [recording[0]])
    assert (error.raw < [4, 4, 2]).all(), error
    apart = (fits["dense"]["angles"] - fits["landmarks"]["angles"]).mean(0)
    assert (np.abs(apart) < 3).all(), apart  # pitch: 8 degrees without the angles of the dense points


@pytest.mark.parametrize("name", FITS)
def test_the_jaw_follows_the_truth(recording, fits, name):
    truth = recording[0]
    found = agreement_within_clips([fits[name]["exp_coeffs"][:, 0]], [truth["exp"][:, 0]])
    assert found.mean > 0.85


def test_blinks_follow_the_truth_through_the_iris_nets_lids(recording, fits):
    found = expression_agreement([fits["landmarks"]["exp_coeffs"]], [recording[0]])
    assert found["blink_left"].mean > 0.6, found
    assert found["blink_right"].mean > 0.6, found


# --- acceptance test 6: what is measured on the points themselves -------------------------------------------
def test_the_openness_of_the_lids_follows_the_blinks(recording):
    truth, points = recording
    names = get_analytic_head().exp_names
    openness = eye_openness(points["dense"])  # (T,2), the image's left eye first
    for side, blink in enumerate(("blink_left", "blink_right")):
        shut = truth["exp"][:, names.index(blink)]
        assert np.corrcoef(-openness[:, side], shut)[0, 1] > 0.6, blink


def test_the_distance_of_the_inner_lips_follows_the_jaw(recording):
    truth, points = recording
    upper, lower = (points["dense"][:, n, :2] for n in (13, 14))
    apart = np.linalg.norm(lower - upper, axis=1)
    assert np.corrcoef(apart, truth["exp"][:, 0])[0, 1] > 0.85


@pytest.mark.parametrize("yaw", [-80, -60, 60, 70, 80])
def test_heads_turned_far_to_the_side_are_found(nets, yaw):
    model = get_analytic_head()
    frames = []
    for n in range(2):
        renderer = HeadRenderer(
            model,
            sample_person_appearance(np.random.default_rng(n), n, model),
            sample_synthetic_recording_appearance(np.random.default_rng(10 + n), 320, 320),
            320, 320,
        )  # fmt: skip
        pose = SyntheticHeadState(
            np.array([0.0, yaw, 0.0]), 320 / IMAGE_HEIGHT_UNITS, 320 * np.array([0.5, 0.45, 0]),
            np.zeros(model.n_exp), np.zeros(2),
        )  # fmt: skip
        frames.append(renderer.render_frame(pose))
    assert all(len(found) for found in nets["mp_face"].detect(np.stack(frames)))
