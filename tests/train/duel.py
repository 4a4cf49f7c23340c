"""A generator against a discriminator, one number each: the smallest training with two sides.

The generator makes x = maker; the discriminator's output is discriminator * x.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace
from torch import nn

from models.api import Loss, Optimizer, Phase, Update
from models.task import StatelessTask
from pipelines.dataset.sampler import SplitClips
from pipelines.train import loop
from pipelines.train.distributed import DistributedContext
from pipelines.train.job import TrainJobSpec
from pipelines.train.state import TrainState
from tests.train.toy import Frames

RATE = Optimizer(lr=0.1)
CPU = DistributedContext(torch.device("cpu"))
DISCRIMINATOR = Update(parts={"discriminator": 1.0}, optimizer="d", losses={"prediction": Loss(1.0)})


class Number(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))


class Duel(StatelessTask):
    def __init__(self, both: bool) -> None:
        self.net = nn.ModuleDict({"maker": Number(1.0)} | ({"discriminator": Number(3.0)} if both else {}))

    def provenance(self) -> dict[str, str]:
        return {}

    def architecture_metadata(self) -> dict[str, Any]:
        return {"model": "duel"}

    def sample(self, rng: np.random.Generator, tables: Any, training: bool) -> dict[str, np.ndarray]:
        tables["clips"].pick_clip(rng)
        return {"wanted": np.float32(rng.random())}

    def losses(self, batch: dict[str, torch.Tensor], step: Any) -> dict[str, Any]:
        made = self.net["maker"].value
        return {
            "pixel": lambda: (made - batch["wanted"]).square().mean(),
            "fool": lambda: (1 - self.net["discriminator"].value.detach() * made) ** 2,
            "prediction": lambda: (self.net["discriminator"].value * made.detach()) ** 2,
        }


def job(folder: Any, phase: Phase) -> TrainJobSpec:
    corpus = SplitClips(Frames(), {}, (("a",), ("b",)))  # pyright: ignore[reportArgumentType]
    return TrainJobSpec(
        node="train.duel.toy", phase=phase, build=partial(Duel, len(phase.active_updates) > 1), nets=dict,
        features=None, train={"clips": corpus}, held_out=None, seed=0, precision="fp32", scratch=str(folder),
        log_every=1, checkpoint_every=2, threads=1,
    )  # fmt: skip


def phase(steps: int, discriminator: Update | None = DISCRIMINATOR, **more: Any) -> Phase:
    """The discriminator learns alone for two steps; None = without one."""
    losses: dict[str, Loss | None] = {"pixel": Loss(1.0)}
    if discriminator:
        losses["fool"] = Loss(2.0, start=2)
    updates = {"generator": Update(parts={"maker": 1.0}, losses=losses), "discriminator": discriminator}
    values = {"name": "toy", "batch": 2, "optimizers": {"g": RATE, "d": replace(RATE, lr=0.01)}, "best": None}
    return Phase(steps=steps, updates=updates, **(values | more))


def trained(folder: Any, phase: Phase, begin: Any = None) -> tuple[TrainState, list[dict[str, float]]]:
    """A phase run without logs and files -> its state, and the figures of each step."""
    state = TrainState(job(folder, phase), torch.device("cpu"))
    if begin is not None:
        begin(state)
    return state, [state.meters.mean(1) for _ in loop.run_steps(state.job, state, CPU)]


def value(state: TrainState, part: str) -> float:
    return float(state.net.state_dict()[f"{part}.value"])
