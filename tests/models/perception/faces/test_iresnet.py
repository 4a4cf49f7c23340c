"""IResNet in its publisher's file format, against a second reading of its table."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.errors import InvalidFile
from models.perception.faces.iresnet import (
    BLOCK_COUNTS,
    IResNetLayers,
    check_weights_match_id,
    load_arcface_r50,
    load_arcface_r100,
)
from tests.shape_files import filled, imported


@pytest.fixture(scope="module")
def state():
    return filled(IResNetLayers("r50"), "hash").state_dict()


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    """backbone.pth, a bare state dict, as imported."""
    path = tmp_path_factory.mktemp("iresnet") / "backbone.pth"
    torch.save(state, path)
    return imported(path)


@pytest.mark.parametrize(
    ("depth", "tensors", "parameters"),
    [("r18", 187, 24.0e6), ("r34", 331, 34.1e6), ("r50", 475, 43.6e6), ("r100", 925, 65.2e6)],
)
def test_files_are_of_the_published_size(depth, tensors, parameters):
    with torch.device("meta"):
        net = IResNetLayers(depth)
    assert len(net.state_dict()) == tensors
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(parameters, abs=0.05e6)


def norm(state, name, x):
    gain, bias, mean, variance = (
        state[f"{name}.{kind}"].view(1, -1, *[1] * (x.ndim - 2))
        for kind in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * gain + bias


def prelu(state, name, x):
    return torch.where(x > 0, x, x * state[f"{name}.weight"][:, None, None])


def second_reading(state, x):
    x = prelu(state, "prelu", norm(state, "bn1", functional.conv2d(x, state["conv1.weight"], padding=1)))
    for layer, blocks in enumerate((3, 4, 14, 3), start=1):
        for block in range(blocks):
            at, stride = f"layer{layer}.{block}", 2 if block == 0 else 1
            inner = functional.conv2d(norm(state, f"{at}.bn1", x), state[f"{at}.conv1.weight"], padding=1)
            inner = prelu(state, f"{at}.prelu", norm(state, f"{at}.bn2", inner))
            inner = functional.conv2d(inner, state[f"{at}.conv2.weight"], stride=stride, padding=1)
            if block == 0:
                x = functional.conv2d(x, state[f"{at}.downsample.0.weight"], stride=2)
                x = norm(state, f"{at}.downsample.1", x)
            x = x + norm(state, f"{at}.bn3", inner)
    x = norm(state, "bn2", x).flatten(1) @ state["fc.weight"].T + state["fc.bias"]
    return norm(state, "features", x)


def test_embeddings_are_those_of_a_second_reading_of_the_table(state, file):
    k = np.arange(2 * 3 * 112 * 112)
    faces = torch.from_numpy(np.sin(0.013 * k + 0.7)).view(2, 3, 112, 112)
    expected = second_reading({name: t.double() for name, t in state.items()}, faces)
    found = load_arcface_r50({"arcface_r50": file}).embed_faces(faces.float())
    torch.testing.assert_close(found.double(), functional.normalize(expected, dim=1), rtol=0, atol=1e-5)
    assert float(found[0] @ found[1]) < 0.999


def test_a_file_of_another_depth_is_refused(file):
    with pytest.raises(InvalidFile, match=r"weights arcface_r100 do not fit IResNetLayers: .*layer2\.4\."):
        check_weights_match_id("arcface_r100", file)
    with pytest.raises(InvalidFile):
        load_arcface_r100({"arcface_r100": file})


def test_depths_are_those_of_the_table():
    assert {depth: sum(counts) for depth, counts in BLOCK_COUNTS.items()} == {
        "r18": 8, "r34": 16, "r50": 24, "r100": 49,
    }  # fmt: skip
