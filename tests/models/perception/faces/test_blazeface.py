import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from models.perception.faces import blazeface
from models.perception.interfaces import FaceDetector, InferenceConfigurable

GOLDEN = json.loads((Path(__file__).parents[3] / "golden/embedded_nets.json").read_text())


@pytest.fixture(scope="module", params=["litert", "torch"])
def detector(request, mediapipe_weights):
    load = {"litert": blazeface.load_mp_face_litert, "torch": blazeface.load_mp_face_torch}
    return load[request.param](mediapipe_weights)


@pytest.fixture(scope="module")
def on_litert(mediapipe_weights):
    return blazeface.load_mp_face_litert(mediapipe_weights)


@pytest.mark.parametrize(("side", "name"), [(128, "anchors_short"), (192, "anchors_full")])
def test_anchors_are_those_of_mediapipe(side, name):
    anchors = blazeface.anchor_centres(side)
    assert len(anchors) == GOLDEN[name]["count"]
    for row, expected in GOLDEN[name]["rows"].items():
        np.testing.assert_allclose(anchors[int(row)], expected, atol=1e-6)


def detection(x0, x1, score):
    return np.array([x0, 0, x1, 1, *np.linspace(x0, x1, 12), score])


def shift_for_overlap(overlap):
    """How far two unit boxes lie apart whose intersection is such a part of their union."""
    return (1 - overlap) / (1 + overlap)


def test_boxes_that_overlap_are_averaged_by_their_scores():
    shift = shift_for_overlap(0.31)
    merged = blazeface.weighted_non_maximum_suppression(
        np.stack([detection(0, 1, 0.9), detection(shift, 1 + shift, 0.6)])
    )
    assert len(merged) == 1
    np.testing.assert_allclose(merged[0, [0, 2]], [0.4 * shift, 1 + 0.4 * shift])
    np.testing.assert_allclose(merged[0, 4:16], np.linspace(0.4 * shift, 1 + 0.4 * shift, 12))
    assert merged[0, -1] == 0.9


def test_boxes_that_overlap_less_are_two_faces():
    shift = shift_for_overlap(0.29)
    found = np.stack([detection(0, 1, 0.9), detection(shift, 1 + shift, 0.6)])
    np.testing.assert_array_equal(blazeface.weighted_non_maximum_suppression(found), found)


def test_boxes_without_area_end():
    found = np.stack([detection(0.5, 0.5, 0.9), detection(0.5, 0.5, 0.6)])
    assert len(blazeface.weighted_non_maximum_suppression(found)) == 2


def test_a_place_in_the_letterbox_maps_back_to_its_pixel():
    """A white block of a 1280 x 720 frame, its middle found in the net's 192 pixels."""
    frame = torch.zeros((1, 3, 720, 1280), dtype=torch.uint8)
    frame[..., 300:340, 900:960] = 255
    small = (blazeface.letterbox(frame, 192)[0, 0] + 1) / 2
    places = (torch.arange(192) + 0.5) / 192
    middle = [float((small.sum(axis) * places).sum() / small.sum()) for axis in (0, 1)]
    found = np.zeros((1, 17))
    found[0, :2] = middle
    np.testing.assert_allclose(blazeface.letterbox_to_pixels(found, 720, 1280)[0, :2], [930, 320], atol=0.5)


@pytest.mark.parametrize(("height", "width"), [(360, 640), (640, 360), (720, 721), (100, 1000)])
def test_squares_cover_the_frame_and_overlap_by_a_third(height, width):
    side, long = min(height, width), max(height, width)
    starts = [max(corner) for corner in blazeface.tile_corners(height, width)]
    assert starts[0] == 0
    assert starts[-1] == long - side
    assert all(b - a <= 2 / 3 * side + 1 for a, b in pairwise(starts))


def test_the_face_of_the_astronaut_is_found(detector, astronaut):
    assert isinstance(detector, InferenceConfigurable)
    face: FaceDetector = detector
    (found,) = face.detect(astronaut[None])
    golden = GOLDEN["astronaut"]
    np.testing.assert_allclose(found[0, :4], golden["short_box"], atol=0.3)
    assert found[0, 4] == pytest.approx(golden["short_score"], abs=0.01)
    assert found[0, 5] == pytest.approx(golden["roi"]["angle"], abs=0.005)
    assert found.shape == (1, 6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("net", ["short", "full"])
def test_box_and_key_points_of_the_astronaut_are_the_recorded_ones(detector, astronaut, net):
    golden = GOLDEN["astronaut"]
    images = blazeface.frames_to_images(astronaut[None], torch.device("cpu"))
    (found,) = {"short": detector._short_range, "full": detector._full_range}[net](images)
    assert len(found) == 1
    np.testing.assert_allclose(found[0, :4], golden[f"{net}_box"], atol=0.3)
    assert found[0, -1] == pytest.approx(golden[f"{net}_score"], abs=0.01)
    if net == "short":
        np.testing.assert_allclose(found[0, 4:16], golden["short_keypoints"], atol=0.3)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_face_that_lies_or_stands_on_its_head_is_found_with_its_roll(on_litert, astronaut, quarters):
    upright = astronaut[20:276, 96:352]
    ((box,), (found,)) = on_litert.detect(np.stack([upright, np.rot90(upright, -quarters)]))
    x, y = (box[[0, 2]] - 128, box[[1, 3]] - 128)
    for _ in range(quarters):  # clockwise as seen
        x, y = -y[::-1], x
    expected = np.array([x[0], y[0], x[1], y[1]]) + 128
    assert blazeface.box_overlaps(expected, found[None])[0] > 0.5
    off = (found[5] - box[5] - quarters * np.pi / 2 + np.pi) % (2 * np.pi) - np.pi
    assert abs(off) < 0.7  # the face mesh takes the rest in its second pass


def paste(astronaut, canvas, width, left, top):
    """The astronaut's face, its box so many pixels wide, in a grey canvas of (height, width)."""
    from PIL import Image

    zoom = width / 94.5
    face = astronaut[20:260, 100:340]
    side = round(240 * zoom)
    small = np.asarray(Image.fromarray(face).resize((side, side), Image.Resampling.LANCZOS))
    frame = np.full((*canvas, 3), 127, np.uint8)
    frame[top : top + side, left : left + side] = small
    return frame, np.array([left + 77 * zoom, top + 61 * zoom, left + 172 * zoom, top + 155 * zoom])


@pytest.mark.parametrize("width", [96, 48, 28])
def test_small_faces_are_found_by_the_full_range_and_in_squares(on_litert, astronaut, width):
    frame, box = paste(astronaut, (360, 640), width, 320, 60)
    (found,) = on_litert.detect(frame[None])
    assert len(found) == 1
    assert blazeface.box_overlaps(box, found)[0] > 0.5


def test_frames_of_a_batch_are_looked_at_by_themselves(on_litert, astronaut):
    frames = np.stack([
        np.zeros((360, 640, 3), np.uint8),
        paste(astronaut, (360, 640), 96, 320, 60)[0],
        np.full((360, 640, 3), 255, np.uint8),
        paste(astronaut, (360, 640), 28, 100, 200)[0],
    ])  # fmt: skip
    found = on_litert.detect(frames)
    assert [len(rows) for rows in found] == [0, 1, 0, 1]
    for rows, frame in zip(found, frames, strict=True):
        np.testing.assert_array_equal(rows, on_litert.detect(frame[None])[0])


@pytest.mark.parametrize("picture", ["coffee", "rocket", "chelsea", "hubble_deep_field", "grass"])
def test_there_is_no_face_in_pictures_of_other_things(on_litert, picture):
    from skimage import data

    image = getattr(data, picture)()
    frame = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    (found,) = on_litert.detect(frame[None])
    assert len(found) == 0


def test_a_cat_that_the_detector_takes_for_a_face_is_dropped_by_the_mesh(on_litert):
    from skimage import data

    images = blazeface.frames_to_images(data.chelsea()[None], torch.device("cpu"))
    cat = blazeface._detection_rows(on_litert._short_range(images)[0])
    assert cat[:, 4] == pytest.approx([0.58], abs=0.01)
    assert [len(rows) for rows in on_litert._drop_without_face(images, [cat])] == [0]


def test_what_is_not_sure_and_no_face_to_the_mesh_is_dropped(on_litert, astronaut):
    """One box in the picture of a cat and in that of a face, both as sure."""
    from skimage import data

    images = blazeface.frames_to_images(
        np.stack([data.chelsea()[:300, 100:400], astronaut[:300, 100:400]]), torch.device("cpu")
    )
    face = on_litert.detect(images[1:].permute(0, 2, 3, 1).numpy())[0]
    face[:, 4] = 0.6
    kept = on_litert._drop_without_face(images, [face, face])
    assert [len(rows) for rows in kept] == [0, 1]


def test_a_frame_of_one_pixel_has_no_face(on_litert):
    assert len(on_litert.detect(np.zeros((1, 1, 1, 3), np.uint8))[0]) == 0
