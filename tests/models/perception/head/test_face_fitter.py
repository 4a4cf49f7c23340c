"""Fits of a video from settings: the same numbers as the stage's, whatever the settings."""

import numpy as np
import pytest
from msgspec.structs import replace

from models.errors import InvalidSettings
from models.perception.head.default_head import get_analytic_head
from models.perception.head.face_fitter import FaceFitSettings, fit_video, make_point_fitter
from models.perception.head.pose import euler_to_rotation, project, rotation_to_euler
from pipelines.preprocess.fit3dmm import Fit3dmmConfig, fit_clips
from tests.video_files import RUNTIME

MODEL = get_analytic_head()
DENSE = FaceFitSettings(backend="algorithm1", points="dense", alignments=5, camera_target="fitted")
SETTINGS = {
    "landmarks": FaceFitSettings(),
    "an identity a frame": FaceFitSettings(identity="frame"),
    "smoothed": FaceFitSettings(smooth="gaussian"),
    "one euro": FaceFitSettings(smooth="one_euro", smooth_beta=0.1),
    "algorithm1 on landmarks": FaceFitSettings(backend="algorithm1", orthonormal=False),
    "algorithm1 with depth": FaceFitSettings(backend="algorithm1", points="landmarks3d", alignments=3),
    "dense": DENSE,
    "dense, an identity a frame": replace(DENSE, identity="frame", ridge=1e-3),
}


@pytest.fixture(scope="module")
def keypoints():
    """One person who turns and talks, 30 frames: what the stage keypoints writes, of which frames 4 to 6 show
    no face and frame 12 none that fits; and the angles."""
    rng, t = np.random.default_rng(0), np.linspace(0, 2 * np.pi, 30)
    angles = np.stack([8 * np.sin(t), 20 * np.sin(2 * t + 1), 6 * np.cos(t)], axis=1)
    exp = np.zeros((30, MODEL.n_exp))
    exp[:, 0] = 1.2 + np.sin(5 * t)
    shapes = MODEL.shape(rng.normal(size=MODEL.n_id) * 0.7, exp)
    assert MODEL.dense_weight is not None
    dense = np.einsum("nk,tnkc->tnc", MODEL.dense_weight, shapes[:, MODEL.dense_index])
    placed = [
        project(points, 60 + 4 * np.sin(t), euler_to_rotation(*angles.T), np.array([128.0, 120.0, 0]))
        for points in (MODEL.landmarks(shapes), dense)
    ]
    placed = [(points + rng.normal(size=points.shape) * 0.3).astype(np.float32) for points in placed]
    for points in placed:
        points[4:7] = np.nan
        points[12] = points[12, ::-1]
    return {"landmarks": placed[0][..., :2], "landmarks3d": placed[0], "dense": placed[1]}, angles


@pytest.mark.parametrize("name", SETTINGS)
def test_a_video_is_fitted_as_the_stage_fits_a_clip(keypoints, name):
    settings, points = SETTINGS[name], keypoints[0]
    named = {one: getattr(settings, one) for one in settings.__struct_fields__}
    sample = {"__key__": "k"} | points
    stage = Fit3dmmConfig(**named)
    (stored,) = fit_clips({"keypoints": [sample]}, stage, {"analytic_head": MODEL}, RUNTIME)
    fit, counts = fit_video(MODEL, points["landmarks"], points[settings.points], settings)
    assert np.flatnonzero(~counts).tolist() == [4, 5, 6, 12]
    for ours, theirs in (
        ("exp", "exp_coeffs"),
        ("scale", "scale"),
        ("rotation", "rotation"),
        ("translation",) * 2,
    ):
        np.testing.assert_array_equal(getattr(fit, ours), stored[theirs], err_msg=ours)
    np.testing.assert_array_equal(
        fit.id, stored["id_frames" if settings.identity == "frame" else "id_coeffs"]
    )


def test_a_video_is_bridged_where_there_is_no_face_and_where_the_fit_is_far_off(keypoints):
    points, angles = keypoints
    fit, _ = fit_video(MODEL, points["landmarks"], points["landmarks"], FaceFitSettings())
    assert np.isnan(fit.error[4:7]).all()
    assert fit.error[12] > 10 * fit.error[11]
    assert np.abs(rotation_to_euler(fit.rotation) - angles).max() < 12


def test_the_settings_are_the_stages_by_name_and_by_default():
    ours, theirs = FaceFitSettings(), Fit3dmmConfig()
    assert all(getattr(ours, name) == getattr(theirs, name) for name in ours.__struct_fields__)


@pytest.mark.parametrize(
    "wrong",
    [{"rounds": 10**6}, {"alignments": 0}, {"noise": 0.0}, {"ridge": float("nan")}, {"smooth_sigma": 1e9}],
)
def test_settings_that_no_stage_would_take_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} .*: expected"):
        FaceFitSettings(**wrong)


def test_a_net_is_no_fitter_of_points():
    with pytest.raises(InvalidSettings, match="fits by deca need frames and a net"):
        make_point_fitter(FaceFitSettings(backend="deca"), MODEL)


@pytest.mark.parametrize(
    ("settings", "words"),
    [(FaceFitSettings(), "68 landmarks"), (DENSE, "algorithm1 on dense points, 5 alignments"),
     (FaceFitSettings(backend="algorithm1"), "algorithm1 on 68 landmarks, 1 alignment")],
)  # fmt: skip
def test_in_a_few_words(settings, words):
    assert settings.summary == words
