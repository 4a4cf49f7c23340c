"""Validation's figures: named as evaluation names them, after the net that measured them."""

from types import SimpleNamespace

import numpy as np
import pytest
from skimage.data import astronaut

from models.task import ValidationOutput
from pipelines.eval.features import IDENTITY_FEATURE, MESH_LANDMARKS_FEATURE
from pipelines.eval.mesh_features import compute_identity_embeddings, compute_mesh_landmarks
from pipelines.nets import load_nets
from pipelines.train.validation_figures import (
    CROSS_FIGURES,
    FIGURE_FEATURES,
    SELF_FIGURES,
    compute_cross_figures,
    compute_self_figures,
    figure_feature_nets,
    find_figure,
)
from pipelines.train.validation_nets import ValidationNets
from storage.files import Store
from tests.train.stand_in_faces import grey_faces

FACE = astronaut()[20:276, 96:352]


def pictures(*levels):
    return np.stack([np.full((16, 16, 3), level, np.uint8) for level in levels])


def sample(output, driving, source):
    shown = {"output": output, "driving": driving, "source": source}
    return [
        ValidationOutput(row=pictures(*output), **{name: pictures(*levels) for name, levels in shown.items()})
    ]


def self_figures(output, driving, source, features):
    return compute_self_figures(sample((output,) * 2, (driving,) * 2, (source,) * 2), features)


def test_landmark_distances_are_named_after_the_net():
    found = self_figures(30, 20, 60, grey_faces)
    assert found["akd_l2_dlib"] == pytest.approx(10)
    assert (found["copy_akd_l2_dlib"], found["akd_l2_dlib_frames"]) == (pytest.approx(40), 2)
    assert found["l1"] == pytest.approx(10 / 255)
    assert "psnr" not in found
    assert "copy_psnr" in found


def test_a_distance_that_no_sample_allows_is_left_out():
    assert "akd_l2_dlib" not in self_figures(30, 20, 60, None)
    assert "akd_l2_dlib" not in self_figures(30, 20, 60, lambda feature, pictures: None)
    black = self_figures(0, 20, 60, grey_faces)
    assert "akd_l2_dlib" not in black
    assert (black["akd_l2_dlib_frames"], black["akd_l2_dlib_missing"]) == (0, 2)


# --- two people ---------------------------------------------------------------------------------------------
def test_the_face_is_compared_with_the_source_and_the_motion_with_the_driving_frame():
    found = compute_cross_figures(sample((50, 90), (40, 70), (60, 100)), grey_faces)
    assert found["pose_mesh"] == pytest.approx((10 + 20) / 2)
    assert found["expression_mesh"] == pytest.approx(found["pose_mesh"] / 10)
    assert found["id_l2_dlib"] == pytest.approx(2 * np.sin(np.deg2rad(10) / 2))  # a chord of 10 degrees
    assert found["copy_pose_mesh"] == pytest.approx((20 + 30) / 2)
    assert found["driving_id_l2_dlib"] == pytest.approx(np.mean(2 * np.sin(np.deg2rad([20, 30]) / 2)))
    assert {name for name in found if name.endswith("_frames") and found[name] != 2} == set()


def test_embeddings_are_centred_on_the_real_faces():
    """The mean is of sources and driving frames alone, so that it is the same at every validation."""
    real = [60, 100, 40, 70]
    points = grey_faces(IDENTITY_FEATURE, pictures(*real, 50, 90))["embedding"].astype(float)
    less = points - points[:4].mean(0)
    cosine = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(less[4:], less[:2], strict=True)]
    found = compute_cross_figures(sample((50, 90), (40, 70), (60, 100)), grey_faces)
    assert found["csim_dlib_centred"] == pytest.approx(np.mean(cosine), abs=1e-6)


def test_outputs_without_a_face_are_counted_and_pairs_without_any_are_not():
    found = compute_cross_figures(sample((50, 0, 70), (40, 30, 0), (60, 100, 80)), grey_faces)
    assert (found["pose_mesh_frames"], found["pose_mesh_missing"]) == (1, 1)
    assert (found["id_l2_dlib_frames"], found["id_l2_dlib_missing"]) == (2, 1)
    assert found["pose_mesh"] == pytest.approx(10)


def test_without_nets_there_are_no_figures_of_pairs():
    assert compute_cross_figures(sample((50,), (40,), (60,)), None) == {}


# --- the nets -----------------------------------------------------------------------------------------------
def test_every_figure_of_a_net_says_which_and_none_else_does():
    for name, figure in SELF_FIGURES.items():
        assert find_figure(name) is figure
    for name, figure in CROSS_FIGURES.items():
        assert find_figure(f"cross/{name}") is figure
        assert figure.metric.feature in FIGURE_FEATURES
        assert figure_feature_nets(figure.metric.feature)
    assert find_figure("flow") is find_figure("cross/l1") is None


def test_pose_and_identity_are_those_of_evaluation(tmp_path):
    """Each picture shows a person of its own, as a pair of evaluation's does."""
    nets, runtime = (
        ValidationNets(Store(str(tmp_path))),
        SimpleNamespace(gpu_share=0, net_batch=0, net_compile=False),
    )
    shown = np.stack([FACE, FACE[:, ::-1], np.full_like(FACE, 120)])
    for feature, stage, name in (
        (MESH_LANDMARKS_FEATURE, compute_mesh_landmarks, "angles"),
        (IDENTITY_FEATURE, compute_identity_embeddings, "embedding"),
    ):
        loaded = load_nets(figure_feature_nets(feature), nets.store)
        for i, picture in enumerate(nets(feature, shown)[name]):
            inputs = {"generated": [{"__key__": "one", "frames": shown[i : i + 1]}]}
            (expected,) = stage(inputs, None, loaded, runtime)  # pyright: ignore[reportArgumentType]
            np.testing.assert_allclose(picture, expected[name][0], atol=1e-3)
    assert np.isfinite(nets(MESH_LANDMARKS_FEATURE, shown)["expression"]).all(1).tolist() == [
        True,
        True,
        False,
    ]
