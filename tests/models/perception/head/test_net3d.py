import numpy as np
import pytest
import torch

from models.perception.faces.face_crops import CropSquares
from models.perception.faces.face_mesh import squares_from_points
from models.perception.head.default_head import get_analytic_head
from models.perception.head.dense_fit import DenseFitter
from models.perception.head.net3d import (
    DensePointFitter,
    jitter_squares,
    load_net3d_mesh468,
    nearest_rotation,
    rotation_to_euler,
)
from models.perception.head.pose import euler_to_rotation, project
from models.perception.head.pose import nearest_rotation as nearest_rotation_in_numpy
from models.perception.head.pose import rotation_to_euler as rotation_to_euler_in_numpy
from pipelines.preprocess.sources.common.head_appearance import (
    sample_person_appearance,
    sample_synthetic_recording_appearance,
)
from pipelines.preprocess.sources.common.rendered_head import HeadRenderer, SyntheticHeadState

SIDE = 192
JAW = 0  # component of the analytic head that opens the jaw


# --- rotations ----------------------------------------------------------------------------------------------
def test_the_nearest_rotation_is_that_of_numpy():
    matrices = np.random.default_rng(0).normal(size=(20, 3, 3))
    found = nearest_rotation(torch.from_numpy(matrices)).numpy()
    np.testing.assert_allclose(found, nearest_rotation_in_numpy(matrices), atol=1e-12)


def test_its_gradient_is_right_for_any_matrix_and_for_a_rotation():
    source = np.random.default_rng(1)
    matrices = torch.from_numpy(source.normal(size=(4, 3, 3))).requires_grad_()
    assert torch.autograd.gradcheck(nearest_rotation, (matrices,))
    rotations = torch.from_numpy(euler_to_rotation(*source.uniform(-60, 60, (3, 4)))).requires_grad_()
    assert torch.autograd.gradcheck(nearest_rotation, (rotations,))


def test_angles_are_those_of_numpy():
    rotations = euler_to_rotation(*np.random.default_rng(2).uniform(-70, 70, (3, 30)))
    found = rotation_to_euler(torch.from_numpy(rotations)).numpy()
    np.testing.assert_allclose(found, rotation_to_euler_in_numpy(rotations), atol=1e-9)


# --- points -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def projected():
    """Points of eight heads, and the identity, expression and angles they have; no angle between the mesh's
    idea of a face and the model's."""
    model, source = get_analytic_head(), np.random.default_rng(3)
    mean, id_basis, exp_basis = model.dense_model()
    identity, expression = source.normal(0, 0.5, (8, model.n_id)), source.uniform(0, 1, (8, model.n_exp))
    angles = source.uniform(-25, 25, (8, 3))
    shape = mean + np.einsum("ncd,bd->bnc", id_basis, identity)
    shape = shape + np.einsum("ncd,bd->bnc", exp_basis, expression)
    seen = project(shape, 60.0, euler_to_rotation(*angles.T), np.array([96.0, 96.0, 0.0]))
    return model, seen, identity, expression, angles


def test_the_jaw_and_the_pose_of_projected_points_are_found(projected):
    model, seen, identity, expression, angles = projected
    found = DensePointFitter(model).fit(torch.from_numpy(seen), torch.from_numpy(identity))
    assert np.corrcoef(found.expression[:, JAW], expression[:, JAW])[0, 1] > 0.98
    turned = rotation_to_euler_in_numpy(
        euler_to_rotation(*angles.T) @ (np.diag([1, -1, -1]) @ euler_to_rotation(*model.dense_angles)).T
    )
    np.testing.assert_allclose(found.angles, turned, atol=2.0)


def test_it_agrees_with_the_fit_of_clips(projected):
    """Algorithm 1 in numpy, which finds the identity too."""
    model, seen, identity, _, _ = projected
    ours = DensePointFitter(model).fit(torch.from_numpy(seen), torch.from_numpy(identity))
    theirs = DenseFitter.for_model(model, "dense", rounds=5, camera_target="fitted").fit_points(seen)
    assert np.corrcoef(ours.expression[:, JAW], theirs.exp[:, JAW])[0, 1] > 0.97
    np.testing.assert_allclose(ours.angles, rotation_to_euler_in_numpy(theirs.rotation), atol=2.5)


def test_gradient_reaches_the_points(projected):
    model, seen, identity, _, _ = projected
    points = torch.from_numpy(seen[:2]).requires_grad_()
    fitter = DensePointFitter(model)
    direction = torch.from_numpy(np.random.default_rng(4).normal(size=points.shape))

    def jaw_and_yaw(points):
        found = fitter.fit(points, torch.from_numpy(identity[:2]))
        return found.expression[:, JAW].double().sum() + found.angles[:, 1].double().sum()

    (gradient,) = torch.autograd.grad(jaw_and_yaw(points), points)
    step = 1e-2
    with torch.no_grad():
        change = jaw_and_yaw(points + step * direction) - jaw_and_yaw(points - step * direction)
    assert float((gradient * direction).sum()) == pytest.approx(float(change) / (2 * step), rel=1e-3)


# --- pixels -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def net(mediapipe_weights):
    return load_net3d_mesh468(mediapipe_weights)


class RenderedPeople:
    """Five people, rendered at 192 px by their jaw and yaw."""

    def __init__(self) -> None:
        self.model = get_analytic_head()
        self.renderers = [
            HeadRenderer(
                self.model,
                sample_person_appearance(np.random.default_rng(40 + n), n, self.model),
                sample_synthetic_recording_appearance(np.random.default_rng(60 + n), SIDE, SIDE),
                SIDE, SIDE,
            )
            for n in range(5)
        ]  # fmt: skip

    def pose(self, jaw: float, yaw: float) -> SyntheticHeadState:
        expression = np.zeros(self.model.n_exp)
        expression[JAW] = jaw
        middle = SIDE * np.array([0.5, 0.5, 0])
        return SyntheticHeadState(np.array([0.0, yaw, 0.0]), SIDE / 4.2, middle, expression, np.zeros(2))

    def images(self, jaw: float = 0.6, yaw: float = 5.0) -> torch.Tensor:
        frames = [renderer.render_frame(self.pose(jaw, yaw)) for renderer in self.renderers]
        return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def people():
    return RenderedPeople()


@pytest.fixture(scope="module")
def faces(net, people):
    """Images, the squares of their faces, and an average identity."""
    images = people.images()
    landmarks = [renderer.project_landmarks(people.pose(0.6, 5.0)) for renderer in people.renderers]
    low, high = (getattr(np.stack(landmarks), side)(1) for side in ("min", "max"))
    box = torch.from_numpy(np.stack([low, high], axis=1)).float()
    with torch.no_grad():
        points, presence = net._mesh.predict(images, squares_from_points(_as_mesh(box)))
    assert (presence > 10).all()
    return images, squares_from_points(points), torch.zeros((len(images), net.n_id))


def _as_mesh(corners):
    """(B,2,2) opposite corners -> 468 points in that box, its eyes level."""
    places = torch.linspace(0, 1, 468)[None, :, None]
    points = corners[:, :1] + places * (corners[:, 1:] - corners[:, :1])
    points[:, [33, 263]] = points[:, [234, 234]]
    points[:, 263, 0] += 1
    return points


def moved(net, faces, people, **pose):
    """What the net says of the faces in another pose, the square as it was, less what it says of them now."""
    _, squares, identity = faces
    with torch.no_grad():
        before, after = (
            net.predict(images, squares, identity) for images in (people.images(), people.images(**pose))
        )
    return after.expression[:, JAW] - before.expression[:, JAW], after.angles[:, 1] - before.angles[:, 1]


def test_an_opened_jaw_and_a_turned_head_are_seen(net, faces, people):
    jaw, _ = moved(net, faces, people, jaw=1.4)
    assert (jaw > 0.1).all()
    _, yaw = moved(net, faces, people, yaw=15.0)
    assert (yaw > 5).all()


def image_gradient(net, faces, figure, copies=8):
    images, squares, identity = faces
    images = images.clone().requires_grad_()
    found = net.predict(images, squares, identity, torch.Generator().manual_seed(7), copies)
    figure(found).sum().backward()
    assert images.grad is not None
    return images.grad


def test_the_gradient_points_to_an_open_jaw(net, faces, people):
    gradient = image_gradient(net, faces, lambda found: found.expression[:, JAW])
    assert torch.isfinite(gradient).all()
    right = []
    for step in (-0.4, 0.4):
        change = people.images(jaw=0.6 + step) - people.images()
        right += ((gradient * change).sum((1, 2, 3)) * step > 0).tolist()
    assert sum(right) >= 9, right


def test_the_gradient_points_to_a_turned_head(net, faces, people):
    gradient = image_gradient(net, faces, lambda found: found.angles[:, 1])
    change = people.images(yaw=8.0) - people.images(yaw=2.0)
    assert ((gradient * change).sum((1, 2, 3)) > 0).sum() >= 4


def test_black_images_show_no_face_and_those_that_are_not_finite_spoil_no_other(net, faces):
    images, squares, identity = faces
    face = images[0]
    shown = torch.stack([face, torch.zeros_like(face), face * torch.nan, face + torch.inf])
    same = CropSquares(*(one[:1].expand(4, *one.shape[1:]) for one in squares))
    shown.requires_grad_()
    found = net.predict(shown, same, identity[:1].expand(4, -1))
    assert found.presence[0] > 10
    assert found.presence[1] < 0
    alone = net.predict(images[:1], CropSquares(*(one[:1] for one in squares)), identity[:1])
    torch.testing.assert_close(found.angles[0], alone.angles[0], atol=1e-2, rtol=0)
    for part in found:
        assert torch.isfinite(part[:2]).all()
        assert torch.isnan(part[2:]).any(-1).all()
    found.expression[:2].sum().backward()
    assert torch.isfinite(shown.grad[:2]).all()


def test_the_same_generator_gives_the_same_copies(net, faces):
    first, again = (image_gradient(net, faces, lambda found: found.angles[:, 1], 2) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)


def test_squares_are_moved_by_a_few_percent(faces):
    _, squares, _ = faces
    found = jitter_squares(squares, torch.Generator().manual_seed(0))
    assert ((found.centre - squares.centre).abs() < 0.1 * squares.side[:, None]).all()
    assert ((found.side / squares.side - 1).abs() < 0.2).all()
    assert (found.side != squares.side).all()
