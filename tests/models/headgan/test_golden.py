"""Against figures of the official modules: parameter counts, state layout, outputs in float64, losses, crop
(spec 16; spec 17, items 1, 2 and 4).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch.utils.flop_counter import FlopCounterMode

from models.headgan import losses
from models.headgan.config import (
    Architecture,
    DiscriminatorConfig,
    official_architecture,
    paper_supplement_architecture,
)
from models.headgan.discriminator import crop_around_centres, image_discriminator, mouth_discriminator
from models.headgan.network import FlowNetwork, Generator, RenderingNetwork, warp_maps
from models.headgan.released import to_published_name
from models.perception.vgg19 import Vgg19Layers

A, B = "A_sin_raw_uv", "B_quad_svd_uv"
slow = pytest.mark.slow
CASES = [pytest.param(size, one, id=f"{size}-{one[0]}") for size in ("small", "full") for one in (A, B)]
"""Sizes and schemes; full: published widths at 64 px."""
HALVES = [*CASES[:2], pytest.param("full", A, id="full-A", marks=slow), CASES[3]]
"""For F and R: a net of published width takes seconds."""
WHOLE = [*CASES[:2], *(pytest.param("full", one, id=f"full-{one[0]}", marks=slow) for one in (A, B))]


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def sized(net: Architecture, size: str) -> Architecture:
    return net if size == "full" else replace(net, width=8, audio=12)


def discriminators(size: str) -> DiscriminatorConfig:
    return DiscriminatorConfig() if size == "full" else DiscriminatorConfig(width=8)


def side(size: str) -> int:
    return 64 if size == "full" else 32


def plain(net: Architecture) -> Architecture:
    """Without spectral norm, which adds buffers alone and takes a second to build."""
    return replace(net, spectral=False)


# --- layout -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("flow_net", lambda: FlowNetwork(plain(official_architecture()))),
        ("rendering_net", lambda: RenderingNetwork(plain(official_architecture()))),
        ("generator", lambda: Generator(plain(official_architecture()))),
        ("generator_supplement", lambda: Generator(plain(paper_supplement_architecture()))),
        ("image_discriminator", lambda: image_discriminator(DiscriminatorConfig())),
        (
            "mouth_discriminator",
            lambda: mouth_discriminator(DiscriminatorConfig(), official_architecture().audio),
        ),
    ],
)
def test_published_parameter_counts(golden, name, make):
    with torch.device("meta"):
        assert count(make()) == golden.figures["nets"][name]["full"]["trainable_parameters"]


def test_the_supplements_flow_network_has_no_mask_head():
    with torch.device("meta"):
        assert count(FlowNetwork(plain(paper_supplement_architecture()))) == 30_604_610
        assert count(RenderingNetwork(plain(paper_supplement_architecture()))) == 21_144_323


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("generator_no_audio", {"audio": 0}),
        ("generator_no_flow_network", {"flow": False, "mask": False}),
        ("generator_no_pixelshuffle", {"upsampling": "nearest", "base": 2}),
    ],
)
def test_parameter_counts_of_ablations(golden, name, change):
    with torch.device("meta"):
        found = count(Generator(replace(plain(official_architecture()), **change)))
    assert found == golden.figures["extra_parameter_counts"][name]


def test_a_mouth_discriminator_without_audio_has_the_published_count(golden):
    with torch.device("meta"):
        discriminator = mouth_discriminator(DiscriminatorConfig(), 0)
    assert count(discriminator) == golden.figures["extra_parameter_counts"]["mouth_discriminator_no_audio"]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("generator", lambda: Generator(official_architecture())),
        ("image_discriminator", lambda: image_discriminator(DiscriminatorConfig())),
        (
            "mouth_discriminator",
            lambda: mouth_discriminator(DiscriminatorConfig(), official_architecture().audio),
        ),
    ],
)
def test_state_has_the_released_names_and_shapes(golden, name, make):
    with torch.device("meta"):
        net = make()
    state = {to_published_name(key): list(tensor.shape) for key, tensor in net.state_dict().items()}
    assert state == dict(golden.figures["nets"][name]["full"]["state_dict"])


def test_the_supplements_state_is_the_released_one_without_mask_head(golden):
    with torch.device("meta"):
        net = Generator(paper_supplement_architecture())
    state = {to_published_name(key): list(tensor.shape) for key, tensor in net.state_dict().items()}
    released = dict(golden.figures["nets"]["generator"]["full"]["state_dict"])
    assert state == {name: shape for name, shape in released.items() if ".dec_mask." not in name}


def test_multiplications_of_the_generators_parts(golden):
    """F with the encoding of the reference, R, and the layers of both between a guide and its scale and
    shift.
    """
    expected = golden.figures["macs_256"]
    with torch.device("meta"):
        net, image = Generator(plain(official_architecture())).eval(), torch.rand(1, 3, 256, 256)
        with FlopCounterMode(display=False) as counter:
            net(torch.rand(1, 9, 256, 256), image, image, torch.rand(1, 300))
    counts = {name: sum(flops.values()) / 2 for name, flops in counter.get_flop_counts().items()}
    rendering = counts["Generator.rendering_network"]
    spade = sum(count for name, count in counts.items() if name.rpartition(".")[2] in ("norm_0", "norm_1"))
    assert counts["Generator"] == expected["generator"]
    assert rendering == expected["rendering_network"]
    assert counts["Generator"] - rendering == expected["flow_network"]
    assert spade == expected["spade_modulation_convs_in_generator"]


def test_multiplications_of_discriminators_and_vgg19(golden):
    net, sizes, expected = official_architecture(), DiscriminatorConfig(), golden.figures["macs_256"]
    with torch.device("meta"):
        image, mouth, audio = torch.rand(1, 3, 256, 256), torch.rand(1, 3, 64, 64), torch.rand(1, net.audio)
        works = {
            "image_discriminator_256": (image_discriminator(sizes), image, image),
            "mouth_discriminator_64": (mouth_discriminator(sizes, net.audio), audio, mouth),
            "vgg19_to_relu5_1_256": (Vgg19Layers(), image),
        }
        for name, (part, *given) in works.items():
            with FlopCounterMode(display=False) as counter:
                part.eval()(*given)
            assert counter.get_total_flops() / 2 == expected[name], name


@pytest.mark.parametrize("scheme", [A, B])
def test_spectral_norm_divides_by_the_published_values(golden, scheme):
    net = golden.filled(lambda: Generator(sized(official_architecture(), "small")), scheme)
    for name, sigma in golden.figures["nets"]["generator"]["small"]["cases"][scheme]["sigma"].items():
        conv = net.get_submodule(name)
        original, weight = conv.parametrizations.weight.original, conv.weight
        found = (original / weight).flatten()[1].item()
        assert found == pytest.approx(sigma, rel=1e-9, abs=1e-9)


# --- outputs ------------------------------------------------------------------------------------------------
def check_all(golden, name, size, scheme, found):
    expected = golden.figures["nets"][name][size]["cases"][scheme]["outputs"]
    assert sorted(found) == sorted(expected)
    for key, tensor in found.items():
        golden.check(tensor, expected[key], scheme)


@pytest.mark.parametrize(("size", "scheme"), HALVES)
@torch.no_grad()
def test_flow_network(golden, size, scheme):
    net, S = golden.filled(lambda: FlowNetwork(sized(official_architecture(), size)), scheme), side(size)
    reference = torch.cat([golden.coordinates((1, 3, S, S), 1), golden.rgb((1, 3, S, S), 2)], dim=1)
    maps = net.enc(reference)
    flow, mask = net(golden.coordinates((1, 9, S, S), 0), maps[-1])
    found = {f"warped_feats[{i}]": one for i, one in enumerate(warp_maps(maps, flow))}
    check_all(golden, "flow_net", size, scheme, found | {"flow": flow, "mask": mask})


@pytest.mark.parametrize(("size", "scheme"), HALVES)
@torch.no_grad()
def test_rendering_network(golden, size, scheme):
    arch, S = sized(official_architecture(), size), side(size)
    net = golden.filled(lambda: RenderingNetwork(arch), scheme)
    maps = [
        golden.rgb((1, width, S // 2**i, S // 2**i), 10 + i) for i, width in enumerate(arch.encoder_channels)
    ]
    image = net(
        golden.coordinates((1, 9, S, S), 0),
        maps,
        golden.rgb((1, 3, S, S), 13),
        golden.coordinates((1, arch.audio), 3),
    )
    check_all(golden, "rendering_net", size, scheme, {"image": image})


@pytest.mark.parametrize(("size", "scheme"), WHOLE)
@pytest.mark.parametrize("name", ["generator", "generator_supplement"])
@torch.no_grad()
def test_generator(golden, name, size, scheme):
    arch, S = (
        sized(official_architecture() if name == "generator" else paper_supplement_architecture(), size),
        side(size),
    )
    out = golden.filled(lambda: Generator(arch), scheme)(
        golden.coordinates((1, 9, S, S), 0),
        golden.coordinates((1, 3, S, S), 1),
        golden.rgb((1, 3, S, S), 2),
        golden.coordinates((1, arch.audio), 3),
    )
    found = {"image": out.image, "warped": out.warped, "flow": out.flow}
    found["mask"] = torch.ones_like(out.flow[:, :1]) if out.mask is None else out.mask
    found |= {f"warped_feats[{i}]": one for i, one in enumerate(out.maps)}
    check_all(golden, name, size, scheme, found)


@pytest.mark.parametrize("name", ["generator", "generator_supplement"])
@torch.no_grad()
def test_generator_in_single_precision(golden, name):
    """2e-5 of the figures, which are float64's (spec 16)."""
    arch = sized(official_architecture() if name == "generator" else paper_supplement_architecture(), "small")
    given = [golden.coordinates((1, 9, 32, 32), 0), golden.coordinates((1, 3, 32, 32), 1)]
    given += [golden.rgb((1, 3, 32, 32), 2), golden.coordinates((1, arch.audio), 3)]
    out = golden.filled(lambda: Generator(arch)).float()(*(one.float() for one in given))
    expected = golden.figures["nets"][name]["small"]["cases"][B]["outputs"]
    for key, tensor in {"image": out.image, "warped": out.warped, "flow": out.flow}.items():
        found, wanted = tensor.flatten().numpy(), expected[key]
        assert tensor.dtype == torch.float32
        np.testing.assert_allclose(found[:16], wanted["first16"], rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(found[-4:], wanted["last4"], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("size", "scheme"), CASES)
@torch.no_grad()
def test_image_discriminator(golden, size, scheme):
    net, S = golden.filled(lambda: image_discriminator(discriminators(size)), scheme), side(size)
    scales = net(golden.coordinates((1, 3, S, S), 1), golden.rgb((1, 3, S, S), 2))
    check_all(golden, "image_discriminator", size, scheme, named(scales))


@pytest.mark.parametrize(("size", "scheme"), CASES)
@torch.no_grad()
def test_mouth_discriminator(golden, size, scheme):
    arch, S = sized(official_architecture(), size), side(size)
    net = golden.filled(lambda: mouth_discriminator(discriminators(size), arch.audio), scheme)
    scales = net(golden.coordinates((1, arch.audio), 3), golden.rgb((1, 3, S, S), 2))
    check_all(golden, "mouth_discriminator", size, scheme, named(scales))


def named(scales):
    return {f"D[{i}][{j}]": one for i, maps in enumerate(scales) for j, one in enumerate(maps)}


# --- losses and crop ----------------------------------------------------------------------------------------
@torch.no_grad()
def test_adversarial_losses(golden):
    net = golden.filled(lambda: image_discriminator(discriminators("small")))
    nmfc, real = golden.coordinates((2, 3, 32, 32), 1), golden.rgb((2, 3, 32, 32), 2)
    on_real, on_fake = net(nmfc, real), net(nmfc, 0.7 * golden.rgb((2, 3, 32, 32), 4))
    expected = golden.figures["losses"]["disc_small"]
    found = {
        "D_real": losses.real_hinge_loss(on_real),
        "D_fake": losses.fake_hinge_loss(on_fake),
        "G_adv": losses.generator_gan_loss(on_fake),
        "feature_matching_weighted_10": 10 * losses.feature_matching_loss(on_fake, on_real),
    }
    for name, value in found.items():
        assert value.item() == pytest.approx(expected[name], rel=1e-9), name


def test_pixel_losses(golden):
    nmfc, real = golden.coordinates((2, 3, 32, 32), 1), golden.rgb((2, 3, 32, 32), 2)
    fake = 0.7 * golden.rgb((2, 3, 32, 32), 4)
    nmfc[:, :, :8], nmfc[:, :, :, 20:] = 0, 0.003
    expected = golden.figures["losses"]["masked_l1"]
    masked = losses.pixel_l1_loss(fake, real, losses.head_mask(nmfc))
    assert losses.pixel_l1_loss(fake, real).item() == pytest.approx(expected["plain_l1"], rel=1e-9)
    assert masked.item() == pytest.approx(expected["value_unweighted"], rel=1e-9)


def test_mouth_crop(golden):
    expected = golden.figures["mouth_crop"]
    images = torch.arange(4 * 256 * 256, dtype=torch.float64).view(4, 1, 256, 256)
    cropped = crop_around_centres(images, torch.tensor(expected["centers_xy"]), expected["roi"])
    assert cropped.shape == (4, 1, 64, 64)
    np.testing.assert_array_equal(cropped[:, 0, 0, 0], expected["top_left_values"])
    np.testing.assert_array_equal(cropped.sum((1, 2, 3)), expected["sum"])
