"""Against figures of the official modules: parameter counts, state layout, outputs in float64 (spec 16, items
1 and 2; whole training steps: test_train_step.py).
"""

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from models.fsrt import losses
from models.fsrt.config import DiscriminatorConfig, KeypointDetectorConfig, full_architecture
from models.fsrt.discriminator import Discriminator, keypoint_heatmaps
from models.fsrt.keypoints import AntiAliasedDownsample, ExpressionExtractor, KeypointDetector
from models.fsrt.network import Decoder, Encoder, pixel_grid, positional_encoding
from tests.models.fsrt.architectures import SMALL_DECODER


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_published_parameter_counts():
    assert count(Encoder(full_architecture())) == 29_774_112
    assert count(Decoder(full_architecture())) == 15_310_131
    assert count(Decoder(SMALL_DECODER)) == 6_012_723
    assert count(KeypointDetector(KeypointDetectorConfig())) == 14_146_728
    assert count(ExpressionExtractor(full_architecture())) == 2_558_976


@pytest.mark.parametrize("size", [128, 64])
def test_parameter_counts_of_shorter_expressions(golden, size):
    net, counts = replace(full_architecture(), expression_size=size), golden.figures["param_counts"]
    assert count(Encoder(net)) == counts[f"encoder_e{size}"]
    assert count(Decoder(net)) == counts[f"decoder_e{size}"]
    assert count(ExpressionExtractor(net)) == counts[f"expression_encoder_e{size}"]


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("keypoint_detector", lambda: KeypointDetector(KeypointDetectorConfig())),
        ("expression_encoder", lambda: ExpressionExtractor(full_architecture())),
        ("encoder_64_n1", lambda: Encoder(full_architecture())),
        ("decoder_q128_z64", lambda: Decoder(full_architecture())),
        ("small_decoder_q128_z64", lambda: Decoder(SMALL_DECODER)),
        ("discriminator", lambda: Discriminator(DiscriminatorConfig(), 10)),
    ],
)
def test_state_has_the_released_names_and_shapes(golden, name, build):
    state = {key: list(tensor.shape) for key, tensor in build().state_dict().items()}
    assert state == golden.figures["modules"][name]["state"]


@torch.no_grad()
def test_keypoint_detector(golden):
    net = golden.fill(KeypointDetector(KeypointDetectorConfig()))
    expected = golden.figures["modules"]["keypoint_detector"]["outputs"]
    inside, taps = ("down", "predictor.encoder.down_blocks.4"), {}
    for name in inside:
        net.get_submodule(name).register_forward_hook(lambda *made, name=name: taps.update({name: made[-1]}))
    keypoints, features, heatmap = net(golden.img((2, 3, 256, 256), 0))
    golden.check(keypoints, expected["keypoints"])
    golden.check(features, expected["feature_map"])
    golden.check(heatmap.unsqueeze(2), expected["heatmap"])
    for name in inside:
        golden.check(taps[name], expected[f"tap:{name}"])


def test_antialias_kernel(golden):
    expected, kernel = (
        golden.figures["functions"]["antialias_kernel_scale_0.25"],
        AntiAliasedDownsample().weight,
    )
    assert list(kernel.shape) == expected["size"]
    for channel in kernel[:, 0].double():
        row = np.array(expected["center_row_float32"], float)
        np.testing.assert_allclose(channel[6].numpy(), row, rtol=1e-8)
        np.testing.assert_allclose(channel[0, 0].item(), float(expected["corner"]), rtol=1e-8)
        np.testing.assert_allclose(channel.sum().item(), expected["sum"], rtol=1e-8)


@torch.no_grad()
def test_expression_extractor(golden):
    net = golden.fill(ExpressionExtractor(full_architecture()))
    e = net(golden.vec((2, 35, 64, 64), 1), golden.hm((2, 10, 58, 58), 2))
    golden.check(e, golden.figures["modules"]["expression_encoder"]["outputs"]["e"])


@pytest.mark.parametrize(
    ("name", "B", "S", "side", "E"),
    [
        ("encoder_64_n1", 2, 1, 64, 256),
        ("encoder_64_n2", 1, 2, 64, 256),
        ("encoder_64_e64", 1, 1, 64, 64),
        pytest.param("encoder_256_n1", 1, 1, 256, 256, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_encoder(golden, name, B, S, side, E):
    net = golden.fill(Encoder(replace(full_architecture(), expression_size=E)))
    z = net(golden.img((B, S, 3, side, side), 3), golden.kpv((B, S, 10, 2), 4), golden.vec((B, S, E), 5))
    golden.check(z, golden.figures["modules"][name]["outputs"]["z"])


@pytest.mark.parametrize(
    ("name", "net", "B", "P", "T"),
    [
        ("decoder_q128_z64", full_architecture(), 2, 128, 64),
        ("decoder_q512_z2048", full_architecture(), 1, 512, 2048),
        ("small_decoder_q128_z64", SMALL_DECODER, 2, 128, 64),
    ],
)
@torch.no_grad()
def test_decoder(golden, name, net, B, P, T):
    pixels = pixel_grid(256, 256, torch.float64).flatten(0, 1)[(torch.arange(P) * 509) % 65_536]
    decoder = golden.fill(Decoder(net))
    rgb = decoder(golden.vec((B, T, 768), 7), pixels, golden.kpv((B, 10, 2), 6), golden.vec((B, 256), 8))
    golden.check(rgb, golden.figures["modules"][name]["outputs"]["rgb"])


def test_positional_codes(golden):
    keypoints = (torch.arange(20, dtype=torch.float64) - 9.5) * 0.13
    pixel = torch.tensor([0.3, -0.7], dtype=torch.float64)
    codes = torch.cat([positional_encoding(keypoints, 4, -1), positional_encoding(pixel, 16, -1)])
    expected = np.array(golden.figures["functions"]["positional_encoding"]["values_float64"], float)
    np.testing.assert_allclose(codes.numpy(), expected, rtol=1e-8, atol=1e-9)


def test_pixel_grid(golden):
    grid, expected = pixel_grid(256, 256), golden.figures["functions"]["pixel_grid_256"]
    for y, x in ((0, 0), (0, 1), (1, 0), (255, 255)):
        assert grid[y, x].tolist() == [float(v) for v in expected[f"[{y},{x}]"]]


def test_regularisers(golden):
    expected = golden.figures["functions"]["stat_reg"]
    first = golden.inp_u((6, 256), 20, -1.7, 1.7)
    second = first + 0.1 * golden.inp_u((6, 256), 21, -1, 1)
    found = [
        losses.feature_variance_hinge_loss(first),
        losses.feature_variance_hinge_loss(second),
        losses.covariance_loss(first),
        losses.covariance_loss(second),
    ]
    figures = [float(v) for v in (*expected["v1,v2"], *expected["c1,c2"])]
    np.testing.assert_allclose([float(v) for v in found], figures, rtol=1e-9)
    halves = [losses.feature_variance_hinge_loss(first / 2), losses.feature_variance_hinge_loss(second / 2)]
    halves += [losses.covariance_loss(first / 2), losses.covariance_loss(second / 2)]
    figures = [float(v) for v in (*expected["with 0.5*E1,0.5*E2: v1,v2"], *expected["c1,c2 (0.5)"])]
    np.testing.assert_allclose([float(v) for v in halves], figures, rtol=1e-9)


@torch.no_grad()
def test_discriminator(golden):
    net = golden.fill(Discriminator(DiscriminatorConfig(), 10))
    assert count(net) == 6_846_849
    maps, predictions = net(golden.img((2, 3, 256, 256), 9), golden.kpv((2, 10, 2), 10))
    expected = golden.figures["modules"]["discriminator"]["outputs"]
    golden.check(predictions, expected["prediction_map"])
    for i, one in enumerate(maps):
        golden.check(one, expected[f"feature_map_{i}"])


def test_keypoint_maps(golden):
    expected = golden.figures["functions"]["kp2gaussian"]
    maps = keypoint_heatmaps(torch.tensor(expected["kp"], dtype=torch.float64), 256, expected["variance"])
    golden.check(maps, expected["stats"])
    for name, value in expected.items():
        if name.startswith("h["):
            sample, keypoint, y, x = (int(i) for i in name[2:-1].split(","))
            assert maps[sample, keypoint, y, x].item() == pytest.approx(float(value), rel=1e-9)
