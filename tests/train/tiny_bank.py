"""A model without clips: a generator, a bank of what it makes of seeds, a phase that learns from the bank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec import Struct, field
from msgspec.structs import replace
from torch import nn

from models.api import Phase
from models.checkpoint import read_checkpoint
from models.model_config import ModelConfig
from models.spec import CheckpointUse, ClipPairTable, ModelNodeSpec, ModelSpec, SeedTable, TaskSpec
from models.task import StatelessTask, ValidationOutput
from tests.models.one_pass import one_update

PHASES = {
    "generator": one_update("generator", ("generator",), steps=2, batch=2, best=None),
    "directions": one_update("directions", ("direction",), steps=2, batch=2, best=None, validation_samples=4),
}


class Bank(Struct, frozen=True, kw_only=True):
    blocks: int = 3
    block_size: int = 4


class Config(ModelConfig, frozen=True, kw_only=True):
    phases: dict[str, Phase | None] = field(default_factory=lambda: dict(PHASES))
    bank: Bank = field(default_factory=Bank)
    keypoints: str = "main"


class Task(StatelessTask):
    """A net of one number a part, which reads nothing."""

    part = "generator"

    def __init__(self) -> None:
        self.net = nn.ModuleDict({self.part: nn.Linear(1, 1)})

    def sample(self, rng: np.random.Generator, tables: Any, training: bool) -> dict[str, np.ndarray]:
        return {"codes": rng.standard_normal((1, 2)).astype(np.float32)}

    def losses(self, batch: dict[str, torch.Tensor], step: Any) -> dict[str, Any]:
        return {"l1": lambda: self.net[self.part](batch["codes"][..., 1:]).abs().mean()}

    def validation_step(self, batch: dict[str, torch.Tensor]) -> ValidationOutput:
        seeds = batch["codes"][..., 0]
        picture = np.zeros((len(seeds), 8, 8, 3), np.uint8)
        return ValidationOutput(row=picture, scores={"first": float(seeds.min()), "last": float(seeds.max())})

    def architecture_metadata(self) -> dict[str, Any]:
        return {"model": "tiny", "architecture": {}}


class DirectionTask(Task):
    """It samples two codes of the bank: that of the seed of this turn, and any other."""

    part = "direction"

    def sample(self, rng: np.random.Generator, tables: Any, training: bool) -> dict[str, np.ndarray]:
        bank = tables["bank"]
        other = bank[bank.keys[int(rng.integers(len(bank.keys)))]]
        return {"codes": np.concatenate([bank.pick_clip(rng).read_field("codes"), other.read_field("codes")])}


def load(files: Mapping[str, Path]) -> nn.Module:
    net = nn.ModuleDict({"generator": nn.Linear(1, 1)})
    net.load_state_dict(read_checkpoint(files["net"]).tensors)
    return net["generator"]


def synthesize(inputs: Any, config: Any, nets: Mapping[str, Any], runtime: Any) -> Iterator[dict[str, Any]]:
    """Of each seed of a block its code (1,2)."""
    (block,) = inputs["seeds"]
    for seed in range(block["first"], block["first"] + block["count"]):
        z = torch.randn(1, 1, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            code = torch.cat([torch.full((1, 1), float(seed)), nets["generator"](z)], 1)
        yield {"__key__": f"seed-{seed:09d}", "codes": code.numpy()}


BANK = ModelNodeSpec(
    run="tests.train.tiny_bank:synthesize", units="seeds", reads={"seeds": ("first", "count")},
    writes=("codes",),
    uses={"generator": CheckpointUse("tests.train.tiny_bank:load", {"net": "generator"})},
)  # fmt: skip
SWAP = ModelNodeSpec(
    run="tests.train.tiny_bank:synthesize", units="clip_pairs", writes=("codes",),
    reads={"clip_pairs": ("source_clip", "driving_clip"), "keypoints": ("landmarks",)},
)  # fmt: skip
TASK = TaskSpec(task="tests.train.tiny_bank:Task", settings=("seed", "precision"))
DIRECTIONS = replace(TASK, task="tests.train.tiny_bank:DirectionTask", tables={"bank": ("bank",)})
SPEC = ModelSpec(
    name="tiny", config=Config, phases=PHASES, tasks={"generator": TASK, "directions": DIRECTIONS},
    parts=lambda config, phase: (phase.trainable_parts[0],),
    reads=lambda config, phase: {"bank": ("codes",)} if phase.name == "directions" else {},
    nodes=lambda config: {"bank": BANK, "swap": SWAP},
    unit_tables={
        "seeds": SeedTable(blocks="bank.blocks", block_size="bank.block_size"),
        "clip_pairs": ClipPairTable(seed="seed", rounds="bank.blocks", families=("clips", "keypoints")),
    },
    inference="tests.train.tiny_bank:Task", driving_reads=lambda config: {"clips": ("frames",)},
)  # fmt: skip
