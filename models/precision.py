"""In which precision a net computes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from models.errors import InvalidSettings

Precision = Literal["fp32", "bf16"]


def best_precision(device: torch.device) -> Precision:
    """What suits the device where nothing else is asked for: bf16 on a GPU that has it."""
    return "bf16" if device.type == "cuda" and supports_bf16(device) else "fp32"


def supports_bf16(device: torch.device) -> bool:
    """Whether the device multiplies matrices in bfloat16 itself; where it is emulated, float32 is faster."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        can = torch.cpu.get_capabilities()
        return any(can.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last: ARM
    return False


FP32_HINT = "ask for fp32 (`--set MODEL.precision=fp32`, of animate `--precision fp32`)"


def check_precision(precision: str, device: torch.device, instead: str = FP32_HINT) -> None:
    """Raises InvalidSettings where the device cannot compute so, for then another number would come out than
    was asked for. instead: what the user may do.
    """
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision {precision!r}: expected fp32 or bf16")
    if precision == "bf16" and not supports_bf16(device):
        raise InvalidSettings(
            f"precision bf16: this machine's {device.type} does not multiply in bfloat16; {instead}"
        )


def choose_precision(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """The precision that is asked for; auto: `best_precision`. Raises as `check_precision` does."""
    chosen = best_precision(device) if precision == "auto" else precision
    check_precision(chosen, device)
    return chosen


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Context in which matrix products run in bfloat16, for precision "bf16"; for "fp32" it changes nothing.

    What must stay in float32 (positional codes, soft-argmax, losses) leaves autocast by itself. Raises as
    `check_precision` does.
    """
    check_precision(precision, device)
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def at_least_float32(x: Tensor) -> Tensor:
    """float32, or float64 where it is that already."""
    return x if x.dtype == torch.float64 else x.float()
