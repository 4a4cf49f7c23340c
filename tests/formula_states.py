"""Weights and inputs by formula, as the figures of tests/golden/syncnet.json are of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor


def wave_state(shapes: Mapping[str, Tensor], scaled: bool = False) -> dict[str, Tensor]:
    """The i-th float tensor by name is .05 sin(.37 k + i) of its k-th number, variances 1 + half of its size.
    scaled: kernels 6 times that, scales of batch norms .5 + 10 of its size, so that deep nets keep their
    signal."""

    def values(name: str, tensor: Tensor, i: int) -> np.ndarray:
        wave = 0.05 * np.sin(0.37 * np.arange(tensor.numel()) + i)
        if name.endswith("running_var"):
            return 1 + 0.5 * np.abs(wave)
        if scaled and tensor.ndim > 1:
            return 6 * wave
        return 0.5 + 10 * np.abs(wave) if scaled and name.endswith("weight") else wave

    return _filled(shapes, values)


def chirp_state(shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """s = sin(2 pi (k k mod 10007) / 10007 + i); kernels of 1.5 / sqrt(inputs) of it."""

    def values(name: str, tensor: Tensor, i: int) -> np.ndarray:
        k = np.arange(tensor.numel(), dtype=np.int64)
        chirp = np.sin(2 * np.pi * ((k * k) % 10007) / 10007 + i)
        if name.endswith("running_var"):
            return 1 + 0.5 * np.abs(chirp)
        if tensor.ndim > 1:
            return 1.5 / np.sqrt(tensor.numel() / tensor.shape[0]) * chirp
        return 1 + 0.1 * chirp if name.endswith("weight") else 0.05 * chirp

    return _filled(shapes, values)


def _filled(
    shapes: Mapping[str, Tensor], values: Callable[[str, Tensor, int], np.ndarray]
) -> dict[str, Tensor]:
    floats = sorted(name for name, tensor in shapes.items() if tensor.is_floating_point())
    made = {
        name: torch.from_numpy(values(name, shapes[name], i).astype(np.float32)).reshape(shapes[name].shape)
        for i, name in enumerate(floats)
    }
    return dict(shapes) | made


def sine_input(*shape: int, phase: float) -> Tensor:
    """.5 + .5 sin(.11 k + phase), float32."""
    values = 0.5 + 0.5 * np.sin(0.11 * np.arange(np.prod(shape)) + phase)
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)
