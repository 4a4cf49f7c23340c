"""The port against figures of dlib's net, against dlib itself, and on drawn people."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.perception import NETS
from models.perception.faces.dlib_resnet import (
    CHIP_POINTS,
    FIVE_OF_68_LANDMARKS,
    face_chip_squares,
    face_chips,
    load_dlib_resnet,
)
from models.perception.head.default_head import get_analytic_head
from models.perception.interfaces import InferenceSettings
from models.weights import find_third_party_weights
from storage.weight_files import find_packaged_file

GOLDEN = json.loads((Path(__file__).parents[3] / "golden/embedded_nets.json").read_text())


def packaged(weights_id):
    return find_packaged_file(find_third_party_weights(weights_id))


@pytest.fixture(scope="module")
def net():
    return load_dlib_resnet({"dlib_resnet": packaged("dlib_resnet")})


@pytest.fixture(scope="module")
def chip():
    """The figures' input: waves, RGB in [0,1]."""
    y, x, c = np.meshgrid(np.arange(150), np.arange(150), np.arange(3), indexing="ij")
    waves = np.sin(2 * np.pi * (x + 2 * y) / 37 + c) + np.cos(2 * np.pi * (3 * x - y) / 53 - c)
    return as_images(0.5 + 0.25 * waves, scale=1)


def as_images(pixels, scale=255):
    return torch.from_numpy(np.asarray(pixels, np.float32) / scale).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def people():
    """Two people, each twice, in other clothes, light and pose: images (4,3,200,200), landmarks (4,68,2)."""
    from pipelines.preprocess.sources.common.head_appearance import (
        sample_person_appearance,
        sample_synthetic_recording_appearance,
    )
    from pipelines.preprocess.sources.common.rendered_head import HeadRenderer, SyntheticHeadState

    model, images, landmarks = get_analytic_head(), [], []
    for person in range(2):
        looks = sample_person_appearance(np.random.default_rng(person), person, model)
        for picture in range(2):
            setting = sample_synthetic_recording_appearance(
                np.random.default_rng(10 * person + picture), 200, 200
            )
            renderer = HeadRenderer(model, looks, setting, 200, 200)
            pose = SyntheticHeadState(
                np.array([4.0 * picture, 16.0 * picture - 6, -5.0 * picture]), 55.0 + 8 * picture,
                np.array([100.0, 95.0, 0.0]), np.zeros(model.n_exp), np.zeros(2),
            )  # fmt: skip
            images.append(as_images(renderer.render_frame(pose)))
            landmarks.append(renderer.project_landmarks(pose))
    return torch.cat(images), torch.from_numpy(np.stack(landmarks).astype(np.float32))


def test_the_embedding_is_the_figures(net, chip):
    found = net.embed_chips(chip)[0]
    wanted = GOLDEN["dlib_resnet"]["output"]
    torch.testing.assert_close(found[:6], torch.tensor(wanted["first"]), rtol=0, atol=2e-6)
    torch.testing.assert_close(found[-6:], torch.tensor(wanted["last"]), rtol=0, atol=2e-6)
    assert found.norm().item() == pytest.approx(wanted["norm"], abs=2e-6)


def test_maps_of_every_level_are_the_figures(net, chip):
    layers, found = net._net._net, {}
    for index in (2, 6, 9, 12, 13):
        layers.blocks[index].register_forward_hook(
            lambda _, __, out, index=index: found.update({index: out[0]})
        )
    net.embed_chips(chip)
    for maps, wanted in zip(found.values(), GOLDEN["dlib_resnet"]["maps"][1:], strict=True):
        assert list(maps.shape) == wanted["shape"]
        assert maps.mean().item() == pytest.approx(wanted["mean"], abs=2e-6)
        assert maps.norm().item() == pytest.approx(wanted["norm"], rel=2e-6)


def byte_chip():
    y, x, c = np.meshgrid(np.arange(150), np.arange(150), np.arange(3), indexing="ij")
    return ((7 * x + 13 * y + 57 * c) % 256).astype(np.uint8)


def test_bytes_are_embedded_as_dlib_did(net):
    found = net.embed_chips(as_images(byte_chip()))[0]
    wanted = GOLDEN["dlib_resnet_uint8"]["dlib"]
    torch.testing.assert_close(found[:6], torch.tensor(wanted["first"]), rtol=0, atol=2e-6)
    torch.testing.assert_close(found[-6:], torch.tensor(wanted["last"]), rtol=0, atol=2e-6)
    assert found.norm().item() == pytest.approx(wanted["norm"], abs=2e-6)


def test_bytes_are_embedded_as_dlib_does(net):
    dlib = pytest.importorskip("dlib")
    theirs = dlib.face_recognition_model_v1(str(packaged("dlib_resnet")))
    wanted = np.array(theirs.compute_face_descriptor(byte_chip()), np.float32)
    found = net.embed_chips(as_images(byte_chip()))[0]
    torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=0, atol=2e-6)


def test_a_photograph_is_embedded_as_dlib_does(net):
    """The same chip to 2e-6; dlib's own chip, cut another way, to a tenth of what parts two pictures of a
    person."""
    dlib = pytest.importorskip("dlib")
    from skimage.data import astronaut

    image = astronaut()
    shape = dlib.shape_predictor(str(packaged("dlib_sp5")))(
        image, dlib.get_frontal_face_detector()(image, 0)[0]
    )
    theirs = dlib.face_recognition_model_v1(str(packaged("dlib_resnet")))
    cut = dlib.get_face_chip(image, shape, 150, 0.25)
    wanted = torch.tensor(np.array(theirs.compute_face_descriptor(cut)), dtype=torch.float32)
    torch.testing.assert_close(net.embed_chips(as_images(cut))[0], wanted, rtol=0, atol=2e-6)

    points = torch.tensor([[(p.x + 0.5, p.y + 0.5) for p in shape.parts()]])
    assert (face_chips(as_images(image), points) - as_images(cut)).abs().mean() < 1.5 / 255
    assert (net.embed_points(as_images(image), points)[0] - wanted).norm() < 0.03


def test_five_chips_are_embedded_as_each_alone(net):
    chips = torch.rand(5, 3, 150, 150, generator=torch.manual_seed(0))
    alone = torch.cat([net.embed_chips(one[None]) for one in chips])
    torch.testing.assert_close(net.embed_chips(chips), alone, rtol=0, atol=2e-6)


def test_pictures_of_one_person_are_closer_than_of_two(net, people):
    distances = torch.cdist(*[net.embed_landmarks(*people)] * 2)
    same = max(distances[0, 1], distances[2, 3])
    assert same < distances[:2, 2:].min()


@pytest.mark.parametrize("angle", [0.0, 0.4, 3.0])
def test_a_chips_points_lie_where_dlib_has_them(angle):
    """A face turned and moved as a whole is brought back."""
    turn = torch.tensor(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=torch.float32
    )
    points = (torch.tensor(CHIP_POINTS) * 80) @ turn.T + torch.tensor([200.0, 100.0])
    squares = face_chip_squares(points[None])
    assert squares.side.item() == pytest.approx(120, rel=1e-5)  # the unit square and a quarter on each side
    assert squares.angle.item() == pytest.approx(angle, abs=1e-5)
    corner = squares.centre[0] - turn @ torch.tensor([60.0, 60.0])
    torch.testing.assert_close((points - corner) @ turn / 120, (0.25 + torch.tensor(CHIP_POINTS)) / 1.5)


def test_ibugs_landmarks_are_five_points(net, people):
    images, landmarks = people
    five = landmarks[:, FIVE_OF_68_LANDMARKS]
    assert torch.equal(net.embed_landmarks(images, landmarks), net.embed_points(images, five))
    outer_right, inner_right, outer_left, inner_left, nose = five[0]
    assert outer_left[0] < inner_left[0] < nose[0] < inner_right[0] < outer_right[0]


def test_a_face_without_points_has_no_embedding(net, people):
    images, landmarks = people[0], people[1].clone()
    landmarks[1, 36] = torch.nan
    landmarks[2] = 50.0  # all in one place
    found = net.embed_landmarks(images, landmarks)
    assert torch.isfinite(found).all(1).tolist() == [True, False, False, True]
    assert torch.isnan(net.embed_landmarks(images[:1], landmarks[1:2])).all()


def test_an_image_that_is_not_finite_has_no_embedding_and_spoils_no_other(net, people):
    images, landmarks = people[0].clone(), people[1]
    images[1], images[2] = torch.nan, torch.inf
    found = net.embed_landmarks(images, landmarks)
    assert torch.isfinite(found).all(1).tolist() == [True, False, False, True]
    torch.testing.assert_close(found[0], net.embed_landmarks(images[:1], landmarks[:1])[0], rtol=0, atol=2e-6)


def test_steps_along_the_gradient_bring_two_faces_together(net, people):
    images, landmarks = people
    with torch.no_grad():
        wanted = net.embed_landmarks(images[:1], landmarks[:1])
        chip = face_chips(images[2:3], landmarks[2:3, FIVE_OF_68_LANDMARKS])
    chip.requires_grad_(True)
    optimizer = torch.optim.Adam([chip], lr=0.01)
    distances = []
    for _ in range(20):
        distance = (net.embed_chips(chip) - wanted).norm()
        optimizer.zero_grad()
        distance.backward()
        optimizer.step()
        distances.append(distance.item())
    assert distances[-1] < 0.5 * distances[0]
    assert not any(p.requires_grad or p.grad is not None for p in net._net._net.parameters())


def test_gradient_reaches_pixels_and_points(net, people):
    images, landmarks = (one[:1].clone().requires_grad_(True) for one in people)
    net.embed_landmarks(images, landmarks).square().sum().backward()
    for gradient in (images.grad, landmarks.grad[:, FIVE_OF_68_LANDMARKS]):
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0


def test_chips_of_another_size_are_refused(net):
    with pytest.raises(ValueError, match=r"chips \(1, 3, 160, 160\): expected \(B, 3, 150, 150\)"):
        net.embed_chips(torch.rand(1, 3, 160, 160))


def test_in_bfloat16_it_tells_the_same_people_apart(people):
    half = load_dlib_resnet({"dlib_resnet": packaged("dlib_resnet")})
    full = half.embed_landmarks(*people)
    half.configure_inference(InferenceSettings(dtype="bfloat16"))
    found = half.embed_landmarks(*people)
    assert found.dtype == torch.float32
    assert (found - full).norm(dim=1).max() < 0.05


def test_it_needs_one_file_and_not_dlib():
    assert NETS["dlib_resnet"].weights == ("dlib_resnet",)
    assert "dlib-bin" not in NETS["dlib_resnet"].packages
