"""LPIPS against figures of published code and torchmetrics, of formula-made trunks and the real heads."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import InvalidFile
from models.perception import NETS
from models.perception.interfaces import InferenceSettings
from models.perception.lpips import (
    RGB_SCALE,
    RGB_SHIFT,
    ROOT_EPSILON_OF_LOSSES,
    load_lpips_alex,
    load_lpips_heads,
    load_lpips_vgg,
    lpips_per_layer,
    normalise_channels,
)
from models.perception.vgg16 import Vgg16Layers
from models.weights import find_third_party_weights
from storage.weight_files import find_packaged_file
from tests.formula_nets import lpips_alex_states, noise_state

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/image_nets.json").read_text())
HEAD, OFFICIAL = GOLDEN["lpips_head"], GOLDEN["lpips_alex_official"]
CHANNELS = HEAD["layers_channels"]


def heads_file(weights_id):
    """In the wheel of torchmetrics."""
    path = find_packaged_file(find_third_party_weights(weights_id))
    assert path is not None, "pip install --no-deps torchmetrics==1.9.0"
    return path


def real_heads(weights_id, channels):
    state = load_lpips_heads(heads_file(weights_id), weights_id, channels).state_dict()
    return [tensor.double().flatten() for tensor in state.values()]


@pytest.fixture(scope="module")
def formula_net(tmp_path_factory):
    """The whole metric with the golden entry's weights, read from files in their publishers' layouts."""
    folder = tmp_path_factory.mktemp("lpips")
    trunk, heads = lpips_alex_states()
    torch.save(trunk, folder / "alexnet.pth")
    torch.save(heads, folder / "alex.pth")
    return load_lpips_alex({"alexnet": folder / "alexnet.pth", "lpips_alex": folder / "alex.pth"})


@pytest.fixture
def in_float64(formula_net):
    formula_net.move_to(torch.device("cpu"), torch.float64)
    yield formula_net
    formula_net.configure_inference(InferenceSettings())


def formula_features(image):
    """The golden file's maps of image 0 or 1, float64."""
    maps = []
    for layer, (channels, side) in enumerate(zip(CHANNELS, HEAD["layers_hw"], strict=True)):
        c, y, x = np.meshgrid(np.arange(channels), np.arange(side), np.arange(side), indexing="ij")
        wave = np.sin(0.1 * c + 0.7 * y + 0.3 * x + layer + 0.35 * image)
        maps.append(torch.from_numpy(np.maximum(0, wave))[None])
    return maps


def per_layer(heads, root_epsilon=0.0):
    sides = [[normalise_channels(one, root_epsilon) for one in formula_features(image)] for image in (0, 1)]
    return lpips_per_layer(*sides, heads)[0].numpy()


# --- arithmetic ---------------------------------------------------------------------------------------------
def test_formula_heads_on_formula_features_give_the_golden_distances():
    heads = [
        torch.from_numpy(0.01 * (1 + np.cos(0.05 * np.arange(c) + layer))) for layer, c in enumerate(CHANNELS)
    ]
    found = per_layer(heads)
    np.testing.assert_allclose(found, HEAD["formula_weights_per_layer"], rtol=0, atol=1e-12)
    assert found.sum() == pytest.approx(HEAD["formula_weights_sum"], abs=1e-12)


def test_heads_of_ones_give_the_plain_squared_difference():
    ones = [torch.ones(c, dtype=torch.float64) for c in CHANNELS]
    np.testing.assert_allclose(per_layer(ones), HEAD["no_linear_baseline_per_layer"], rtol=0, atol=1e-12)


def test_the_real_heads_on_formula_features_give_the_golden_distances():
    found = per_layer(real_heads("lpips_alex", CHANNELS))
    np.testing.assert_allclose(found, HEAD["alex_head_on_formula_features_per_layer"], rtol=0, atol=1e-12)


def test_torchmetrics_epsilon_changes_ordinary_features_by_less_than_a_billionth():
    expected = HEAD["torchmetrics_variant_eps_inside_sqrt_1e-8_per_layer"]
    found = per_layer(real_heads("lpips_alex", CHANNELS), root_epsilon=1e-8)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(found, HEAD["alex_head_on_formula_features_per_layer"], rtol=1e-9)


def test_torchmetrics_own_layers_agree():
    judge = pytest.importorskip("torchmetrics.functional.image.lpips")
    random = torch.Generator().manual_seed(3)
    first, second = (torch.rand(2, 64, 7, 7, generator=random, dtype=torch.float64) for _ in range(2))
    head = judge.NetLinLayer(64).double()
    expected = (judge._normalize_tensor(first) - judge._normalize_tensor(second)).square()
    expected = judge._spatial_average(head(expected), keep_dim=False).flatten()
    weights = [head.model[-1].weight.detach().flatten()]
    found = lpips_per_layer([normalise_channels(first)], [normalise_channels(second)], weights)[:, 0]
    torch.testing.assert_close(found, expected.detach(), rtol=1e-8, atol=0)


# --- files --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("weights_id", "channels", "sums"),
    [
        ("lpips_alex", CHANNELS, HEAD["alex_head_sum"]),
        ("lpips_vgg", (64, 128, 256, 512, 512), HEAD["vgg_head_sum"]),
    ],
)
def test_the_wheels_heads_are_the_golden_ones(weights_id, channels, sums):
    heads = real_heads(weights_id, channels)
    assert [float(head.sum()) for head in heads] == pytest.approx(sums, rel=1e-9)
    assert all(head.min() >= 0 for head in heads)


def test_the_wheels_heads_are_the_pinned_files():
    for weights_id in ("lpips_alex", "lpips_vgg"):
        weights = find_third_party_weights(weights_id)
        assert heads_file(weights_id).stat().st_size == weights.size
        assert weights.optional


def test_heads_of_the_other_trunk_are_refused(tmp_path):
    torch.save(lpips_alex_states()[0], tmp_path / "alexnet.pth")
    with pytest.raises(InvalidFile, match=r"weights lpips_alex do not fit.*of another shape: lin1"):
        load_lpips_alex({"alexnet": tmp_path / "alexnet.pth", "lpips_alex": heads_file("lpips_vgg")})


def test_it_needs_a_trunk_and_heads():
    assert NETS["lpips_alex"].weights == ("alexnet", "lpips_alex")
    assert NETS["lpips_vgg"].weights == ("vgg16", "lpips_vgg")


# --- the whole net ------------------------------------------------------------------------------------------
def golden_images():
    """a and b (2,3,256,256) float64 in [-1,1]."""
    k = np.arange(2 * 3 * 256 * 256)
    a, b = np.sin(0.013 * k + 0.7), 0.9 * np.sin(0.031 * k + 0.1)
    return [torch.from_numpy(one.reshape(2, 3, 256, 256)) for one in (a, b)]


def in_255(images):
    return (images.clamp(-1, 1) + 1) / (2 + 1e-5) * 255


def test_the_published_code_of_directions_gives_the_same_distances(in_float64):
    first, second = golden_images()
    expected = OFFICIAL["outputs"]
    found = in_float64.distance(first, second, ROOT_EPSILON_OF_LOSSES).mean()
    assert float(found) == pytest.approx(expected["lpips(a,b)"], rel=1e-9)
    scaled = in_float64.distance(in_255(first), in_255(second), ROOT_EPSILON_OF_LOSSES).mean()
    assert float(scaled) == pytest.approx(expected["lpips(a255,b255)"], rel=1e-9)  # not clamped
    assert float(in_float64.distance(first, second).mean()) == pytest.approx(float(found), rel=1e-6)


@pytest.mark.parametrize(("layer", "name"), [(0, "feat0"), (4, "feat4")])
def test_normalised_maps_are_the_golden_ones(in_float64, layer, name):
    expected = OFFICIAL["outputs"][name]
    found = in_float64.unit_maps(golden_images()[0], ROOT_EPSILON_OF_LOSSES)[layer]
    assert list(found.shape) == expected["shape"]
    assert float(found.mean()) == pytest.approx(expected["mean"], rel=1e-6)
    assert float(found.norm()) == pytest.approx(expected["l2"], rel=1e-6)
    np.testing.assert_allclose(found.flatten()[:16], expected["first16"], rtol=0, atol=1e-7)


def test_float32_is_as_near_to_float64_as_the_published_code_is(formula_net):
    first, second = (one.float() for one in golden_images())
    found = formula_net.distance(first, second, ROOT_EPSILON_OF_LOSSES).mean()
    assert float(found) == pytest.approx(OFFICIAL["outputs"]["lpips(a,b)"], abs=2e-6)


def test_images_are_scaled_as_imagenets_are_from_minus_1_to_1():
    example = HEAD["scaling_layer"]
    values = (example["example_in_01_value"] * 2 - 1 - np.array(RGB_SHIFT)) / RGB_SCALE
    np.testing.assert_allclose(values, example["example_out_rgb"], rtol=1e-12)


def test_an_image_is_no_distance_from_itself_and_the_same_both_ways(formula_net):
    first, second = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    assert torch.equal(formula_net.distance(first, first), torch.zeros(2))
    torch.testing.assert_close(formula_net.distance(first, second), formula_net.distance(second, first))


def test_each_image_has_a_distance_of_its_own_and_a_single_one_is_compared_with_all(formula_net):
    images = torch.rand(3, 3, 64, 64) * 2 - 1
    maps, one = formula_net.unit_maps(images), formula_net.unit_maps(images[:1])
    found = formula_net.distance_of_maps(maps, one)
    assert found.shape == (3,)
    assert float(found[0]) == pytest.approx(0, abs=1e-6)
    alone = formula_net.distance(images[2:], images[:1])
    torch.testing.assert_close(found[2:], alone, rtol=1e-4, atol=1e-6)


def test_gradient_reaches_both_images_and_not_the_weights(formula_net):
    first, second = (torch.rand(1, 3, 64, 64).requires_grad_() for _ in range(2))
    formula_net.distance(first, second).sum().backward()
    assert first.grad.abs().sum() > 0
    assert second.grad.abs().sum() > 0
    assert not any(p.requires_grad or p.grad is not None for p in formula_net._trunk.parameters())


@pytest.mark.parametrize("root_epsilon", [0.0, ROOT_EPSILON_OF_LOSSES])
def test_gradient_is_finite_where_a_map_is_zero(root_epsilon):
    maps = torch.zeros(1, 4, 2, 2, dtype=torch.float64)
    maps[0, :, 0, 0] = 1
    maps.requires_grad_()
    lpips_per_layer(
        [normalise_channels(maps, root_epsilon)], [torch.zeros_like(maps)], [torch.ones(4).double()]
    ).sum().backward()
    assert torch.isfinite(maps.grad).all()


def test_the_vgg_variant_compares_vgg16s_maps(tmp_path):
    torch.save(noise_state(Vgg16Layers), tmp_path / "vgg16.pth")
    net = load_lpips_vgg({"vgg16": tmp_path / "vgg16.pth", "lpips_vgg": heads_file("lpips_vgg")})
    first, second = torch.rand(1, 3, 32, 32) * 2 - 1, torch.rand(1, 3, 32, 32) * 2 - 1
    assert [one.shape[1] for one in net.unit_maps(first)] == [64, 128, 256, 512, 512]
    assert float(net.distance(first, second)) > float(net.distance(first, first)) == 0


def test_images_that_leave_no_position_are_refused(formula_net):
    with pytest.raises(ValueError, match=r"\(30, 64\) pixels: lpips_alex needs 31 a side"):
        formula_net.distance(torch.rand(1, 3, 30, 64), torch.rand(1, 3, 30, 64))
