from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.headgan import losses
from models.headgan.blocks import MAX_FUSED_CHANNELS, SpadeModulation, SpectralConv, fold_spectral_norm
from models.headgan.config import Architecture, official_architecture, tiny_architecture
from models.headgan.network import Generator, warp_image, warp_maps

SPEC = importlib.util.spec_from_file_location("headgan_plain", Path(__file__).with_name("plain.py"))
assert SPEC
assert SPEC.loader
plain = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(plain)


def inputs(net: Architecture, B: int = 2, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """window, condition, image, audio"""
    S, draw = net.image_size, torch.Generator().manual_seed(0)
    made = [torch.rand(B, net.window_channels, S, S, generator=draw), torch.rand(B, 3, S, S, generator=draw)]
    made.append(2 * torch.rand(B, 3, S, S, generator=draw) - 1)
    if net.audio:
        made.append(torch.rand(B, net.audio, generator=draw))
    return [one.to(dtype) for one in made]


def lively(net: Generator) -> Generator:
    """With modulation and flow that are not close to 0."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.double()


def gradients(net: nn.Module, outputs: list[Tensor]) -> dict[str, Tensor]:
    torch.stack([one.square().mean() for one in outputs]).sum().backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


# --- the whole net ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"residual": True, "mask": True},
        {"audio": 0, "spectral": False},
        {"residual": True, "upsampling": "nearest", "base": 2, "width": 4},
        {"levels": 1, "frames": 1},
        {"width": 10, "hidden": 3},  # 160 channels: scale and shift apart
    ],
)
def test_equals_the_plain_formulation(nano, change):
    arch = replace(nano, **change)
    net = lively(Generator(arch)).eval()
    reference = plain.Generator(arch).double().eval()
    reference.load_state_dict(net.state_dict())
    given = inputs(arch)
    out = net(*given)
    image, warped, flow = reference(*given)
    for found, expected in ((out.image, image), (out.warped, warped), (out.flow, flow)):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    ours, theirs = gradients(net, [out.image, out.warped]), gradients(reference, [image, warped])
    assert ours.keys() == theirs.keys()
    for name, grad in ours.items():
        torch.testing.assert_close(grad, theirs[name], rtol=1e-8, atol=1e-12, msg=name)


def test_recomputing_changes_neither_outputs_nor_gradients_nor_spectral_norm(nano):
    arch = replace(nano, residual=True, mask=True)
    nets = [lively(Generator(arch, recompute=again)).train() for again in (False, True)]
    nets[1].load_state_dict(nets[0].state_dict())
    given = inputs(arch)
    outs = [net(*given) for net in nets]
    assert torch.equal(outs[0].image, outs[1].image)
    kept, again = (gradients(net, [out.image, out.warped]) for net, out in zip(nets, outs, strict=True))
    for name, grad in kept.items():
        torch.testing.assert_close(again[name], grad, rtol=1e-10, atol=1e-14, msg=name)
    for (name, one), (_, other) in zip(nets[0].named_buffers(), nets[1].named_buffers(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize(("recompute", "kept"), [(False, 16), (True, 0)])
def test_recomputing_keeps_no_hidden_map(nano, recompute, kept):
    channels: list[int] = []

    def keep(x: Tensor) -> Tensor:
        channels.append(x.shape[1] if x.dim() == 4 and x.shape[0] == 2 else 0)
        return x

    net = Generator(replace(nano, hidden=63), recompute=recompute)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        net(*inputs(nano, dtype=torch.float32))
    # each of the 16 SPADE layers saves its hidden map for ReLU and for the convolution
    assert channels.count(63) == 2 * kept


def test_one_reference_serves_a_batch_of_windows(nano):
    net = lively(Generator(nano)).eval()
    window, condition, image, audio = inputs(nano, B=3)
    maps = net.encode_reference(condition[:1], image[:1])
    batch = net.render(window, image[:1], maps, audio)
    alone = net(window[1:2], condition[:1], image[:1], audio[1:2])
    torch.testing.assert_close(batch.image[1:2], alone.image, rtol=1e-10, atol=1e-12)
    assert batch.flow is not None
    torch.testing.assert_close(batch.flow[1:2], alone.flow, rtol=1e-10, atol=1e-12)


def test_without_flow_the_reference_reaches_the_renderer_as_it_is(nano):
    arch = replace(nano, flow=False)
    window, condition, image, audio = inputs(arch)
    net = lively(Generator(arch))
    out = net(window, condition, image, audio)
    assert out.flow is None
    assert out.mask is None
    assert torch.equal(out.warped, image)


def test_audio_that_a_net_cannot_hear_or_misses_is_an_error(nano):
    window, condition, image, audio = inputs(nano)
    net = Generator(nano).double()
    with pytest.raises(ValueError, match=r"audio none: this net takes vectors of 5"):
        net(window, condition, image)
    with pytest.raises(ValueError, match=r"audio \(2, 5\): this net takes vectors of 0"):
        Generator(replace(nano, audio=0)).double()(window, condition, image, audio)


def test_begins_with_no_motion_and_a_grey_image():
    net = Generator(replace(tiny_architecture(), mask=True, residual=True, initial="xavier"))
    out = net(*inputs(tiny_architecture(), B=1, dtype=torch.float32))
    assert out.flow.abs().max() < 0.1
    assert out.image.abs().max() < 0.1
    assert out.mask.sub(0.5).abs().max() < 0.2


def test_initial_weights_stay_pytorchs_where_the_net_says_so(nano):
    torch.manual_seed(0)
    widest = [
        one.mlp_shared[0].weight.abs().max() for one in spades(Generator(replace(nano, initial="torch")))
    ]
    torch.manual_seed(0)
    least = [one.mlp_shared[0].weight.abs().max() for one in spades(Generator(nano))]
    assert min(widest) > 5 * max(least)


def spades(net):
    return [module for module in net.modules() if isinstance(module, SpadeModulation)]


def test_folding_spectral_norm_keeps_the_outputs(nano):
    net = lively(Generator(nano)).eval()
    given = inputs(nano)
    before = net(*given).image
    after = fold_spectral_norm(net)(*given).image
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-12)
    assert not any(parametrize.is_parametrized(module) for module in net.modules())


def test_bf16_leaves_flow_and_norms_in_float32(nano):
    net = Generator(nano).eval()
    conv = net.get_submodule("flow_network.dec_res.0.conv_0")
    assert isinstance(conv, SpectralConv)
    dtypes = {}
    for name, module in net.named_modules():
        if name.endswith(("dec_flow.1", "conv_img.1")):
            module.register_forward_hook(lambda m, i, o, name=name: dtypes.update({name: o.dtype}))
    given = inputs(nano, dtype=torch.float32)
    with torch.no_grad():
        exact = net(*given)
        with torch.autocast("cpu", torch.bfloat16):
            out = net(*given)
            weight = conv.normalized_weight(torch.device("cpu"))
    assert out.flow.dtype == out.warped.dtype == weight.dtype == torch.float32
    assert dtypes == {
        "flow_network.dec_flow.1": torch.float32,
        "rendering_network.conv_img.1": torch.bfloat16,
    }
    assert torch.equal(weight, conv.weight)
    assert (out.image - exact.image).abs().mean() < 0.02
    assert (out.flow - exact.flow).abs().max() < 0.05


def test_bf16_trains_with_recomputing(nano):
    net = Generator(replace(nano, residual=True), recompute=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(*inputs(nano, dtype=torch.float32))
    grads = gradients(net, [out.image, out.warped])
    assert len(grads) == len(list(net.parameters()))
    assert all(grad.isfinite().all() for grad in grads.values())


# --- blocks -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("channels", [3, MAX_FUSED_CHANNELS + 1])
def test_scale_and_shift_together_or_apart_are_those_of_two_convolutions(channels):
    norm = SpadeModulation(channels, 4, 5).double()
    guide = torch.rand(2, 4, 6, 7, dtype=torch.float64)
    hidden = norm.mlp_shared(guide).relu()
    scale, shift = norm(guide)
    torch.testing.assert_close(scale, 1 + norm.mlp_gamma(hidden))
    torch.testing.assert_close(shift, norm.mlp_beta(hidden))


# --- warping ------------------------------------------------------------------------------------------------
def test_warping_reads_from_where_the_flow_points():
    image = torch.arange(20.0).view(1, 1, 4, 5)
    flow = torch.zeros(1, 2, 4, 5)
    flow[:, 0] = 1.0  # from one pixel further right
    assert torch.equal(warp_image(image, flow)[..., :-1], image[..., 1:])
    assert torch.equal(warp_image(image, flow)[..., -1], image[..., -1])  # beyond the border, its value
    assert torch.equal(warp_image(image, torch.zeros_like(flow)), image)


def test_warping_equals_the_four_neighbours_written_out():
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 9, 11, generator=draw, dtype=torch.float64)
    flow = 6 * torch.randn(2, 2, 9, 11, generator=draw, dtype=torch.float64)
    torch.testing.assert_close(warp_image(image, flow), plain.neighbours(image, flow), rtol=1e-12, atol=1e-12)


def test_smaller_maps_move_by_as_much_of_their_side():
    flow = torch.zeros(1, 2, 8, 8)
    flow[:, 1] = 4.0
    image = torch.arange(8.0).view(1, 1, 8, 1).expand(1, 1, 8, 8)
    large, small = warp_maps([image, image[..., ::2, ::2]], flow)
    assert large[0, 0, 0, 0] == 4
    assert small[0, 0, 0, 0] == 4  # two rows down, of steps of 2


def test_half_precision_warps_in_float32():
    image = torch.arange(256.0).expand(1, 1, 256, 256).bfloat16()
    flow = torch.full((1, 2, 256, 256), 0.25, dtype=torch.bfloat16)
    assert warp_image(image, flow)[0, 0, 3, 101] == torch.tensor(101.25).bfloat16()


# --- learning (spec 17, item 6; item 8: test_task.py) -------------------------------------------------------
def clip(S: int = 32) -> tuple[Tensor, Tensor]:
    """Four frames of a coloured disc that wanders: conditions (4,3,S,S) in [0,1], images (4,3,S,S) in
    [-1,1].
    """
    y, x = torch.meshgrid(torch.arange(S) / S, torch.arange(S) / S, indexing="ij")
    conditions, images = [], []
    for step in range(4):
        dx, dy = x - 0.4 - 0.06 * step, y - 0.5 - 0.03 * step
        inside = (dx.square() + dy.square() < 0.09).float()
        conditions.append(torch.stack([0.5 + dx, 0.5 + dy, 0.8 + 0 * dx]) * inside)
        stripes = torch.stack([torch.sin(25 * dx), torch.cos(20 * dy), torch.sin(15 * (dx + dy))])
        images.append(stripes * inside - 0.5 * (1 - inside))
    return torch.stack(conditions), torch.stack(images)


def test_fifty_steps_on_a_clip_learn_image_and_flow():
    torch.manual_seed(0)
    conditions, images = clip()
    net = Generator(Architecture(image_size=32, width=4, hidden=16, audio=0, frames=1))
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3, betas=(0.5, 0.999))
    source, still = conditions[:1].expand(4, -1, -1, -1), images[:1].expand(4, -1, -1, -1)
    history = []
    for _ in range(50):
        out = net(conditions, source, still)
        terms = losses.pixel_l1_loss(out.image, images), losses.pixel_l1_loss(out.warped, images)
        history.append([term.item() for term in terms])
        optimiser.zero_grad()
        (50 * (terms[0] + terms[1])).backward()
        optimiser.step()
    copied = losses.pixel_l1_loss(still, images).item()
    assert history[-1][0] < 0.5 * history[0][0]
    assert history[-1][1] < 0.7 * copied


def test_the_official_preset_differs_from_the_supplements_in_two_settings():
    assert replace(official_architecture(), residual=False, mask=False) == Architecture()
