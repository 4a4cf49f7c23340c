"""Weights and inputs of tests/golden/headgan.json (its `conventions`), and nets small enough for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from models.headgan.conditions import FaceRenderer
from models.headgan.config import Architecture
from models.headgan.motion import parse_head_motion_arrays, read_clip_head_motion
from models.headgan.released import PUBLISHED_SUFFIXES, to_our_name, to_published_name
from models.perception.head.default_head import get_analytic_head

A, B = "A_sin_raw_uv", "B_quad_svd_uv"
TOLERANCE = {A: 1e-6, B: 1e-9}


def inp(shape: tuple[int, ...], k: int, low: float, high: float) -> torch.Tensor:
    steps = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    return (low + (high - low) * (0.5 + 0.5 * torch.sin(0.11 * steps + k))).view(shape)


def coordinates(shape: tuple[int, ...], k: int) -> torch.Tensor:
    return inp(shape, k, 0.0, 1.0)


def rgb(shape: tuple[int, ...], k: int) -> torch.Tensor:
    return inp(shape, k, -1.0, 1.0)


def values(scheme: str, count: int, index: int) -> np.ndarray:
    n = np.arange(count, dtype=np.int64)
    if scheme == A:
        return 0.05 * np.sin(0.37 * n + index)
    return 0.05 * (2 * ((31 * n * n + 17 * n + 101 * index) % 65537) / 65536 - 1)


def leading(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """u and v of the largest singular value of a convolution's weight."""
    matrix = weight.flatten(1)
    u = torch.linalg.eigh(matrix @ matrix.T).eigenvectors[:, -1]
    v = matrix.T @ u
    return u, v / v.norm()


def state(scheme: str, shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Tensors by their names; indices run over the names as they sort them."""
    tensors = {}
    for i, name in enumerate(sorted(shapes)):
        one = values(scheme, int(np.prod(shapes[name])), i)
        if name.endswith(PUBLISHED_SUFFIXES[1:]):
            one = one / np.linalg.norm(one)
        tensors[name] = torch.from_numpy(one).view(shapes[name])
    if scheme == B:
        for name in [name for name in tensors if name.endswith(PUBLISHED_SUFFIXES[0])]:
            stem = name.removesuffix(PUBLISHED_SUFFIXES[0])
            tensors[stem + PUBLISHED_SUFFIXES[1]], tensors[stem + PUBLISHED_SUFFIXES[2]] = leading(
                tensors[name]
            )
    return tensors


def filled(make: Callable[[], nn.Module], scheme: str = B) -> nn.Module:
    """The net in float64 and eval mode, with the weights of the figures."""
    net = make().double().eval()
    shapes = {to_published_name(name): list(tensor.shape) for name, tensor in net.state_dict().items()}
    net.load_state_dict({to_our_name(name): tensor for name, tensor in state(scheme, shapes).items()})
    return net


def check(tensor: torch.Tensor, expected: dict, scheme: str = B) -> None:
    x = tensor.detach().double().contiguous().numpy()
    close = TOLERANCE[scheme]
    assert list(x.shape) == expected["shape"]
    flat = x.reshape(-1)
    for name, value in (("mean", x.mean()), ("std_pop", x.std()), ("l2", np.linalg.norm(flat))):
        np.testing.assert_allclose(value, expected[name], rtol=close, atol=close, err_msg=name)
    np.testing.assert_allclose(flat[:16], expected["first16"], rtol=close, atol=close)
    np.testing.assert_allclose(flat[-4:], expected["last4"], rtol=close, atol=close)


@pytest.fixture(scope="session")
def golden() -> SimpleNamespace:
    """`figures` of the file, and the functions that make its weights and inputs."""
    figures = json.loads((Path(__file__).parents[2] / "golden" / "headgan.json").read_text())
    return SimpleNamespace(
        figures=figures, coordinates=coordinates, rgb=rgb, state=state, filled=filled, check=check
    )


@pytest.fixture(scope="session")
def nano() -> Architecture:
    """16 px, some ten thousand parameters."""
    return Architecture(image_size=16, width=2, hidden=4, audio=5)


class TalkingHead:
    """models.api.Clip in memory: the analytic head turns and talks, its coordinates its colours."""

    def __init__(self, frames: int = 8, side: int = 64, audio: int = 5) -> None:
        head, at = get_analytic_head(), np.linspace(-1, 1, frames)
        expression = np.zeros((frames, head.n_exp))
        expression[:, 0] = 1 + np.cos(9 * at)
        motion = parse_head_motion_arrays(
            {
                "scale": np.full(frames, side / 3.6),
                "translation": np.stack([side * (0.5 + 0.06 * at), np.full(frames, 0.55 * side), 0 * at], 1),
                "angles": np.stack([4 * at, 25 * at, 0 * at], 1),
                "exp_coeffs": expression,
            },
            head.n_id,
            head.n_exp,
        )
        drawn = FaceRenderer(head, side, full_head=True).render_nmfc(torch.from_numpy(motion.pack())).numpy()
        ground = np.broadcast_to(np.linspace(0.2, 0.6, side), drawn.shape)
        picture = np.where(drawn.sum(1, keepdims=True) > 0, 0.2 + 0.7 * drawn[:, [2, 0, 1]], ground)
        self.key, self.length = "id0#talking#000000#000008", frames
        self.pictures = (picture.transpose(0, 2, 3, 1) * 255).round().astype(np.uint8)
        draw = np.random.default_rng(3)
        self.fields = {
            "id_coeffs": motion.identity[0],
            "id_frames": motion.identity + 0.1 * np.arange(frames, dtype=np.float32)[:, None],
            "exp_coeffs": motion.expression,
            "scale": motion.scale,
            "rotation": motion.rotation,
            "translation": motion.translation,
            "fit_valid": np.ones(frames, bool),
            "speech": draw.random((frames, audio), dtype=np.float32),
            "clip": {"has_sound": True},
        }

    def frames(self, indices):
        return self.pictures[list(indices)]

    def read_field(self, name):
        return self.fields[name]


@pytest.fixture(scope="session")
def talking_head() -> type[TalkingHead]:
    return TalkingHead


@pytest.fixture(scope="session")
def turning() -> SimpleNamespace:
    """Twelve frames of such a clip, 64 px: the `clip`, its `motion` (a HeadMotion) and its exact `landmarks`
    (12,68,2).
    """
    clip = TalkingHead(frames=12)
    motion = read_clip_head_motion(clip.read_field)
    marks = FaceRenderer(get_analytic_head(), 64).project_landmarks(torch.from_numpy(motion.pack()))
    return SimpleNamespace(clip=clip, motion=motion, landmarks=marks.numpy())
