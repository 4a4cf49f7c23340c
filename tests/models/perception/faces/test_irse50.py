"""IR-SE50 in its publisher's file format, against figures of the published code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import InvalidFile
from models.perception import NETS
from models.perception.faces.arcface import crop_aligned_frames
from models.perception.faces.irse50 import IrSe50Layers, check_weights_match_id, load_irse50
from tests.shape_files import filled, imported

GOLDEN = json.loads((Path(__file__).parents[3] / "golden/arcface.json").read_text())["arcface_ir_se50_hash"]


@pytest.fixture(scope="module")
def state():
    return filled(IrSe50Layers(), "hash").state_dict()


@pytest.fixture(scope="module")
def net(state, tmp_path_factory):
    """From model_ir_se50.pth, a bare state dict, as imported."""
    path = tmp_path_factory.mktemp("irse50") / "model_ir_se50.pth"
    torch.save(state, path)
    return load_irse50({"irse50": imported(path)})


def wave(height, rate, shift, size=1.0):
    k = np.arange(2 * 3 * height**2)
    return torch.from_numpy(size * np.sin(rate * k + shift)).view(2, 3, height, height).float()


def check_against_golden(found, name):
    golden = GOLDEN["outputs"][name]
    values, middle = found.detach().double().numpy().ravel(), found.numel() // 2
    atol = 20 * golden["f32_max_abs_diff"] + 1e-5 * golden["absmax"]
    np.testing.assert_allclose(values[:16], golden["first16"], rtol=0, atol=atol)
    np.testing.assert_allclose(values[middle : middle + 8], golden["mid8"], rtol=0, atol=atol)
    np.testing.assert_allclose(values[-4:], golden["last4"], rtol=0, atol=atol)
    assert values.std() == pytest.approx(golden["std"], abs=atol)
    assert np.linalg.norm(values) == pytest.approx(golden["l2"], abs=1e-5)


def test_the_file_has_397_tensors_and_43_797_696_parameters(state):
    with torch.device("meta"):
        net = IrSe50Layers()
    assert len(state) == 397
    assert sum(p.numel() for p in net.parameters()) == GOLDEN["param_count"] == 43_797_696
    assert state["body.3.shortcut_layer.0.weight"].shape == (128, 64, 1, 1)
    assert state["body.23.res_layer.5.fc1.weight"].shape == (32, 512, 1, 1)
    assert not any(name.startswith("body.0.shortcut_layer") for name in state)


def test_embeddings_are_the_golden_ones(net):
    check_against_golden(net.embed_faces(wave(112, 0.013, 0.7)), "embedding_112")


def test_the_id_loss_on_the_fixed_crop_is_the_golden_one(net):
    first = net.embed_faces(crop_aligned_frames(wave(256, 0.013, 0.7)))
    check_against_golden(first, "embedding_256_crop_a")
    second = net.embed_faces(crop_aligned_frames(wave(256, 0.031, 0.1, 0.9)))
    loss = (1 - torch.cosine_similarity(first, second, eps=1e-6)).mean()
    assert float(loss) == pytest.approx(GOLDEN["outputs"]["id_loss(a,b)"]["mean"], abs=5e-6)


def test_gradient_reaches_an_image_through_the_crop(net):
    images = wave(256, 0.013, 0.7)[:1].requires_grad_()
    net.embed_faces(crop_aligned_frames(images))[0, :8].sum().backward()
    assert images.grad is not None
    assert images.grad[0, :, 35:223, 32:220].abs().sum() > 0
    assert images.grad[0, :, :35].abs().sum() == 0


def test_another_nets_file_is_refused_by_name(state, tmp_path):
    torch.save({name.replace("body", "layer"): t for name, t in state.items()}, tmp_path / "other.pth")
    with pytest.raises(InvalidFile, match=r"weights irse50 do not fit IrSe50Layers: .*missing: body"):
        check_weights_match_id("irse50", tmp_path / "other.pth")


def test_the_net_is_known_by_its_weights():
    assert NETS["irse50"].weights == ("irse50",)
