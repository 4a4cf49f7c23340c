"""Linear layers and attention through oneDNN, for processors on which PyTorch's own kernels are slower.

PyTorch multiplies float32 matrices with MKL, which on AMD processors leaves AVX-512 unused: 108 GFLOP/s a
core where oneDNN reaches 240 (Zen 5). Its fused attention multiplies with MKL too, and gains nothing from
bfloat16 without AMX: 92 GFLOP/s in both precisions. The functions here give the same numbers up to rounding,
with gradients, and hand over to PyTorch wherever they do not serve: other devices and dtypes, processors
without AVX-512, products too small to pay for the call. `torch.backends.mkldnn.flags(enabled=False)` switches
them off.

Shapes: B batch, H heads, P queries, T keys, D size of a head.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MIN_LINEAR_MULTIPLICATIONS = 2**20  # multiplications below which the call costs more than it saves (measured)
MIN_ATTENTION_MULTIPLICATIONS = (
    2**25
)  # the same for attention, called head by head: at 2**19 it takes three times as long
MAX_ATTENTION_SCORES = 2**19  # of one head at a time, for each thread: 2 MiB, so that they stay near the core


@functools.cache
def is_onednn_supported() -> bool:
    """Whether this processor and this PyTorch can."""
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _serves(x: Tensor, multiplications: int) -> bool:
    return (
        x.device.type == "cpu"
        and multiplications >= MIN_LINEAR_MULTIPLICATIONS
        and not torch.compiler.is_compiling()
        and is_onednn_supported()
        and bool(torch.backends.mkldnn.enabled)
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (N,I) @ weight (O,I)^T + bias. The operator behind torch.compile's linear layers on CPUs; it has no
    gradient of its own.
    """
    return torch.ops.mkldnn._linear_pointwise(_dense(x), _dense(weight), bias, "none", [], "")


def _dense(x: Tensor) -> Tensor:
    """A matrix in memory without gaps between its rows or its columns: else oneDNN takes its slowest path."""
    return x if x.is_contiguous() or x.mT.is_contiguous() else x.contiguous()


# --- linear layers ------------------------------------------------------------------------------------------
class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.flatten(0, -2)
        ctx.save_for_backward(rows, weight)
        out = _product(rows, weight, bias)
        # not a view: layers that follow may work in place
        return torch.ops.aten._unsafe_view(out, [*x.shape[:-1], len(weight)])

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] (the decorator's type)
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,), (rows, weight) = grad_outputs, ctx.saved_tensors
        of_rows = grad.flatten(0, -2)
        return (
            _product(of_rows, weight.T).unflatten(0, grad.shape[:-1]) if ctx.needs_input_grad[0] else None,
            _product(of_rows.T, rows.T) if ctx.needs_input_grad[1] else None,
            of_rows.sum(0) if ctx.needs_input_grad[2] else None,
        )


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """torch.nn.functional.linear: x (...,I), weight (O,I), bias (O) -> (...,O)."""
    # In bfloat16, and so under autocast, PyTorch itself calls oneDNN.
    if (
        x.dim() > 1
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and _serves(x, x.numel() * len(weight))
    ):
        return _Linear.apply(x, weight, bias)  # pyright: ignore[reportReturnType]
    return F.linear(x, weight, bias)


class OnednnLinear(nn.Linear):
    """torch.nn.Linear, computed by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return onednn_linear(input, self.weight, self.bias)


# --- attention ----------------------------------------------------------------------------------------------
def _blocks(q: Tensor, keys: int) -> Iterator[tuple[int, int, slice]]:
    """Sample, head and some queries at a time."""
    rows = max(16, MAX_ATTENTION_SCORES * torch.get_num_threads() // keys)
    for sample in range(q.shape[0]):
        for head in range(q.shape[1]):
            for first in range(0, q.shape[2], rows):
                yield sample, head, slice(first, first + rows)


def _weights(q: Tensor, k: Tensor, hidden: Tensor | None) -> Tensor:
    """q (P,D), k (T,D) scaled, hidden (T) bool -> softmax over the keys (P,T), float32 whatever q's dtype."""
    scores = _product(q.float(), k)
    if hidden is not None:
        scores.masked_fill_(hidden, -torch.inf)
    return scores.softmax(-1)


def _empty_heads_last(x: Tensor) -> Tensor:
    """An empty (B,H,P,D) whose memory lies as (B,P,H,D), so that concatenating the heads copies nothing."""
    return torch.empty_like(x.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)


class _Attention(torch.autograd.Function):
    """Some queries of one head at a time; the backward pass computes their weights again."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> Tensor:
        ctx.save_for_backward(q, k, v, hidden)
        out = _empty_heads_last(q)
        scaled, v = (k.float() * k.shape[-1] ** -0.5).contiguous(), v.contiguous()
        for b, h, rows in _blocks(q, k.shape[2]):
            weights = _weights(q[b, h, rows], scaled[b, h], None if hidden is None else hidden[b])
            out[b, h, rows] = _product(weights.to(v.dtype), v[b, h].T)
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] (the decorator's type)
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,), (q, k, v, hidden) = grad_outputs, ctx.saved_tensors
        scale = k.shape[-1] ** -0.5
        k, v = k.contiguous(), v.contiguous()
        scaled = k.float() * scale
        to_q = _empty_heads_last(q)
        to_k, to_v = torch.zeros_like(scaled), torch.zeros_like(v, dtype=torch.float32)
        for b, h, rows in _blocks(q, k.shape[2]):
            asked, out = q[b, h, rows].contiguous(), grad[b, h, rows].contiguous()
            weights = _weights(asked, scaled[b, h], None if hidden is None else hidden[b])
            to_v[b, h] += _product(weights.to(v.dtype).T, out.T)
            to_weights = _product(out, v[b, h]).float()
            to_scores = torch.ops.aten._softmax_backward_data(to_weights, weights, -1, torch.float32)
            to_scores = to_scores.to(q.dtype)
            to_q[b, h, rows] = _product(to_scores, k[b, h].T)
            to_k[b, h] += _product(to_scores.T, asked.T)
        return to_q.mul_(scale), to_k.mul_(scale).to(k.dtype), to_v.to(v.dtype), None


def attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(D)) v: q (B,H,P,D), k and v (B,H,T,D) -> (B,H,P,D).

    seen (B,1,1,T) bool: keys that may be attended to; at least one in every sample.
    """
    work = q.shape[2] * k.shape[2] * q.shape[3]  # of a head
    if (
        q.dtype in (torch.float32, torch.bfloat16)
        and work >= MIN_ATTENTION_MULTIPLICATIONS
        and _serves(q, work)
    ):
        hidden = None if seen is None else ~seen[:, 0, 0]
        with torch.autocast("cpu", enabled=False):
            return _Attention.apply(q, k, v, hidden)  # pyright: ignore[reportReturnType]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
