"""Linear layers and attention through oneDNN: values and gradients against PyTorch's in float64."""

import pytest
import torch
from torch.nn import functional as F

from models import onednn
from models.onednn import OnednnLinear, attention, onednn_linear

needs_it = pytest.mark.skipif(
    not onednn.is_onednn_supported(), reason="no AVX-512, or PyTorch without oneDNN"
)


def grown(*shape, seed=0, scale=1.0):
    torch.manual_seed(seed)
    return (scale * torch.randn(*shape)).requires_grad_()


def gradients(out, inputs):
    torch.manual_seed(9)
    weights = torch.randn(out.shape).bfloat16().to(out.dtype)  # the same in every precision
    return torch.autograd.grad((out * weights).sum(), inputs)


def close(found, expected, tolerance=1e-5):
    scale = expected.abs().max().item()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * scale)


@needs_it
@pytest.mark.parametrize("turned", [False, True])
def test_linear_in_float32(turned):
    x, weight, bias = grown(2, 300, 64), grown(96, 64, seed=1), grown(96, seed=2)
    inputs = (x, weight, bias)
    precise = [part.detach().double().requires_grad_() for part in inputs]
    given, wanted = ((p[0].mT.contiguous().mT if turned else p[0], *p[1:]) for p in (inputs, precise))
    out, expected = onednn_linear(*given), F.linear(*wanted)
    assert "Linear" in out.grad_fn.name()  # not handed over
    close(out, expected)
    for one, other in zip(gradients(out, inputs), gradients(expected, precise), strict=True):
        close(one, other)


@needs_it
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("hidden", [False, True])
def test_attention(dtype, tolerance, hidden):
    inputs = [
        grown(2, count, 2, 32, seed=i).detach().to(dtype).transpose(1, 2).requires_grad_()
        for i, count in enumerate((1200, 900, 900))
    ]
    seen = None
    if hidden:
        seen = torch.ones(2, 1, 1, 900, dtype=torch.bool)
        seen[0, ..., 450:] = False
    precise = [part.detach().double().requires_grad_() for part in inputs]
    out = attention(*inputs, seen)
    expected = F.scaled_dot_product_attention(*precise, attn_mask=seen)
    assert out.dtype == dtype
    close(out, expected, tolerance)
    for one, other in zip(gradients(out, inputs), gradients(expected, precise), strict=True):
        close(one, other, tolerance)


@needs_it
@torch.no_grad()
def test_queries_in_several_blocks_equal_one(monkeypatch):
    q, k, v = (grown(1, 2, 700, 32, seed=i) for i in range(3))
    whole = attention(q, k, v)
    monkeypatch.setattr(onednn, "MAX_ATTENTION_SCORES", 700 * 100)
    torch.testing.assert_close(attention(q, k, v), whole, rtol=0, atol=1e-6)


@needs_it
def test_a_frozen_weight_gets_no_gradient():
    layer = OnednnLinear(64, 256).requires_grad_(False)
    x = grown(100, 64)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    close(x.grad, layer.weight.detach().double().sum(0).expand(100, -1))


@pytest.mark.filterwarnings("ignore:TF32")
@pytest.mark.parametrize("why", ["small", "float64", "switched off"])
def test_what_it_does_not_serve_goes_to_pytorch(why):
    x = torch.rand(4 if why == "small" else 512, 64, requires_grad=True)
    weight = torch.rand(64, 64)
    if why == "float64":
        x, weight = x.double(), weight.double()
    with torch.backends.mkldnn.flags(enabled=why != "switched off"):
        out = onednn_linear(x, weight)
    assert torch.equal(out, F.linear(x, weight))
    assert "_Linear" not in out.grad_fn.name()


@needs_it
def test_the_layer_works_in_place_afterwards_and_under_autocast():
    layer, x = OnednnLinear(64, 256), grown(1, 100, 64)
    out = torch.relu_(layer(x))
    assert torch.equal(out, torch.relu(onednn_linear(x, layer.weight, layer.bias)))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
