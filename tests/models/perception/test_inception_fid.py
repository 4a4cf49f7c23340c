"""FID's Inception against a second reading of its table, and its resizing against golden figures and PIL."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from models.errors import InvalidFile
from models.perception.inception_fid import (
    InceptionFidLayers,
    check_weights_match_id,
    load_inception_fid,
    resize_for_inception,
)
from models.perception.interfaces import InferenceSettings
from tests.shape_files import filled

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/image_nets.json").read_text())[
    "inception_resize_64_to_299"
]


@pytest.fixture(scope="module")
def published():
    """A state in pytorch-fid's layout, with the counters that its file may lack."""
    state = filled(InceptionFidLayers(), "hash").state_dict()
    counters = {
        name.replace("running_mean", "num_batches_tracked"): torch.tensor(0)
        for name in state
        if name.endswith("running_mean")
    }
    return state | counters


@pytest.fixture(scope="module")
def file(published, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "pt_inception.pth"
    torch.save(published, path)
    return path


@pytest.fixture(scope="module")
def net(file):
    return load_inception_fid({"inception_fid": file})


@pytest.fixture(scope="module")
def image():
    """(1,3,64,64) float64 in [0,1]: frame 0 of the golden file's clip A in 8 bit."""
    y, x, c = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in (64, 64, 3)), indexing="ij")
    wave = 0.5 + 0.5 * np.sin(0.07 * x * (c + 1) + 0.11 * y + 0.3 * c)
    return torch.from_numpy(np.floor(wave * 255 + 0.5) / 255).permute(2, 0, 1)[None].contiguous()


# --- the net ------------------------------------------------------------------------------------------------
def test_layers_carry_pytorch_fids_names():
    with torch.device("meta"):
        net = InceptionFidLayers()
    state = net.state_dict()
    assert len(state) == 472
    assert sum(parameter.numel() for parameter in net.parameters()) == 23_850_960
    assert state["fc.weight"].shape == (1008, 2048)
    assert state["Mixed_6c.branch7x7dbl_4.conv.weight"].shape == (160, 160, 7, 1)
    assert state["Mixed_7b.branch3x3dbl_3b.conv.weight"].shape == (384, 384, 3, 1)


A = "branch1x1 / branch5x5_1 branch5x5_2 / branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3 / average branch_pool"
B = "branch3x3! / branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3! / halve"
C = (
    "branch1x1 / branch7x7_1 branch7x7_2 branch7x7_3 / branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 "
    "branch7x7dbl_4 branch7x7dbl_5 / average branch_pool"
)
D = "branch3x3_1 branch3x3_2! / branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4! / halve"
E = (
    "branch1x1 / branch3x3_1 branch3x3_2a / branch3x3_1 branch3x3_2b / branch3x3dbl_1 branch3x3dbl_2 "
    "branch3x3dbl_3a / branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3b / {} branch_pool"
)
BLOCKS = {
    **dict.fromkeys(("5b", "5c", "5d"), A), "6a": B, **dict.fromkeys(("6b", "6c", "6d", "6e"), C), "7a": D,
    "7b": E.format("average"), "7c": E.format("maximum"),
}  # fmt: skip
"""Chains of each block, in the order in which they are joined; `!` has stride 2 and no padding."""


def unit(state, name, x):
    """Kernels come from the tensors' shapes; all but those of stride 2 and of the stem keep the side."""
    weight = state[f"{name.rstrip('!')}.conv.weight"]
    stem = name.startswith(("Conv2d_1a", "Conv2d_2a", "Conv2d_4a"))
    padding = 0 if name.endswith("!") or stem else [side // 2 for side in weight.shape[2:]]
    stride = 2 if name.endswith("!") or "1a" in name else 1
    x = functional.conv2d(x, weight, stride=stride, padding=padding)
    gain, bias, mean, variance = (
        state[f"{name.rstrip('!')}.bn.{kind}"][:, None, None]
        for kind in ("weight", "bias", "running_mean", "running_var")
    )
    return ((x - mean) / (variance + 1e-3).sqrt() * gain + bias).clamp_min(0)


def chain(state, block, names, x):
    pools = {
        "average": lambda x: functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
        "maximum": lambda x: functional.max_pool2d(x, 3, 1, 1),
        "halve": lambda x: functional.max_pool2d(x, 3, 2),
    }
    for name in names.split():
        x = pools[name](x) if name in pools else unit(state, f"Mixed_{block}.{name}", x)
    return x


def second_reading(state, x):
    for name in ("1a_3x3", "2a_3x3", "2b_3x3", "pool", "3b_1x1", "4a_3x3", "pool"):
        x = functional.max_pool2d(x, 3, 2) if name == "pool" else unit(state, f"Conv2d_{name}", x)
    for block, chains in BLOCKS.items():
        x = torch.cat([chain(state, block, names, x) for names in chains.split("/")], dim=1)
    return x.mean((2, 3))


def test_features_are_those_of_a_second_reading_of_the_table(net, published, image):
    """Batch norms folded or not, channels last or not."""
    state = {name: tensor.double() for name, tensor in published.items()}
    resized = 2 * functional.interpolate(image, size=(299, 299), mode="bilinear", align_corners=False) - 1
    expected = second_reading(state, resized).float()
    found = net.features(image.float(), "pt")
    assert found.shape == (1, 2048)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    net.configure_inference(InferenceSettings())
    torch.testing.assert_close(net.features(image.float(), "pt"), expected, rtol=1e-3, atol=1e-4)


def test_counters_of_batches_may_be_absent(net, published, tmp_path, image):
    bare = {name: tensor for name, tensor in published.items() if not name.endswith("num_batches_tracked")}
    torch.save(bare, tmp_path / "bare.pth")
    other = load_inception_fid({"inception_fid": tmp_path / "bare.pth"})
    torch.testing.assert_close(other.features(image.float(), "clean"), net.features(image.float(), "clean"))


def test_torchvisions_inception_is_refused_by_name(published, tmp_path):
    other = published | {"fc.weight": torch.zeros(1000, 2048), "AuxLogits.fc.bias": torch.zeros(1000)}
    torch.save(other, tmp_path / "inception_v3.pth")
    with pytest.raises(InvalidFile, match=r"unknown: AuxLogits\.fc\.bias.*of another shape: fc\.weight"):
        check_weights_match_id("inception_fid", tmp_path / "inception_v3.pth")


def test_the_torchscript_edition_is_refused_unread(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "inception-2015-12-05.pt")
    with pytest.raises(InvalidFile, match="not a file of tensors alone"):
        load_inception_fid({"inception_fid": tmp_path / "inception-2015-12-05.pt"})


# --- resizing -----------------------------------------------------------------------------------------------
def grey_levels(resized, resize):
    """(3,299,299) of 0..255, undoing what scales them for the net."""
    return (resized[0] + 1) * 127.5 if resize == "pt" else resized[0] * 128 + 128


@pytest.mark.parametrize(
    ("resize", "points", "mean", "tolerance"),
    [
        ("pt", "torch_bilinear_align_false", "torch_bilinear", 1e-9),
        ("clean", "pil_bicubic_float_clip", "pil_bicubic", 2e-5),  # PIL computes in float32
    ],
)
def test_resizing_gives_the_golden_pixels(image, resize, points, mean, tolerance):
    found = grey_levels(resize_for_inception(image, resize), resize)
    at = [float(found[tuple(point)]) for point in GOLDEN["points_c_y_x"]]
    assert at == pytest.approx(GOLDEN[points], abs=tolerance)
    assert float(found.mean()) == pytest.approx(GOLDEN["means"][mean], abs=tolerance)


@pytest.mark.parametrize("side", [64, 256, 512])
def test_clean_is_pils_bicubic_of_each_channel_in_float(side):
    levels = np.random.default_rng(side).integers(0, 256, (side, side, 3)).astype(np.float32)
    expected = [
        np.asarray(Image.fromarray(levels[..., c]).resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255)
        for c in range(3)
    ]
    image = torch.from_numpy(levels / 255).permute(2, 0, 1)[None]
    found = grey_levels(resize_for_inception(image, "clean"), "clean")
    np.testing.assert_allclose(found.numpy(), np.stack(expected), rtol=0, atol=1e-4)
