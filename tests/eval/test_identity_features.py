from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.perception.faces.arcface import FIVE_POINT_TEMPLATE, ArcFaceNet
from pipelines.eval import identity_features
from pipelines.eval.features import MESH_LANDMARKS_FEATURE

RUNTIME = SimpleNamespace(gpu_share=0, net_batch=0, net_compile=False)
FIVE_POINT_STAGES = {
    "irse50": identity_features.compute_irse50_embeddings,
    "arcface_r50": identity_features.compute_arcface_r50_embeddings,
    "arcface_r100": identity_features.compute_arcface_r100_embeddings,
}


class Rows(torch.nn.Module):
    """In place of a net: 512 of the face's pixels."""

    def forward(self, faces):
        return faces.flatten(1)[:, 5000:5512]


@pytest.fixture
def net():
    return ArcFaceNet("rows", Rows())


def landmarks(scale):
    """(68,2): the five points on the template, so many times as large."""
    points = np.zeros((68, 2), np.float32)
    template = (np.array(FIVE_POINT_TEMPLATE) + 0.5) * scale
    for place, at in zip((slice(36, 42), slice(42, 48), 30, 48, 54), template, strict=True):
        points[place] = at
    return points


def inputs_of(unit_samples, frames, points):
    return {
        "generated": unit_samples([{"__key__": "p", "frames": frames}]),
        MESH_LANDMARKS_FEATURE: unit_samples([{"__key__": "p", **points}]),
    }


@pytest.mark.parametrize(("name", "stage"), FIVE_POINT_STAGES.items())
def test_faces_are_aligned_by_the_meshs_landmarks_at_256_px(name, stage, net, unit_samples):
    frames = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)
    points = np.stack([landmarks(1), np.full((68, 2), np.nan, np.float32)])
    (found,) = stage(inputs_of(unit_samples, frames, {"landmarks": points}), None, {name: net}, RUNTIME)
    face = torch.from_numpy(frames[:1, :112, :112]).permute(0, 3, 1, 2) / 127.5 - 1
    np.testing.assert_allclose(found["embedding"][:1], net.embed_faces(face).numpy(), atol=1e-4)
    assert np.isnan(found["embedding"][1]).all()
    assert found["__key__"] == "p"


@pytest.mark.parametrize(("name", "stage"), FIVE_POINT_STAGES.items())
def test_missing_weights_are_named_the_nets_first(name, stage, net, unit_samples):
    inputs = inputs_of(unit_samples, np.zeros((1, 64, 64, 3), np.uint8), {"needs": {"weights": "mp_iris"}})
    (found,) = stage(inputs, None, {}, RUNTIME)
    assert found == {"__key__": "p", "needs": {"weights": name}}
    (found,) = stage(inputs, None, {name: net}, RUNTIME)
    assert found == {"__key__": "p", "needs": {"weights": "mp_iris"}}


def test_the_fixed_crop_needs_no_face(net, unit_samples):
    frames = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    inputs = {"generated": unit_samples([{"__key__": "p", "frames": frames}])}
    stage = identity_features.compute_irse50_fixedcrop_embeddings
    (found,) = stage(inputs, None, {"irse50": net}, RUNTIME)
    assert found["embedding"].shape == (2, 512)
    assert np.isfinite(found["embedding"]).all()
    (found,) = stage(inputs, None, {}, RUNTIME)
    assert found == {"__key__": "p", "needs": {"weights": "irse50"}}
