from types import SimpleNamespace

import numpy as np
import pytest

from models.perception.morphable import analytic
from models.perception.pose import project
from pipelines.preprocess.clips import ClipsConfig, cut_clips
from pipelines.preprocess.download import download
from pipelines.preprocess.fit3dmm import Fit3dmmConfig, fit_clips
from pipelines.preprocess.keypoints import KeypointsConfig, find_keypoints
from pipelines.preprocess.sources.synthetic import SyntheticConfig, recordings
from storage.shards import encode_sample

CONFIG = SimpleNamespace(
    data=SimpleNamespace(sound="required"),
    clips=ClipsConfig(min_frames=40),
    keypoints=KeypointsConfig(),
    fit3dmm=Fit3dmmConfig(),
)
PEOPLE = 4
HEAD = {"analytic_head": analytic()}


@pytest.fixture(scope="module")
def fitted(nets):
    """3 s of four rendered people through all stages: truth, clip, keypoints, fit of each."""
    out = []
    for row in recordings(
        SyntheticConfig(identities=PEOPLE, test_identities=0, clips_per_identity=1, seconds=3)
    ):
        inputs = {"recordings": [row]}
        inputs["download"] = download(inputs, CONFIG, HEAD)
        inputs["clips"] = cut_clips(inputs, CONFIG, nets)
        inputs["keypoints"] = find_keypoints(inputs, CONFIG, nets)
        for clip, points, fit in zip(
            inputs["clips"], inputs["keypoints"], fit_clips(inputs, CONFIG, HEAD), strict=True
        ):
            span = slice(clip["clip"]["start"], clip["clip"]["end"])
            out.append(({n: v[span] for n, v in inputs["download"][0]["truth"].items()}, clip, points, fit))
    return out


def test_faces_are_found_in_nearly_every_rendered_frame(fitted):
    frames = sum(len(points["score"]) for _, _, points, _ in fitted)
    assert frames >= 0.9 * PEOPLE * 75
    assert sum((points["score"] > 0).sum() for _, _, points, _ in fitted) >= 0.95 * frames


def test_pose_of_rendered_heads_is_within_four_degrees(fitted):
    errors = np.concatenate([np.abs(fit["angles"] - truth["angles"]) for truth, _, _, fit in fitted])
    pitch, yaw, roll = errors.mean(0)
    assert pitch < 4, f"mean error {errors.mean(0)}"
    assert yaw < 4, f"mean error {errors.mean(0)}"
    assert roll < 2, f"mean error {errors.mean(0)}"


def test_jaw_opening_of_rendered_heads_follows_the_truth(fitted):
    found = [np.corrcoef(fit["exp_coeffs"][:, 0], truth["jaw"])[0, 1] for truth, _, _, fit in fitted]
    assert np.mean(found) > 0.8
    assert min(found) > 0.5


def test_fitted_points_meet_the_landmarks(fitted):
    assert np.mean([fit["fit_error"].mean() for *_, fit in fitted]) < 2  # pixels of 256


def test_the_camera_and_the_coefficients_give_the_error_on_record(fitted):
    _, _, points, fit = fitted[0]
    mean, id_basis, exp_basis = analytic().landmark_model()
    shape = mean + id_basis @ fit["id_coeffs"] + np.einsum("ncj,tj->tnc", exp_basis, fit["exp_coeffs"])
    placed = project(shape, fit["scale"], fit["rotation"], fit["translation"])[..., :2]
    error = np.sqrt(((placed - points["landmarks"])[:, 17:] ** 2).sum(-1).mean(-1))
    np.testing.assert_allclose(error, fit["fit_error"], rtol=1e-3)


def test_the_same_keypoints_give_the_same_bytes(fitted):
    _, _, points, fit = fitted[0]
    assert encode_sample(fit_clips({"keypoints": [points]}, CONFIG, HEAD)[0]) == encode_sample(fit)


def test_frames_without_landmarks_are_bridged_and_marked(fitted):
    _, _, points, fit = fitted[0]
    holes = points["landmarks"].copy()
    holes[10:14] = np.nan
    (found,) = fit_clips({"keypoints": [{**points, "landmarks": holes}]}, CONFIG, HEAD)
    assert np.isnan(found["fit_error"][10:14]).all()
    assert np.isfinite(found["exp_coeffs"]).all()
    np.testing.assert_allclose(
        found["rotation"] @ found["rotation"].transpose(0, 2, 1),
        np.tile(np.eye(3), (len(holes), 1, 1)),
        atol=1e-5,
    )
    assert np.abs(found["angles"][10:14] - fit["angles"][10:14]).max() < 6


def test_a_clip_without_landmarks_gets_the_mean_head(fitted):
    _, _, points, _ = fitted[0]
    empty = np.full_like(points["landmarks"], np.nan)
    (found,) = fit_clips({"keypoints": [{**points, "landmarks": empty}]}, CONFIG, HEAD)
    assert np.isnan(found["fit_error"]).all()
    assert (found["angles"] == 0).all()
    assert (found["id_coeffs"] == 0).all()


@pytest.mark.parametrize("bad", [{"noise": 0}, {"rounds": 0}, {"contour_weight": 2}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        Fit3dmmConfig(**bad)
