"""A net of one number that learns to paint a grey: whole phases in hundredths of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace
from torch import nn

from models.api import EmaSettings, Loss, Optimizer, Phase
from models.task import StatelessTask, ValidationOutput
from pipelines.dataset.sampler import SplitClips
from pipelines.train.job import TrainJobSpec
from tests.models.one_pass import one_update

SIDE = 16
FAST = Optimizer(lr=0.1)  # it overshoots, so that the best step is seldom the last
PHASE = one_update(
    parts=("painter",), steps=12, batch=2, optimizer=FAST, losses={"pixel": Loss(1.0)}, validate_every=3,
    ema={"painter": EmaSettings(decay=0.5)},
)  # fmt: skip


class Grey(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))


class Painter(StatelessTask):
    def __init__(self) -> None:
        self.net = nn.ModuleDict({"painter": Grey()})

    @property
    def grey(self) -> torch.Tensor:
        return self.net["painter"].value  # pyright: ignore[reportReturnType]

    def provenance(self) -> dict[str, str]:
        return {}

    def architecture_metadata(self) -> dict[str, Any]:
        return {"model": "painter"}

    def sample(self, rng: np.random.Generator, tables: Any, training: bool) -> dict[str, np.ndarray]:
        tables["clips"].pick_clip(rng)
        return {"wanted": np.float32(0.4 + 0.2 * rng.random())}

    def losses(self, batch: dict[str, torch.Tensor], step: Any) -> dict[str, Any]:
        return {"pixel": lambda: (self.grey - batch["wanted"]).square().mean()}

    def validation_step(self, batch: dict[str, torch.Tensor]) -> ValidationOutput:
        wanted = batch["wanted"]
        pictures = {
            "source": torch.zeros_like(wanted),
            "driving": wanted,
            "output": self.grey.expand_as(wanted),
        }
        shown = {name: painted(values) for name, values in pictures.items()}
        return ValidationOutput(row=shown["output"], **shown)


def painted(greys: torch.Tensor) -> np.ndarray:
    """(B,) in [0,1] -> (B,S,S,3) uint8"""
    values = (greys.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return np.tile(values[:, None, None, None], (1, SIDE, SIDE, 3))


class Frames:
    """Two clips of four frames each."""

    def frame_count(self, key: str) -> int:
        return 4


def job(folder: Path, phase: Phase = PHASE, **more: Any) -> TrainJobSpec:
    """A job whose work folder is `folder`."""
    corpus = SplitClips(Frames(), {}, (("a",), ("b",)))  # pyright: ignore[reportArgumentType]
    made = TrainJobSpec(
        node="train.painter.toy", phase=phase, build=Painter, nets=dict, features=None,
        train={"clips": corpus}, held_out=None, seed=0, precision="fp32", scratch=str(folder),
        log_every=1, checkpoint_every=2, threads=1,
    )  # fmt: skip
    return replace(made, **more)
