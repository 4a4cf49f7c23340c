import numpy as np
import pytest

from models.perception.faces.mesh_identity import load_dlib128_mesh_litert, mesh_yaw
from models.perception.faces.mesh_points import OUTER_EYE_CORNERS
from models.perception.interfaces import FaceEmbedder, InferenceConfigurable
from models.weights import find_third_party_weights
from storage.weight_files import find_packaged_file


@pytest.fixture(scope="module")
def embedder(mediapipe_weights):
    resnet = find_packaged_file(find_third_party_weights("dlib_resnet"))
    return load_dlib128_mesh_litert({**mediapipe_weights, "dlib_resnet": resnet})


def test_one_face_stays_near_and_no_face_is_nan(embedder, astronaut):
    assert isinstance(embedder, InferenceConfigurable)
    net: FaceEmbedder = embedder
    shown = astronaut[:320, 60:380]
    box = np.array([117, 80, 212, 175], np.float32)
    frames = np.stack([shown, shown[:, ::-1], (shown * 0.6).astype(np.uint8), shown, shown])
    mirrored = np.array([320 - box[2], box[1], 320 - box[0], box[3]], np.float32)
    flag = np.array([10, 200, 60, 250], np.float32)
    faces = net.embed(frames, np.stack([box, mirrored, box + 4, np.full(4, np.nan, np.float32), flag]))
    assert faces.shape == (5, 128)
    assert faces.dtype == np.float32
    assert np.linalg.norm(faces[1:3] - faces[0], axis=1).max() < 0.4
    assert np.isnan(faces[3:]).all()


def test_a_face_that_is_turned_too_far_is_nan(embedder, astronaut):
    """The astronaut looks half a degree to one side."""
    box = np.array([[177, 81, 272, 175]], np.float32)
    assert np.isfinite(embedder.embed(astronaut[None], box, max_yaw=5.0)).all()
    assert np.isnan(embedder.embed(astronaut[None], box, max_yaw=0.1)).all()


@pytest.mark.parametrize("yaw", [-35, 0, 35])
def test_the_yaw_is_that_of_the_eyes(yaw):
    angle = np.radians(yaw)
    dense = np.zeros((1, 468, 3), np.float32)
    dense[0, OUTER_EYE_CORNERS[1]] = 60 * np.array([np.cos(angle) * 0.6, np.cos(angle) * 0.8, np.sin(angle)])
    assert mesh_yaw(dense)[0] == pytest.approx(yaw, abs=1e-3)


def test_it_agrees_with_dlibs_own_code(embedder, astronaut):
    from models.perception.faces.dlib_identity import load_dlib_embedder

    dlib = load_dlib_embedder({
        name: find_packaged_file(find_third_party_weights(name)) for name in ("dlib_sp5", "dlib_resnet")
    })  # fmt: skip
    box = np.array([[177, 81, 272, 175]], np.float32)
    ours, theirs = (net.embed(astronaut[None], box) for net in (embedder, dlib))
    assert np.linalg.norm(ours - theirs) < 0.2  # chips by other points; another person is 0.8 away
