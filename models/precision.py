"""In which precision a net computes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Precision = Literal["fp32", "bf16"]


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies matrices in bfloat16 itself; where it is emulated, float32 is faster."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        can = torch.cpu.get_capabilities()
        return any(can.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last: ARM
    return False


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Context in which matrix products run in bfloat16, for precision "bf16" on a device that `has_bf16`.

    Elsewhere, and for "fp32", it changes nothing. What must stay in float32 (positional codes, soft-argmax,
    losses) leaves autocast by itself. Raises ValueError for another precision.
    """
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision {precision!r}: expected fp32 or bf16")
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16" and has_bf16(device))


def precise(x: Tensor) -> Tensor:
    """float32, or float64 where it is that already."""
    return x if x.dtype == torch.float64 else x.float()
