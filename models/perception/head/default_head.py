"""The embedded default head, which our own code makes: no file is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from models.perception.head.analytic_head import build_analytic_head
from models.perception.head.canonical_mesh import MESH_FIT_ANGLES, canonical_mesh
from models.perception.head.mesh_correspondence import mesh_points_on_head
from models.perception.head.morphable import MorphableModel


@cache
def get_analytic_head() -> MorphableModel:
    """The same object every time, its arrays read-only. Its dense points are those of MediaPipe's face
    mesh."""
    head = build_analytic_head()
    vertices, weights = mesh_points_on_head(head, canonical_mesh())
    angles = np.array(MESH_FIT_ANGLES, np.float32)
    for array in (vertices, weights, angles):
        array.setflags(write=False)
    return replace(head, dense_index=vertices, dense_weight=weights, dense_angles=angles)


def load_analytic_head(weights: Mapping[str, Path]) -> MorphableModel:
    """As stages are handed it, made before their first unit."""
    return get_analytic_head()
