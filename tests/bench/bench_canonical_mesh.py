"""Makes the figures of models/perception/head/canonical_mesh.py again, from the demo's rendered heads, and
compares.

python -m pytest -m bench -s tests/bench/bench_canonical_mesh.py       about three minutes of CPU

After a change of the renderer, the nets or the head's landmarks: put the printed text in that file.
"""

from __future__ import annotations

from textwrap import wrap

import numpy as np
import pytest
from msgspec.structs import replace

from models.perception.head.canonical_mesh import MESH_FIT_ANGLES, canonical_mesh
from models.perception.head.default_head import get_analytic_head
from models.perception.head.mesh_correspondence import (
    INNER_MESH_POINTS,
    align,
    mean_face_mesh,
    mirror_pairs,
)
from tests.bench.bench_face_truth import DENSE, fits_of, keypoints_of, load_stack, rendered_clips
from tests.bench.face_truth import pose_error

STACK = "mp_face+mesh468_iris"
EVERY = 20
"""Frames of a clip between detections that count: four a clip."""


def in_thousandths(mesh: np.ndarray) -> np.ndarray:
    """A symmetric mesh (468,3) at the place of the analytic head, in integers, as symmetric as before."""
    head = get_analytic_head()
    landmarks = head.landmarks(head.mean).astype(np.float64)
    placed = align(mesh, list(INNER_MESH_POINTS), landmarks[17:])
    whole, pairs = np.round(1000 * placed).astype(int), mirror_pairs(mesh)
    own = np.arange(len(mesh))
    second = pairs < own
    whole[second] = whole[pairs[second]] * [-1, 1, 1]
    whole[pairs == own, 0] = 0
    return whole


@pytest.mark.bench
def test_the_canonical_mesh_and_its_angles_are_made_again():
    points, clips = keypoints_of(load_stack(STACK)), rendered_clips()
    detections = [frame for one in points for frame in one["dense"][::EVERY] if np.isfinite(frame).all()]
    whole = in_thousandths(mean_face_mesh(detections))
    text = wrap(", ".join(map(str, whole.ravel())) + ",", 104)
    print(f"\n{len(detections)} detections\n_THOUSANDTHS = (\n    " + "\n    ".join(text) + "\n)")
    for target in ("mean", "fitted"):
        fits = fits_of(points, replace(DENSE, alignments=5, camera_target=target))
        pose = pose_error([fit["angles"] for fit in fits], [clip.truth for clip in clips])
        print(f"camera to the {target} shape: turned by {pose.bias + MESH_FIT_ANGLES} degrees")
        assert np.abs(pose.bias).max() < 1
    apart = np.linalg.norm(whole / 1000 - canonical_mesh(), axis=1)
    assert apart.max() < 0.01
