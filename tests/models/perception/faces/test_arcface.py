"""What ArcFace's nets look at, against scikit-image's least squares and warp."""

import numpy as np
import pytest
import torch
from skimage.transform import SimilarityTransform, warp

from models.perception.faces.arcface import (
    FIVE_POINT_TEMPLATE,
    ArcFaceNet,
    align_five_points,
    crop_aligned_frames,
    five_point_squares,
    five_points_from_68,
)
from models.perception.interfaces import InferenceSettings

TEMPLATE = np.array(FIVE_POINT_TEMPLATE)


@pytest.fixture(scope="module")
def points():
    """Five points of three faces, counted from the middle of pixel 0: turned, large, half outside."""
    rng = np.random.default_rng(3)
    turns = [(1.3, 0.4, (60, 40)), (2.1, -0.2, (10, 20)), (1.1, 2.8, (200, 230))]
    return np.stack([
        TEMPLATE @ (scale * np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]])) + shift
        + rng.normal(0, 2, (5, 2))
        for scale, t, shift in turns
    ])  # fmt: skip


def test_a_face_is_where_the_least_squares_similarity_puts_it(points):
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(3, 3, 240, 256))
    found = align_five_points(torch.from_numpy(images), torch.from_numpy(points + 0.5))
    for n in range(3):
        similarity = SimilarityTransform()
        assert similarity.estimate(points[n], TEMPLATE)
        expected = warp(images[n].transpose(1, 2, 0), similarity.inverse, (), (112, 112), order=1, cval=0.0)
        np.testing.assert_allclose(found[n].permute(1, 2, 0).numpy(), expected, atol=1e-9)
    assert (found[2] == 0).float().mean() > 0.1  # outside the image


def test_points_on_the_template_leave_the_face_as_it_is():
    image = torch.rand(1, 3, 112, 112, dtype=torch.float64)
    face = align_five_points(image, torch.from_numpy(TEMPLATE[None] + 0.5))
    torch.testing.assert_close(face, image, rtol=0, atol=1e-9)


def test_gradient_reaches_image_and_points(points):
    images = torch.rand(3, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    at = torch.from_numpy(points / 4).requires_grad_()
    align_five_points(images, at).sum().backward()
    assert images.grad is not None
    assert at.grad is not None
    assert images.grad.abs().sum() > 0
    assert torch.isfinite(at.grad).all()
    assert at.grad.abs().sum() > 0


def test_squares_are_of_112_pixels_at_the_templates_scale():
    squares = five_point_squares(torch.from_numpy(TEMPLATE[None] * 2))
    assert float(squares.side[0]) == pytest.approx(224)
    assert float(squares.angle[0]) == pytest.approx(0)


def test_five_points_are_the_eyes_means_the_nose_and_the_mouths_corners():
    landmarks = torch.arange(68.0)[None, :, None].expand(1, 68, 2)
    assert five_points_from_68(landmarks)[0, :, 0].tolist() == [38.5, 44.5, 30, 48, 54]


def test_the_fixed_crop_averages_rows_35_to_222_and_columns_32_to_219():
    images = torch.zeros(1, 3, 256, 256)
    images[:, :, 35:223, 32:220] = 1
    face = crop_aligned_frames(images)
    assert face.shape == (1, 3, 112, 112)
    assert (face == 1).all()
    with pytest.raises(ValueError, match=r"\(128, 128\) pixels: .* of 256"):
        crop_aligned_frames(torch.zeros(1, 3, 128, 128))


# --- the net's interface ------------------------------------------------------------------------------------
class Corners(torch.nn.Module):
    """In place of a net: 512 of the face's numbers."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, faces):
        return self.scale * faces.flatten(1)[:, 6000:6512]


@pytest.fixture
def net():
    return ArcFaceNet("corners", Corners())


def test_frames_without_points_have_no_embedding(net):
    frames = np.random.default_rng(1).integers(0, 256, (3, 128, 128, 3), np.uint8)
    points = np.stack([TEMPLATE, np.full((5, 2), np.nan), TEMPLATE]).astype(np.float32) + 0.5
    found = net.embed_five_points(frames, points)
    assert found.shape == (3, 512)
    assert np.isnan(found).all(axis=1).tolist() == [False, True, False]
    np.testing.assert_allclose(np.linalg.norm(found[[0, 2]], axis=1), 1, atol=1e-6)
    faces = torch.from_numpy(frames[:1, :112, :112]).permute(0, 3, 1, 2) / 127.5 - 1
    np.testing.assert_allclose(found[:1], net.embed_faces(faces).detach().numpy(), atol=1e-4)


def test_clips_without_any_face_give_no_embedding(net):
    found = net.embed_five_points(np.zeros((2, 64, 64, 3), np.uint8), np.full((2, 5, 2), np.nan, np.float32))
    assert np.isnan(found).all()


def test_aligned_frames_need_no_points(net):
    net.configure_inference(InferenceSettings(batch=2))
    frames = np.random.default_rng(2).integers(0, 256, (3, 256, 256, 3), np.uint8)
    found = net.embed_aligned_frames(frames)
    crops = crop_aligned_frames(torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1)
    np.testing.assert_allclose(found, net.embed_faces(crops).detach().numpy(), atol=1e-5)


def test_gradient_reaches_faces_and_no_weight(net):
    faces = torch.rand(1, 3, 112, 112, requires_grad=True)
    net.embed_faces(faces)[0, 0].backward()
    assert faces.grad is not None
    assert faces.grad.abs().sum() > 0
