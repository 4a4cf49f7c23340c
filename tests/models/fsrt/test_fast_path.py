"""The fast net equals the plain formulation, in float64 to 1e-12 (spec 16 items 3 and 4)."""

import pytest
import torch
from msgspec.structs import replace

from models.fsrt import network
from models.fsrt.config import (
    AugmentConfig,
    ImageLossRenderingConfig,
    TrainingSampleConfig,
    full_architecture,
)
from models.fsrt.image_task import WholeImageTask
from models.fsrt.network import MAX_CPU_QUERIES, max_queries_per_pass, pixel_grid
from models.fsrt.pixel_sampling import LatticePixels
from models.fsrt.task import AugmentedFrames
from tests.models.fsrt.architectures import SMALL_DECODER

WEIGHTS = {"pixel": 1.0, "invariance": 1.0, "variance": 0.2, "covariance": 1.0}


def both(plain, net, part):
    """One part of the net, fast and plain, with the same weights in float64."""
    torch.manual_seed(0)
    fast, reference = getattr(network, part)(net).double(), getattr(plain, part)(net).double()
    reference.load_state_dict(fast.state_dict(), strict=True)
    return fast, reference


def scene_of(net, sources=1, batch=2):
    torch.manual_seed(1)
    side, K = net.image_size, net.detector.keypoints
    images = torch.rand(batch, sources, 3, side, side, dtype=torch.float64)
    keypoints = 2.4 * torch.rand(batch, sources, K, 2, dtype=torch.float64) - 1.2
    return images, keypoints, torch.randn(batch, sources, net.expression_size, dtype=torch.float64)


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sources", [1, 2])
@torch.no_grad()
def test_encoder(plain, nano, sources):
    fast, reference = both(plain, nano, "Encoder")
    scene = scene_of(nano, sources)
    same(fast(*scene), reference(*scene))


@torch.no_grad()
def test_encoder_of_the_published_width(plain):
    net = replace(full_architecture(), image_size=32, encoder_depth=1)
    fast, reference = both(plain, net, "Encoder")
    scene = scene_of(net, batch=1)
    same(fast(*scene), reference(*scene))


@pytest.mark.parametrize("net", [full_architecture(), SMALL_DECODER], ids=["decoder", "small decoder"])
@torch.no_grad()
def test_decoder(plain, net):
    fast, reference = both(plain, net, "Decoder")
    z = torch.randn(2, 64, net.token_size, dtype=torch.float64)
    pixels = pixel_grid(8, 8, torch.float64).flatten(0, 1)
    _, keypoints, e = (part[:, 0] for part in scene_of(net))
    same(fast(z, pixels, keypoints, e), reference(z, pixels.expand(2, -1, -1), keypoints, e))


@torch.no_grad()
def test_detector_and_expression_of_all_views_at_once(plain, nano):
    torch.manual_seed(0)
    fast = network.Fsrt(nano).double().eval()
    reference = plain.Fsrt(nano).double().eval()
    reference.load_state_dict(fast.state_dict(), strict=True)
    views = [torch.rand(2, 3, 64, 64, dtype=torch.float64) for _ in range(3)]
    keypoints, features, heatmap = fast.kp_detector(torch.cat(views))
    e = fast.expression_encoder(features, heatmap)
    found = [reference.keypoints_and_expressions(view) for view in views]
    same(keypoints, torch.cat([part[0] for part, _ in found]))
    same(e, torch.cat([part[0] for _, part in found]))


def test_passes_on_a_cpu_are_small_whatever_is_asked_for():
    assert max_queries_per_pass(10**9, torch.device("cpu")) == MAX_CPU_QUERIES
    assert max_queries_per_pass(100, torch.device("cpu")) == 100
    assert max_queries_per_pass(10**9, torch.device("meta")) == 10**9


@torch.no_grad()
def test_image_and_video_do_not_depend_on_the_pixels_of_a_pass(plain, nano):
    fast, reference = both(plain, nano, "Decoder")
    z = torch.randn(1, nano.tokens_per_source, nano.token_size, dtype=torch.float64)
    k, e = (
        torch.rand(5, 10, 2, dtype=torch.float64),
        torch.randn(5, nano.expression_size, dtype=torch.float64),
    )
    scenes = z.expand(5, -1, -1)
    whole = reference.render_image(scenes, 16, k, e)
    for most in (1, 7, 256, 600, 10_000):  # less than a frame, a frame, two frames, all
        same(fast.render_video(fast.keys_values(z), 16, k, e, most=most), whole)
        same(fast.render_image(scenes, 16, k, e, most=most), whole)
        same(reference.render_image(scenes, 16, k, e, most=most), whole)


@torch.no_grad()
def test_one_call_of_many_queries_runs_in_passes(plain, nano, monkeypatch):
    fast, reference = both(plain, nano, "Decoder")
    z = torch.randn(2, nano.tokens_per_source, nano.token_size, dtype=torch.float64)
    _, keypoints, e = (part[:, 0] for part in scene_of(nano))
    pixels = pixel_grid(16, 16, torch.float64).flatten(0, 1)
    sizes = []
    fast.render_mlp.register_forward_hook(lambda _, given, __: sizes.append(given[0].shape[1]))
    monkeypatch.setattr(network, "MAX_CPU_QUERIES", 200)
    same(fast(z, pixels, keypoints, e), reference(z, pixels.expand(2, -1, -1), keypoints, e))
    assert sizes == [100, 100, 56]  # of each of the two samples


# --- training steps -----------------------------------------------------------------------------------------
def views_of(net, batch=2):
    side, detector = net.image_size, net.detector.size
    torch.manual_seed(2)

    def some(*shape):
        return torch.rand(*shape, dtype=torch.float64)

    crop = torch.tensor([[0.1, 0.0, 0.2, 0.05]] * batch, dtype=torch.float64)
    moved = torch.ones(batch, dtype=torch.bool)
    of_detector, of_sources = (batch, 3, detector, detector), (batch, 1, 3, detector, detector)
    return AugmentedFrames(
        sources=some(batch, 1, 3, side, side), target=some(batch, 3, side, side),
        sources1=some(*of_sources), sources2=some(*of_sources),
        driving=some(*of_detector), driving_tight=some(*of_detector),
        sources2_full=some(*of_sources), driving2_full=some(*of_detector),
        crop=crop, source_moved=moved, driving_moved=moved, tight=torch.tensor([True, False]),
    )  # fmt: skip


def features(image):
    """Stands in for VGG19: two maps."""
    return [image.square(), torch.nn.functional.avg_pool2d(image, 2)]


@pytest.mark.parametrize("phase", ["warmup", "perceptual"])
def test_losses_and_gradients_of_a_training_step(plain, nano, phase):
    torch.manual_seed(0)
    task = WholeImageTask(nano, TrainingSampleConfig(), AugmentConfig(), ImageLossRenderingConfig())
    task.perceptual_net = type("Net", (), {"features": staticmethod(features), "name": "two maps"})()
    fast = task.net.double()
    fast.kp_detector.eval().requires_grad_(False)
    reference = plain.Fsrt(nano).double()
    reference.load_state_dict(fast.state_dict(), strict=True)
    views, corner = views_of(nano), torch.tensor([[0, 1], [1, 0]])
    queries = torch.stack([torch.randperm(256)[:100] for _ in range(2)])
    if phase == "warmup":
        weights = WEIGHTS
        found = task.loss_terms(views, queries)
        expected = plain.warmup_step(reference, views, queries)
    else:
        weights = WEIGHTS | {"perceptual": 0.01}
        found = task.image_losses(views, LatticePixels(corner, nano.image_size))
        expected = plain.image_step(reference, views, corner, features)
    found = {name: found[name]() for name in weights}
    for terms in (found, expected):
        sum(weight * terms[name] for name, weight in weights.items()).backward()
    for name in weights:
        same(found[name], expected[name])
    theirs = dict(reference.named_parameters())
    for name, parameter in fast.named_parameters():
        if parameter.requires_grad:
            same(parameter.grad, theirs[name].grad)


@pytest.mark.slow
def test_compiled_equals_eager(nano):
    torch.manual_seed(0)
    eager = network.Fsrt(nano).double()
    compiled = network.Fsrt(nano).double()
    compiled.load_state_dict(eager.state_dict(), strict=True)
    compiled.compile(dynamic=False)
    assert compiled.state_dict().keys() == eager.state_dict().keys()
    images, keypoints, e = scene_of(nano)
    pixels = pixel_grid(16, 16, torch.float64).flatten(0, 1)
    found = []
    for net in (eager, compiled):
        rgb = net.decoder(net.encoder(images, keypoints, e), pixels, keypoints[:, 0], e[:, 0])
        rgb.square().sum().backward()
        found.append([rgb, *(p.grad for p in (*net.encoder.parameters(), *net.decoder.parameters()))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
