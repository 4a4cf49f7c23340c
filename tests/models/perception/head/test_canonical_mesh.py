import json
from pathlib import Path

import numpy as np

from models.perception.head.canonical_mesh import canonical_mesh
from models.perception.head.default_head import get_analytic_head
from models.perception.head.mesh_correspondence import INNER_MESH_POINTS, align, mirror_pairs

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "mesh_correspondence.json").read_text())
REAL = np.reshape(GOLDEN["canonical"], (468, 3))


def test_it_is_symmetric():
    mesh = canonical_mesh()
    pairs = mirror_pairs(mesh)
    assert (mesh[pairs] * [-1, 1, 1] == mesh).all()
    assert (pairs == mirror_pairs(REAL)).all()


def test_it_is_that_of_real_faces_within_five_percent():
    radius = np.sqrt(((REAL - REAL.mean(0)) ** 2).sum(1).mean())
    off = align(canonical_mesh(), slice(None), REAL) - REAL
    assert np.sqrt((off**2).sum(1).mean()) / radius < 0.05


def test_it_lies_at_the_place_of_the_analytic_head():
    head, mesh = get_analytic_head(), canonical_mesh()
    landmarks = head.landmarks(head.mean)[17:]
    off = mesh[list(INNER_MESH_POINTS)] - landmarks
    assert np.sqrt((off**2).sum(1).mean()) < 0.07  # units: 5 mm
    again = align(mesh, list(INNER_MESH_POINTS), landmarks.astype(np.float64))
    np.testing.assert_allclose(again, mesh, atol=2e-3)
