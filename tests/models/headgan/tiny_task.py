"""HeadGAN's step on nets of thousands of parameters and a head of our own making: what its tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from models.headgan.config import (
    Architecture,
    AudioFeatureConfig,
    DiscriminatorConfig,
    ReconstructionLossConfig,
)
from models.headgan.task import HeadGanTask
from models.perception.head.default_head import get_analytic_head
from tests.models.one_clip import tables

NET = Architecture(image_size=32, width=4, hidden=8, audio=5)
DISCRIMINATORS = DiscriminatorConfig(width=4, max_width=8, mouth_size=16)


def build(
    vgg: Any = None,
    net: Architecture = NET,
    discriminators: DiscriminatorConfig = DISCRIMINATORS,
    **more: Any,
) -> HeadGanTask:
    torch.manual_seed(0)
    settings = {
        "terms": ReconstructionLossConfig(), "head": "analytic_head", "hearing": AudioFeatureConfig(),
        "identity": "clip_mean", "shading": "smooth", "recompute": False,
    }  # fmt: skip
    task = HeadGanTask(net, discriminators, **(settings | more))
    task.set_frozen_nets({"analytic_head": get_analytic_head()} | ({} if vgg is None else {vgg.name: vgg}))
    return task


def sample_batch(
    task: HeadGanTask, clip: Any, size: int = 2, training: bool = True
) -> dict[str, torch.Tensor]:
    samples = [task.sample(np.random.default_rng(i), tables(clip), training) for i in range(size)]
    return {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}  # pyright: ignore


def gradients(task: HeadGanTask, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    task.net.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in task.net.named_parameters() if p.grad is not None}
