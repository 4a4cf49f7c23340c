"""Weights and inputs of tests/golden/fsrt.json (fill scheme B of the official figures), and a net small
enough for tests.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from models.fsrt.config import Architecture
from tests.models.fsrt.architectures import NANO


def u_hash(count: int, index: int) -> np.ndarray:
    x = (np.arange(count, dtype=np.uint64) + (0x9E3779B9 * (index + 1) % 2**32)) % 2**32
    x ^= x >> np.uint64(16)
    x = x * np.uint64(0x7FEB352D) % 2**32
    x ^= x >> np.uint64(15)
    x = x * np.uint64(0x846CA68B) % 2**32
    x ^= x >> np.uint64(16)
    return x.astype(np.float64) / 2**32 * 2 - 1


def inp(shape: tuple[int, ...], k: int, scale: float = 0.5, off: float = 0.5) -> torch.Tensor:
    return torch.from_numpy(off + scale * np.sin(np.arange(np.prod(shape)) * 0.11 + k)).view(shape)


def inp_u(shape: tuple[int, ...], k: int, lo: float = 0.0, hi: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(lo + (hi - lo) * (u_hash(int(np.prod(shape)), 1000 + k) + 1) / 2).view(shape)


def img(shape: tuple[int, ...], k: int) -> torch.Tensor:
    return 0.5 * inp(shape, k) + 0.5 * inp_u(shape, k)


def kpv(shape: tuple[int, ...], k: int) -> torch.Tensor:
    return inp_u(shape, k, -1.2, 1.2)


def vec(shape: tuple[int, ...], k: int) -> torch.Tensor:
    return inp_u(shape, k, -1.7, 1.7)


def hm(shape: tuple[int, ...], k: int) -> torch.Tensor:
    x = img(shape, k)
    return x / x.sum((-2, -1), keepdim=True)


def fill(module: torch.nn.Module) -> torch.nn.Module:
    """Scheme B over the module's floating-point state, sorted by name; the anti-alias kernel keeps its
    values.
    """
    module = module.double().eval()
    state = {k: v for k, v in module.state_dict().items() if v.is_floating_point()}
    for i, name in enumerate(sorted(state)):
        tensor = state[name]
        if name == "down.weight":
            continue
        u = u_hash(tensor.numel(), i)
        if tensor.dim() >= 2:
            u = u * np.sqrt(3 / (tensor.numel() / tensor.shape[0]))
        elif name.endswith("running_var"):
            u = 1 + 0.5 * np.abs(u)
        elif name.endswith(("running_mean", ".bias")):
            u = 0.1 * u
        else:
            u = 1 + 0.1 * u
        tensor.copy_(torch.from_numpy(u).view(tensor.shape))
    return module


def check(tensor: torch.Tensor, expected: dict) -> None:
    x = tensor.detach().double().contiguous().numpy()
    assert list(x.shape) == expected["shape"]
    flat = x.reshape(-1)
    for name, value in (("mean", x.mean()), ("std", x.std()), ("l2", np.linalg.norm(flat))):
        np.testing.assert_allclose(value, float(expected[name]), rtol=1e-8, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(flat[:16], np.array(expected["first16"], float), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(flat[-4:], np.array(expected["last4"], float), rtol=1e-8, atol=1e-9)


@pytest.fixture(scope="session")
def golden() -> SimpleNamespace:
    """`figures` of the file, and the functions that make its weights and inputs."""
    figures = json.loads((Path(__file__).parents[2] / "golden" / "fsrt.json").read_text())
    return SimpleNamespace(
        figures=figures, u_hash=u_hash, inp_u=inp_u, img=img, kpv=kpv, vec=vec, hm=hm, fill=fill, check=check
    )


@pytest.fixture(scope="session")
def nano() -> Architecture:
    return NANO


@pytest.fixture(scope="session")
def plain() -> ModuleType:
    """plain.py, the formulation the net must equal."""
    spec = importlib.util.spec_from_file_location("plain", Path(__file__).parent / "plain.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FakeClip:
    """models.api.Clip over random frames; remembers which frames were read."""

    def __init__(self, length: int = 9, side: int = 64) -> None:
        rng = np.random.default_rng(0)
        self.key, self.length, self.side = "ann#v1#000000#000009", length, side
        self.images = rng.integers(0, 256, (length, side, side, 3), dtype=np.uint8)
        self.landmarks = (side * (0.3 + 0.4 * rng.random((length, 68, 2)))).astype(np.float32)
        self.asked: list[list[int]] = []

    def frames(self, indices) -> np.ndarray:
        self.asked.append(list(indices))
        return self.images[list(indices)]

    def read_field(self, name: str) -> np.ndarray:
        assert name == "landmarks"
        return self.landmarks

    def read_points(self, name: str, indices) -> np.ndarray:
        return self.read_field(name)[list(indices)]


@pytest.fixture
def clip() -> FakeClip:
    return FakeClip()
