"""The wheel's net against figures of an independent port, and on the pictures that ship with scikit-image."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.errors import InvalidFile
from models.fsrt import losses as fsrt_losses
from models.headgan import losses as headgan_losses
from models.perception.efficientnet_lite0 import (
    EfficientNetLite0Layers,
    load_efficientnet_lite0,
)
from models.perception.interfaces import InferenceSettings
from models.perception.vgg19 import load_random_vgg19
from models.weights import find_third_party_weights
from storage.weight_files import find_packaged_file

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/embedded_nets.json").read_text())[
    "efficientnet_lite0"
]
WEIGHTS = find_third_party_weights("efficientnet_lite0")


@pytest.fixture(scope="module")
def file():
    return find_packaged_file(WEIGHTS)


@pytest.fixture(scope="module")
def net(file):
    return load_efficientnet_lite0({"efficientnet_lite0": file})


@pytest.fixture(scope="module")
def image():
    """The figures' input: waves, RGB in [0,1], 224 px."""
    y, x, c = np.meshgrid(np.arange(224), np.arange(224), np.arange(3), indexing="ij")
    waves = np.sin(2 * np.pi * (x + 2 * y) / 37 + c) + np.cos(2 * np.pi * (3 * x - y) / 53 - c)
    return torch.from_numpy((0.5 + 0.25 * waves).astype(np.float32)).permute(2, 0, 1)[None]


def picture(name):
    """The middle 87.5 % of a picture at 224 px."""
    from skimage import data

    pixels = np.atleast_3d(getattr(data, name)())
    pixels = pixels[..., :3] if pixels.shape[2] > 1 else np.repeat(pixels, 3, 2)
    side = round(min(pixels.shape[:2]) * 0.875)
    y, x = ((length - side) // 2 for length in pixels.shape[:2])
    crop = torch.from_numpy(pixels[y : y + side, x : x + side]).permute(2, 0, 1)[None].float() / 255
    return functional.interpolate(crop, size=(224, 224), mode="bilinear", antialias=True, align_corners=False)


def test_the_wheel_holds_the_pinned_file(file):
    assert file.stat().st_size == WEIGHTS.size == 18_826_032


def test_logits_are_the_figures(net, image):
    logits = net.logits(image)[0]
    torch.testing.assert_close(logits[:6], torch.tensor(GOLDEN["logits"]["first"]), rtol=0, atol=1e-3)
    torch.testing.assert_close(logits[-6:], torch.tensor(GOLDEN["logits"]["last"]), rtol=0, atol=1e-3)
    assert logits.norm().item() == pytest.approx(GOLDEN["logits"]["norm"], abs=1e-3)
    assert logits.topk(5).indices.tolist() == GOLDEN["top5"]


def test_maps_have_the_shapes_and_sums_of_the_figures(net, image):
    head = net.expansion_features(image)[-1]
    maps = [*net.features(image), head, head.mean((2, 3))]
    for name, found in zip(("b0", "b2", "b4", "b10", "b15", "head", "pool"), maps, strict=True):
        wanted = GOLDEN["taps"][name]
        assert list(found.shape[1:]) == wanted["shape"], name
        assert found.mean().item() == pytest.approx(wanted["mean"], abs=2e-5), name
        assert found.norm().item() == pytest.approx(wanted["norm"], rel=1e-5), name
    assert torch.equal(net.pooled_features(image), maps[-1])


def test_expansions_end_at_zero_and_six(net, image):
    maps = net.expansion_features(image)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (96, 112, 112), (144, 56, 56), (240, 28, 28), (672, 14, 14), (1280, 7, 7)
    ]  # fmt: skip
    assert all(m.min() == 0 and 0 < m.max() <= 6 for m in maps)


@pytest.mark.parametrize(
    ("name", "classes"), [("coffee", {967}), ("camera", {872}), ("chelsea", {281, 282, 285})]
)
def test_pictures_are_what_they_show(net, name, classes):
    """Espresso, tripod, and a cat: tabby, tiger or Egyptian."""
    assert net.logits(picture(name)).argmax().item() in classes


@pytest.mark.parametrize("side", [32, 45])
def test_an_image_does_not_see_the_others_of_its_batch(net, side):
    images = torch.rand(5, 3, side, side + 7, generator=torch.manual_seed(0))
    for whole, parts in zip(
        net.features(images), zip(*(net.features(one[None]) for one in images), strict=True), strict=True
    ):
        torch.testing.assert_close(whole, torch.cat(parts), rtol=0, atol=2e-4)


def test_gradient_reaches_the_images_and_not_the_weights(net):
    image = torch.rand(1, 3, 64, 64, generator=torch.manual_seed(0), requires_grad=True)
    sum(m.abs().mean() for m in net.features(image)).backward()
    assert torch.isfinite(image.grad).all()
    assert (image.grad != 0).float().mean() > 0.99
    assert not any(p.requires_grad or p.grad is not None for p in net._net.parameters())


def test_the_folded_net_is_the_files(file, net, image):
    plain = EfficientNetLite0Layers()
    plain.load_state_dict(torch.load(file, weights_only=True))
    maps = [output for output, _ in plain.eval().block_maps((255 * image - 127) / 128)]
    torch.testing.assert_close(net.features(image)[-1], maps[15], rtol=0, atol=1e-3)


def test_told_where_to_run_it_finds_the_same(file, net, image):
    moved = load_efficientnet_lite0({"efficientnet_lite0": file})
    moved.configure_inference(InferenceSettings(device="cpu"))
    torch.testing.assert_close(moved.logits(image), net.logits(image), rtol=0, atol=1e-3)


def test_small_images_are_refused(net):
    with pytest.raises(ValueError, match=r"\(31, 64\) pixels: efficientnet_lite0 needs 32"):
        net.features(torch.rand(1, 3, 31, 64))


def test_it_computes_in_float32_under_autocast(net):
    images = torch.rand(1, 3, 32, 32, generator=torch.manual_seed(0))
    plain = net.features(images)
    with torch.autocast("cpu", torch.bfloat16):
        found = net.features(images)
        assert net.expansion_features(images.bfloat16())[-1].dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))


@pytest.mark.parametrize("kept", [100, 1_000_000, 18_000_000])
def test_a_file_cut_short_is_refused(file, tmp_path, kept):
    (tmp_path / "cut.pth").write_bytes(file.read_bytes()[:kept])
    with pytest.raises(InvalidFile, match=r"cut\.pth: not a file of tensors alone"):
        load_efficientnet_lite0({"efficientnet_lite0": tmp_path / "cut.pth"})


def test_another_nets_file_is_refused_by_name(file, tmp_path):
    state = torch.load(file, weights_only=True)
    del state["_blocks.15._bn2.running_var"], state["_fc.bias"]
    torch.save(state | {"_blocks.0._se_reduce.weight": torch.ones(8, 32, 1, 1)}, tmp_path / "b0.pth")
    with pytest.raises(
        InvalidFile,
        match=r"2 missing: _blocks\.15\._bn2\.running_var, _fc\.bias; 1 unknown: _blocks\.0\._se_reduce",
    ):
        load_efficientnet_lite0({"efficientnet_lite0": tmp_path / "b0.pth"})


def fsrt_term(net, image, target):
    return fsrt_losses.perceptual_loss(net.features(image), net.features(target), net.name)


def headgan_term(net, image, target):
    """Images in [-1,1]; VGG19 sees them as they are."""
    normalised = net.name == "efficientnet_lite0"
    maps, wanted = (
        net.features(headgan_losses.perceptual_net_input(2 * one - 1, normalised)) for one in (image, target)
    )
    return headgan_losses.perceptual_loss(maps, wanted, (1.0,) * 5, net.name)


@pytest.mark.parametrize("term", [fsrt_term, headgan_term])
def test_its_scaled_term_pulls_at_an_image_as_a_random_vgg19s_does(net, term):
    """Of a face at 64 px and a blurred one, as nets render it when the losses set in: to a factor of two."""
    from skimage.data import astronaut

    face = torch.from_numpy(astronaut()[:256, 100:356]).permute(2, 0, 1)[None].float() / 255
    target, small = (
        functional.interpolate(face, size=(side, side), mode="bilinear", antialias=True) for side in (64, 12)
    )
    pulls = []
    for one in (net, load_random_vgg19({})):
        image = functional.interpolate(small, size=(64, 64), mode="bilinear").requires_grad_(True)
        (gradient,) = torch.autograd.grad(term(one, image, target), image)
        pulls.append(gradient.norm().item())
    assert 0.5 < pulls[0] / pulls[1] < 2
