"""dlib's embedding on the one photograph of a face that there is, and on a drawn head."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from models.perception.faces import dlib_faces, dlib_identity


@pytest.fixture(scope="module")
def embedder():
    found = importlib.util.find_spec("face_recognition_models")
    folder = Path(found.submodule_search_locations[0]) / "models"
    return dlib_identity.load_dlib_embedder({
        "dlib_sp5": folder / "shape_predictor_5_face_landmarks.dat",
        "dlib_resnet": folder / "dlib_face_recognition_resnet_model_v1.dat",
    })  # fmt: skip


@pytest.fixture(scope="module")
def shown():
    from skimage.data import astronaut

    return astronaut()[:320, 60:380]


def test_one_face_stays_near_and_a_missing_one_is_nan(embedder, shown):
    (found,) = dlib_faces.load_hog_detector({}).detect(shown[None])
    box = found[0, :4]
    frames = np.stack([shown, shown[:, ::-1], (shown * 0.6).astype(np.uint8), shown])
    mirrored = np.array([320 - box[2], box[1], 320 - box[0], box[3]], np.float32)
    faces = embedder.embed(frames, np.stack([box, mirrored, box + 4, np.full(4, np.nan, np.float32)]))
    assert faces.shape == (4, 128)
    assert faces.dtype == np.float32
    assert np.linalg.norm(faces[1:3] - faces[0], axis=1).max() < 0.4
    assert np.isnan(faces[3]).all()


def test_what_is_no_face_is_far(embedder, shown):
    (found,) = dlib_faces.load_hog_detector({}).detect(shown[None])
    box = found[0, :4]
    noise = np.random.default_rng(0).integers(0, 255, shown.shape, np.uint8)
    face, other = embedder.embed(np.stack([shown, noise]), np.stack([box, box]))
    assert np.linalg.norm(face - other) > 0.6
