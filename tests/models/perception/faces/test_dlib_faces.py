import importlib.util
from pathlib import Path

import numpy as np
import pytest

from models.perception import NETS
from models.perception.faces import dlib_faces


@pytest.fixture(scope="module")
def face():
    from skimage.data import astronaut

    return astronaut()[20:240, 110:330]


@pytest.fixture(scope="module")
def weights():
    folder = (
        Path(importlib.util.find_spec("face_recognition_models").submodule_search_locations[0]) / "models"
    )
    return {
        "dlib_sp68": folder / "shape_predictor_68_face_landmarks.dat",
        "dlib_mmod": folder / "mmod_human_face_detector.dat",
    }


@pytest.fixture(scope="module")
def hog():
    return dlib_faces.load_hog_detector({})


@pytest.fixture(scope="module")
def box(hog, face):
    return hog.detect(face[None])[0][0, :4]


def test_every_loader_in_the_table_exists():
    for name, net in NETS.items():
        module, function = net.loader.split(":")
        assert hasattr(importlib.import_module(module), function), name


def test_hog_finds_the_face_and_none_in_noise(hog, face):
    noise = np.random.default_rng(0).integers(0, 255, face.shape, np.uint8)
    found = hog.detect(np.stack([face, noise]))
    assert [len(boxes) for boxes in found] == [1, 0]
    x0, y0, x1, y1, score = found[0][0]
    assert x0 < 110 < x1
    assert y0 < 110 < y1
    assert score > 0.5


def test_small_faces_are_found_at_twice_the_size(hog, face):
    (small,) = hog.detect(face[None, ::2, ::2])  # a face of about 55 px, where HOG's window has 80
    assert len(small) == 1
    assert small[0, 2] - small[0, 0] < 80


def test_the_cnn_is_asked_where_hog_sees_nothing(weights, face):
    large = np.repeat(np.repeat(face, 2, axis=0), 2, axis=1)
    leaning = np.ascontiguousarray(np.rot90(large))  # HOG knows upright faces only
    assert len(dlib_faces.load_hog_detector({}).detect(leaning[None])[0]) == 0
    (found,) = dlib_faces.load_hog_cnn_detector(weights).detect(leaning[None])
    assert found.shape == (1, 5)
    x0, y0, x1, y1 = found[0, :4]  # in pixels of the frame, though the CNN saw it at 256
    assert x0 < 220 < x1
    assert y0 < 220 < y1


def test_views_that_are_not_contiguous_are_taken(hog, face):
    assert len(hog.detect(face[None, :, ::-1])[0]) == 1


@pytest.mark.parametrize("load", [dlib_faces.load_dlib_landmarker, dlib_faces.load_precise_dlib_landmarker])
def test_landmarks_move_with_the_image_and_skip_nan_boxes(weights, face, box, load):
    net = load(weights)
    frames = np.stack([face, face, np.roll(face, 5, axis=1)])
    boxes = np.stack([box, np.full(4, np.nan), box + np.array([5, 0, 5, 0])]).astype(np.float32)
    points = net.landmarks(frames, boxes)
    assert points.shape == (3, 68, 2)
    assert np.isnan(points[1]).all()
    np.testing.assert_allclose((points[2] - points[0]).mean(0), [5, 0], atol=0.6)


def test_both_modes_agree_to_a_pixel(weights, face, box):
    plain = dlib_faces.load_dlib_landmarker(weights).landmarks(face[None], box[None])
    precise = dlib_faces.load_precise_dlib_landmarker(weights).landmarks(face[None], box[None])
    assert np.abs(plain - precise).mean() < 1


def test_mirrored_faces_have_mirrored_landmarks(weights, hog, face):
    """The half pixel of the convention: without it the two would differ by a whole pixel in the mean."""
    net = dlib_faces.load_precise_dlib_landmarker(weights)
    mirrored = np.ascontiguousarray(face[:, ::-1])
    points = [net.landmarks(image[None], hog.detect(image[None])[0][:1, :4])[0] for image in (face, mirrored)]
    assert (points[0][:, 0].mean() + points[1][:, 0].mean()) == pytest.approx(face.shape[1], abs=1.5)
