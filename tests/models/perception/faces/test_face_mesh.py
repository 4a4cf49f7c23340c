import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.perception.faces import face_mesh
from models.perception.faces.mesh_points import (
    IBUG68,
    LEFT_EYE_CONTOUR,
    OUTER_EYE_CORNERS,
    RIGHT_EYE_CONTOUR,
)
from models.perception.interfaces import InferenceConfigurable, Landmarker

GOLDEN = json.loads((Path(__file__).parents[3] / "golden/embedded_nets.json").read_text())
ASTRONAUT = GOLDEN["astronaut"]
BOX = np.array([ASTRONAUT["short_box"]], np.float32)
ROLL = np.array([ASTRONAUT["roi"]["angle"]], np.float32)


@pytest.fixture(scope="module")
def mesh(mediapipe_weights):
    return face_mesh.load_face_mesh(mediapipe_weights, face_mesh.LiteRtNet, iris=True)


@pytest.fixture(scope="module")
def landmarker(mesh):
    return face_mesh.MeshLandmarker(mesh)


@pytest.fixture(scope="module")
def points(landmarker, astronaut):
    return landmarker.predict(astronaut[None], BOX, ROLL)


def eye_distance(dense):
    return np.linalg.norm(dense[OUTER_EYE_CORNERS[0], :2] - dense[OUTER_EYE_CORNERS[1], :2])


def test_the_square_of_a_detection_is_mediapipes():
    squares = face_mesh.squares_from_boxes(torch.from_numpy(BOX), torch.from_numpy(ROLL))
    np.testing.assert_allclose(squares.centre[0], ASTRONAUT["roi"]["centre"], atol=0.01)
    assert float(squares.side) == pytest.approx(ASTRONAUT["roi"]["side"], abs=0.02)


def test_two_passes_over_the_astronaut_give_the_recorded_points(mesh, astronaut):
    images = face_mesh.frames_to_images(astronaut[None], torch.device("cpu"))
    squares = face_mesh.squares_from_boxes(torch.from_numpy(BOX), torch.from_numpy(ROLL))
    for name in ("first", "second"):
        found, presence = mesh.predict(images, squares)
        expected = {int(k): v for k, v in ASTRONAUT[f"{name}_pass"].items()}
        np.testing.assert_allclose(found[0, list(expected)], list(expected.values()), atol=0.3)
        assert float(presence) == pytest.approx(ASTRONAUT[f"{name}_presence"], abs=0.5)
        squares = face_mesh.squares_from_points(found)


def test_the_irises_of_the_astronaut_are_the_recorded_ones(points):
    expected = [ASTRONAUT["iris_left"], ASTRONAUT["iris_right"]]
    np.testing.assert_allclose(points.iris[0], expected, atol=0.3)


def test_a_prediction_holds_68_of_the_468_points_and_how_sure_it_is(landmarker, points):
    assert isinstance(landmarker, InferenceConfigurable)
    protocol: Landmarker = landmarker
    assert protocol.name == "mesh468_iris"
    np.testing.assert_array_equal(points.landmarks, points.dense[:, list(IBUG68), :2])
    np.testing.assert_array_equal(points.landmarks3d, points.dense[:, list(IBUG68)])
    assert points.score[0] == pytest.approx(1, abs=0.05)
    assert (points.confidence > 0.999).all()
    assert {one.dtype for one in (points.landmarks, points.dense, points.iris, points.score)} == {
        np.dtype(np.float32)
    }


def test_points_are_rounded_to_a_64th_of_a_pixel(points):
    np.testing.assert_array_equal(points.dense * 64, np.round(points.dense * 64))


def test_lids_come_from_the_iris_net_and_the_rest_from_the_mesh(mesh, mediapipe_weights, astronaut, points):
    alone = face_mesh.load_mesh468_litert(mediapipe_weights)
    flat = alone.predict(astronaut[None], BOX, ROLL)
    assert alone.name == "mesh468"
    assert flat.iris is None
    moved = np.flatnonzero((points.dense[0] != flat.dense[0]).any(1))
    assert set(moved) <= {*LEFT_EYE_CONTOUR, *RIGHT_EYE_CONTOUR}
    assert len(moved) > 28
    np.testing.assert_array_equal(points.dense[..., 2], flat.dense[..., 2])


def test_torch_and_litert_place_the_same_points(mediapipe_weights, astronaut, points):
    torch_net = face_mesh.load_mesh468_iris_torch(mediapipe_weights)
    found = torch_net.predict(astronaut[None], BOX, ROLL)
    np.testing.assert_allclose(found.dense, points.dense, atol=1 / 64 + 1e-6)
    np.testing.assert_allclose(found.iris, points.iris, atol=1 / 64 + 1e-6)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_frame_gives_the_turned_points(mesh, astronaut, turns):
    """The square of the second pass is turned with the points of the first."""
    images = face_mesh.frames_to_images(astronaut[None], torch.device("cpu"))
    first, _ = mesh.predict(
        images, face_mesh.squares_from_boxes(torch.from_numpy(BOX), torch.from_numpy(ROLL))
    )
    expected, _ = mesh.refine_eyes(images, mesh.predict(images, face_mesh.squares_from_points(first))[0])

    def turn(places):
        for _ in range(turns):  # counterclockwise, as rot90: x, y -> y, 512 - x
            places = torch.cat([places[..., 1:2], 512 - places[..., :1], places[..., 2:]], dim=-1)
        return places

    turned = torch.rot90(images, turns, (2, 3))
    square = face_mesh.squares_from_points(turn(first))
    found, _ = mesh.refine_eyes(turned, mesh.predict(turned, square)[0])
    difference = (found - turn(expected))[..., :2].norm(dim=-1).mean()
    assert float(difference) < 0.002 * eye_distance(expected[0].numpy())


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_face_that_lies_or_stands_on_its_head_is_found_without_its_roll(landmarker, astronaut, quarters):
    upright, box = astronaut[20:276, 96:352], BOX - [96, 20, 96, 20]
    turned = np.rot90(upright, -quarters)
    x, y = box[0, [0, 2]] - 128, box[0, [1, 3]] - 128
    for _ in range(quarters):  # clockwise as seen
        x, y = -y[::-1], x
    around = np.array([[x[0], y[0], x[1], y[1]]], np.float32) + 128
    (expected,) = landmarker.landmarks(upright[None], box) - 128
    for _ in range(quarters):
        expected = np.stack([-expected[:, 1], expected[:, 0]], axis=1)
    (found,) = landmarker.landmarks(turned[None], around) - 128
    assert np.linalg.norm(found - expected, axis=1).mean() < 0.5


def test_a_mirrored_frame_gives_the_mirrored_points(landmarker, astronaut, points):
    mirrored = np.ascontiguousarray(astronaut[None, :, ::-1])
    box = np.array([[512 - BOX[0, 2], BOX[0, 1], 512 - BOX[0, 0], BOX[0, 3]]], np.float32)
    found = landmarker.predict(mirrored, box, -ROLL).dense[0, GOLDEN["mirror"], :2]
    found[:, 0] = 512 - found[:, 0]
    apart = np.linalg.norm(found - points.dense[0, :, :2], axis=1).mean()
    assert apart < 0.04 * eye_distance(points.dense[0])


@pytest.mark.parametrize(
    "box",
    [
        [np.nan] * 4,
        [10, 400, 110, 500],  # the flag
        [200, 100, 201, 101],  # too small
        [-900, -900, -800, -800],  # beside the frame
        [250, 200, 150, 100],  # inside out
        [0, 0, np.inf, np.inf],
        [-1e9, -1e9, 1e9, 1e9],  # the whole picture in a pixel
    ],
)
def test_a_box_without_a_face_has_no_points(landmarker, astronaut, box):
    found = landmarker.predict(astronaut[None], np.array([box], np.float32))
    assert np.isnan(found.landmarks).all()
    assert np.isnan(found.dense).all()
    assert np.isnan(found.iris).all()
    assert found.score.tolist() == [0]
    assert (found.confidence == 0).all()


def test_a_black_frame_has_no_face(landmarker):
    found = landmarker.predict(np.zeros((1, 256, 256, 3), np.uint8), np.array([[64, 64, 192, 192]], float))
    assert np.isnan(found.landmarks).all()


def test_frames_without_a_face_do_not_move_the_others(landmarker, astronaut, points):
    frames = np.repeat(astronaut[None], 3, axis=0)
    boxes = np.concatenate([np.full((1, 4), np.nan, np.float32), BOX, np.full((1, 4), np.nan, np.float32)])
    found = landmarker.predict(frames, boxes, np.repeat(ROLL, 3))
    np.testing.assert_array_equal(found.landmarks[1], points.landmarks[0])
    assert np.isnan(found.landmarks[[0, 2]]).all()
    assert landmarker.predict(frames[:0], boxes[:0]).dense.shape == (0, 468, 3)


def test_between_detected_frames_the_squares_of_the_second_pass_are_interpolated(landmarker, astronaut):
    """A face that moves by four pixels a frame: the same points, with a first pass in every third frame."""
    frames = np.stack([astronaut[:320, 60 + 4 * t : 380 + 4 * t] for t in range(7)])
    boxes = BOX - np.array([[60 + 4 * t, 0] * 2 for t in range(7)], np.float32)
    detected = np.arange(7) % 3 == 0
    every = landmarker.predict(frames, boxes, np.repeat(ROLL, 7))
    third = landmarker.predict(frames, boxes, np.repeat(ROLL, 7), detected)
    np.testing.assert_array_equal(third.dense[detected], every.dense[detected])
    apart = np.linalg.norm((third.dense - every.dense)[..., :2], axis=-1)
    assert apart.mean() < 0.01 * eye_distance(every.dense[0])


def test_a_face_that_is_not_seen_in_a_detected_frame_is_lost_up_to_the_next(landmarker, astronaut):
    frames = np.stack([astronaut[:320, 60:380]] * 7)
    frames[3] = 0
    boxes = np.repeat(BOX - np.array([[60, 0] * 2], np.float32), 7, axis=0)
    found = landmarker.predict(frames, boxes, np.repeat(ROLL, 7), np.arange(7) % 3 == 0)
    assert (found.score > 0).tolist() == [True, False, False, False, False, False, True]
