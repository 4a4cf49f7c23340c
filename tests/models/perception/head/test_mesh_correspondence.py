import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.perception.head.canonical_mesh import canonical_mesh
from models.perception.head.default_head import get_analytic_head
from models.perception.head.mesh_correspondence import (
    align,
    mean_face_mesh,
    mesh_points_on_head,
    mirror_pairs,
    nearest_points_on_triangles,
    thin_plate_warp,
)
from models.perception.head.pose import euler_to_rotation, project

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "mesh_correspondence.json").read_text())
CANONICAL = np.reshape(GOLDEN["canonical"], (468, 3))
UPPER_INNER_LIP, LOWER_INNER_LIP = [82, 13, 312], [87, 14, 317]


@pytest.fixture(scope="module")
def head():
    return get_analytic_head()


@pytest.fixture(scope="module")
def points(head):
    """The golden mesh on the head, the nose's lower edge where it was: mean (468,3), bases (468,3,n)."""
    index, weight = head.lm68_index.copy(), head.lm68_weight.copy()
    index[31:36], weight[31:36] = GOLDEN["nose_vertices"], GOLDEN["nose_weights"]
    vertices, weights = mesh_points_on_head(replace(head, lm68_index=index, lm68_weight=weight), CANONICAL)
    return [
        np.einsum("nk,nk...->n...", weights, part[vertices])
        for part in (head.mean, head.id_basis, head.exp_basis)
    ]


def test_the_head_at_the_golden_mesh_has_the_golden_norms(points):
    mean, id_basis, exp_basis = points
    assert np.linalg.norm(mean) == pytest.approx(GOLDEN["mean_norm"], abs=3e-3)
    np.testing.assert_allclose(np.linalg.norm(exp_basis, axis=(0, 1)), GOLDEN["exp_norms"], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(id_basis, axis=(0, 1)), GOLDEN["id_norms"], atol=1e-3)


def test_the_points_are_determined_by_all_components(points):
    basis = np.concatenate(points[1:], axis=2).reshape(3 * 468, -1)
    assert np.linalg.cond(basis.T @ basis) == pytest.approx(1.5e4, rel=0.02)


def test_the_golden_mesh_is_symmetric_and_pairs_are_mutual():
    pairs = mirror_pairs(CANONICAL)
    assert (pairs[pairs] == np.arange(468)).all()
    assert (pairs == np.arange(468)).sum() == 28  # the midline
    assert pairs[[33, 61, 234]].tolist() == [263, 291, 454]  # eye, mouth, cheek
    np.testing.assert_allclose(CANONICAL[pairs] * [-1, 1, 1], CANONICAL, atol=1.5e-3)


def test_points_of_the_default_head_are_symmetric_and_on_the_right_lips(head):
    mean, _, exp_basis = head.dense_model()
    pairs = mirror_pairs(canonical_mesh())
    off = np.linalg.norm(mean[pairs] * [-1, 1, 1] - mean, axis=1)
    assert np.sqrt((off**2).mean()) < 0.005
    jaw = np.linalg.norm(exp_basis[:, :, head.exp_names.index("jaw_open")], axis=1)
    assert jaw[UPPER_INNER_LIP].max() < 0.01
    assert jaw[LOWER_INNER_LIP].min() > 0.12


def test_detections_in_any_pose_and_noise_give_back_the_face():
    rng = np.random.default_rng(0)
    face = CANONICAL - CANONICAL.mean(0)
    face /= np.sqrt((face**2).sum(1).mean())
    detections = [
        project(
            face + rng.normal(size=face.shape) * 0.02,
            rng.uniform(40, 90),
            euler_to_rotation(*rng.uniform(-20, 20, 3)),
            rng.uniform(80, 160, 3),
        )
        for _ in range(30)
    ]
    found = mean_face_mesh(detections)
    placed = align(found, slice(None), face)
    assert np.linalg.norm(placed - face, axis=1).mean() < 0.006
    pairs = mirror_pairs(found)
    np.testing.assert_allclose(found[pairs] * [-1, 1, 1], found, atol=1e-9)


def test_a_similarity_is_undone():
    moved = 3 * CANONICAL @ euler_to_rotation(10, 20, 30).T + [1, 2, 3]
    some = [0, 5, 90, 300]
    np.testing.assert_allclose(align(moved, some, CANONICAL[some]), CANONICAL, atol=1e-9)


def test_the_warp_is_scipys_thin_plate_spline():
    from scipy.interpolate import RBFInterpolator

    rng = np.random.default_rng(0)
    sources, points = rng.normal(size=(30, 3)), rng.normal(size=(50, 3))
    targets = sources + 0.1 * rng.normal(size=(30, 3))
    expected = RBFInterpolator(sources, targets, smoothing=1e-3, kernel="thin_plate_spline")(points)
    np.testing.assert_allclose(thin_plate_warp(sources, targets, points), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("point", "weight"),
    [
        ([0.25, 0.25, 1], [0.5, 0.25, 0.25]),  # over the inside
        ([0.5, -1, 0.3], [0.5, 0.5, 0]),  # beside an edge
        ([-1, -1, 0], [1, 0, 0]),  # beyond a corner
        ([1, 1, 0], [0, 0.5, 0.5]),
    ],
)
def test_the_nearest_point_of_a_triangle_may_be_inside_on_an_edge_or_a_corner(point, weight):
    near, far = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.full((3, 3), 9.0) + np.eye(3)
    triangle, found = nearest_points_on_triangles(np.array([point], float), np.stack([far, near]))
    assert triangle.tolist() == [1]
    np.testing.assert_allclose(found[0], weight, atol=1e-12)
