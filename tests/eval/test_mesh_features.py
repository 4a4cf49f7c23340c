from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import rotate
from skimage.data import astronaut

from models.perception.faces.blazeface import load_mp_face_litert
from models.perception.faces.face_mesh import load_mesh468_iris_litert
from models.perception.faces.mesh_identity import load_dlib128_mesh_litert
from models.perception.faces.mesh_points import LEFT_EYE_CONTOUR, RIGHT_EYE_CONTOUR
from models.perception.head.default_head import get_analytic_head
from models.weights import find_third_party_weights
from pipelines.eval.mesh_features import (
    compute_identity_embeddings,
    compute_mesh_landmarks,
    eye_openness,
    fit_head,
    largest_face_rolls,
)
from storage.weight_files import find_packaged_file

FACE = astronaut()[20:276, 96:352]
NO_FACE = np.full_like(FACE, 120)
RUNTIME = SimpleNamespace(gpu_share=0, net_batch=0, net_compile=False)


@pytest.fixture(scope="module")
def nets():
    names = ("mp_face_short", "mp_face_full", "mp_mesh468", "mp_iris", "dlib_resnet")
    weights = {name: find_packaged_file(find_third_party_weights(name)) for name in names}
    return {
        "mp_face": load_mp_face_litert(weights),
        "mesh468_iris": load_mesh468_iris_litert(weights),
        "dlib128_mesh": load_dlib128_mesh_litert(weights),
        "analytic_head": get_analytic_head(),
    }


@pytest.fixture(scope="module")
def seen(nets, unit_samples):
    """Of the face, its mirror image and a grey picture."""
    return features(nets, unit_samples, np.stack([FACE, FACE[:, ::-1], NO_FACE]))


def features(nets, unit_samples, frames):
    inputs = {"generated": unit_samples([{"__key__": "p", "frames": frames}])}
    (found,) = compute_mesh_landmarks(inputs, None, nets, RUNTIME)
    return found


def test_a_frame_without_a_face_has_nan_in_every_field(seen):
    for name in ("landmarks", "openness", "angles", "exp_coeffs"):
        found = np.isfinite(seen[name].reshape(3, -1)).all(axis=1)
        assert found.tolist() == [True, True, False], name


def test_a_picture_that_is_turned_rolls_the_head_by_as_much(nets, unit_samples, seen):
    turned = rotate(FACE, 20, reshape=False, mode="nearest")  # counter-clockwise, to the image's left
    found = features(nets, unit_samples, turned[None])
    assert found["angles"][0] - seen["angles"][0] == pytest.approx(np.array([0, 0, 20]), abs=4)


def test_open_eyes_are_open_and_change_places_in_the_mirror(seen):
    one, other = seen["openness"][:2]
    assert (one > 0.15).all()
    assert other == pytest.approx(one[::-1], abs=0.06)


def test_small_frames_are_seen_at_256_px(nets, unit_samples, seen):
    small = FACE.reshape(64, 4, 64, 4, 3).mean((1, 3)).astype(np.uint8)
    found = features(nets, unit_samples, small[None])
    assert np.abs(found["landmarks"][0] - seen["landmarks"][0]).mean() < 3  # pixels of 256


def test_the_same_frame_gives_the_same_numbers(nets, unit_samples, seen):
    again = features(nets, unit_samples, np.stack([FACE, FACE[:, ::-1], NO_FACE]))
    for name in ("landmarks", "openness", "angles", "exp_coeffs"):
        np.testing.assert_array_equal(again[name], seen[name])


def test_where_no_frame_shows_a_face_nothing_is_fitted(nets, unit_samples):
    found = features(nets, unit_samples, NO_FACE[None])
    assert np.isnan(found["angles"]).all()
    assert np.isnan(found["exp_coeffs"]).all()


def test_one_person_is_near_and_no_face_is_nan(nets, unit_samples):
    frames = np.stack([FACE, (FACE * 0.7).astype(np.uint8), NO_FACE])
    inputs = {"generated": unit_samples([{"__key__": "p", "frames": frames}])}
    (found,) = compute_identity_embeddings(inputs, None, nets, RUNTIME)
    embedding = found["embedding"]
    assert embedding.shape == (3, 128)
    assert np.linalg.norm(embedding[1] - embedding[0]) < 0.3
    assert np.isnan(embedding[2]).all()


@pytest.mark.parametrize(
    ("stage", "missing", "needs"),
    [
        (compute_mesh_landmarks, "mp_face", "mp_face_short"),
        (compute_mesh_landmarks, "mesh468_iris", "mp_iris"),
        (compute_identity_embeddings, "dlib128_mesh", "dlib_resnet"),
    ],
)
def test_without_a_net_its_weights_are_named(nets, unit_samples, stage, missing, needs):
    inputs = {"generated": unit_samples([{"__key__": "p", "frames": FACE[None]}])}
    some = {name: net for name, net in nets.items() if name != missing}
    (found,) = stage(inputs, None, some, RUNTIME)
    assert found == {"__key__": "p", "needs": {"weights": needs}}


# --- arithmetic ---------------------------------------------------------------------------------------------
def eyes(gap):
    """Meshes (1,468,3) whose left eye is 10 px wide with lids `gap` px apart, the right one twice as open."""
    dense = np.zeros((1, 468, 3))
    for contour, distance in ((LEFT_EYE_CONTOUR, gap), (RIGHT_EYE_CONTOUR, 2 * gap)):
        along = [0, *range(1, 8), 10, *range(1, 8)]
        above = [0, *[distance / 2] * 7, 0, *[-distance / 2] * 7]
        dense[0, list(contour), 0], dense[0, list(contour), 1] = along, above
    return dense


def test_openness_is_the_mean_distance_of_the_lids_over_the_eyes_width():
    assert eye_openness(eyes(2.0)) == pytest.approx(np.array([[0.2, 0.4]]), abs=1e-6)
    assert eye_openness(eyes(0.0)) == pytest.approx(np.zeros((1, 2)), abs=1e-6)


def test_the_roll_is_that_of_the_largest_face():
    small, large = [0, 0, 10, 10, 0.9, 0.5], [5, 5, 40, 40, 0.6, -0.25]
    rolls = largest_face_rolls([np.array([small, large], np.float32), np.zeros((0, 6), np.float32)])
    assert rolls.tolist() == [-0.25, 0]


def test_angles_are_those_of_the_head_that_the_landmarks_were_taken_from():
    from models.perception.head.pose import euler_to_rotation, project

    mean = get_analytic_head().landmark_model()[0]
    wanted = np.array([[0.0, 0, 0], [10, -20, 5], [-8, 30, -12]])
    points = project(mean, np.full(3, 60.0), euler_to_rotation(*wanted.T), np.full((3, 3), 128.0))
    landmarks = np.concatenate([points[..., :2], np.full((1, 68, 2), np.nan)]).astype(np.float32)
    angles, _ = fit_head(get_analytic_head(), landmarks)
    assert angles[:3] == pytest.approx(wanted, abs=1)
    assert np.isnan(angles[3]).all()


def test_expression_coefficients_are_those_of_the_head_that_opens_its_mouth():
    from models.perception.head.pose import euler_to_rotation, project

    model = get_analytic_head()
    mean, _, exp_basis = model.landmark_model()
    exp = np.zeros((4, model.n_exp))
    exp[:, model.exp_names.index("jaw_open")] = [0, 1, 2, 3]
    shapes = mean + np.einsum("nrk,tk->tnr", exp_basis, exp)
    points = project(shapes, np.full(4, 60.0), euler_to_rotation(*np.zeros((3, 4))), np.full((4, 3), 128.0))
    _, found = fit_head(model, points[..., :2].astype(np.float32))
    jaw = found[:, model.exp_names.index("jaw_open")]
    assert found.shape == (4, model.n_exp)
    assert np.diff(jaw) == pytest.approx(np.ones(3), abs=0.2)
