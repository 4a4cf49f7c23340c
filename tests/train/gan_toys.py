"""Two published trainings in the small, written as updates: StyleGAN2-ADA's step and e4e's.

Nets of a few numbers; what they do with updates, noise, regularisers and state is the real thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.api import BestCriterion, EmaSettings, Loss, Optimizer, Phase, Update
from models.task import StatelessTask, TrainStep, ValidationOutput
from pipelines.dataset.sampler import SplitClips
from pipelines.train.job import TrainJobSpec
from tests.train.toy import Frames

LATENT, PIXELS, POOL = 4, 3, 8
Losses = Mapping[str, Callable[[], Tensor]]


# --- StyleGAN2-ADA: four updates on two optimizers ----------------------------------------------------------
STYLEGAN = Phase(
    name="stylegan", steps=34, batch=4, chunk=2, validate_every=17, validation_samples=4,
    optimizers={
        "g": Optimizer(lr=0.02, betas=(0.0, 0.99), lazy=4),
        "d": Optimizer(lr=0.02, betas=(0.0, 0.99), lazy=16),
    },
    updates={
        "generator": Update(
            parts={"mapping": 0.5, "generator": 1.0}, losses={"gan": Loss(1.0)}, own_forward=True
        ),
        "path_length": Update(
            parts={"mapping": 0.5, "generator": 1.0}, losses={"path_length": Loss(2.0 * 4)}, every=4,
            own_forward=True,
        ),
        "discriminator": Update(
            parts={"discriminator": 1.0}, optimizer="d", losses={"logistic": Loss(1.0)}, own_forward=True
        ),
        "r1": Update(
            parts={"discriminator": 1.0}, optimizer="d", losses={"r1": Loss(5.0 * 16)}, every=16,
            own_forward=True,
        ),
    },
    ema=dict.fromkeys(("mapping", "generator"), EmaSettings(half_life_images=20, ramp=0.5)),
    best=BestCriterion(figure="mean_gap", highest=False),
)  # fmt: skip


class StyleGanTask(StatelessTask):
    """Real samples are drawn, not read: no table. State: the augmentation's probability and the mean path
    length.
    """

    def __init__(self) -> None:
        self.net = nn.ModuleDict({
            "mapping": nn.Linear(LATENT, LATENT),
            "generator": nn.Linear(LATENT, PIXELS),
            "discriminator": nn.Sequential(nn.Linear(PIXELS, 8), nn.Softplus(), nn.Linear(8, 1)),
        })  # fmt: skip
        self.probability, self.mean_length = torch.zeros(()), torch.zeros(())

    def sample(self, rng: np.random.Generator, tables: Any, training: bool) -> dict[str, np.ndarray]:
        assert not tables
        return {"real": rng.normal(1.0, 0.2, PIXELS).astype(np.float32)}

    def losses(self, batch: dict[str, Tensor], step: TrainStep) -> Losses:
        real = batch["real"].requires_grad_(step.update == "r1")
        z = torch.randn(len(real), LATENT, generator=step.generator)
        w = self.net["mapping"](z)
        fake = self.net["generator"](w)

        def logistic() -> Tensor:
            logits = self.discriminate(real, step)
            step.record_for_state_update("sign", logits.sign().mean())
            return (F.softplus(-logits) + F.softplus(self.discriminate(fake.detach(), step))).mean()

        return {
            "gan": lambda: F.softplus(-self.discriminate(fake, step)).mean(),
            "path_length": lambda: self.path_length(w, fake, step),
            "logistic": logistic,
            "r1": lambda: self.penalty(real, step),
        }

    def discriminate(self, images: Tensor, step: TrainStep) -> Tensor:
        flipped = torch.rand(len(images), 1, generator=step.generator) < self.probability
        return self.net["discriminator"](torch.where(flipped, -images, images))

    def path_length(self, w: Tensor, fake: Tensor, step: TrainStep) -> Tensor:
        noise = torch.randn(fake.shape, generator=step.generator)
        (gradient,) = torch.autograd.grad((fake * noise).sum(), w, create_graph=True)
        lengths = gradient.square().sum(1).sqrt()
        step.record_for_state_update("length", lengths.mean())
        return (lengths - self.mean_length.lerp(lengths.mean(), 0.1)).square().mean()

    def penalty(self, real: Tensor, step: TrainStep) -> Tensor:
        logits = self.discriminate(real, step)
        (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        return gradient.square().sum(1).mean()

    def update_state(self, step: int, update: str, records: Sequence[Mapping[str, Tensor]]) -> None:
        if update == "discriminator":
            sign = torch.stack([one["sign"] for one in records]).mean() - 0.6
            self.probability = (self.probability + 0.05 * sign.sign()).clamp(0, 1)
        if update == "path_length":
            self.mean_length = self.mean_length.lerp(
                torch.stack([one["length"] for one in records]).mean(), 0.1
            )

    def state(self) -> dict[str, Tensor]:
        return {"probability": self.probability, "mean_length": self.mean_length}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self.probability, self.mean_length = tensors["probability"], tensors["mean_length"]

    def validation_step(self, batch: dict[str, Tensor]) -> ValidationOutput:
        fake = self.net["generator"](self.net["mapping"](torch.ones(len(batch["real"]), LATENT)))
        states = {"real": batch["real"].sum(0), "fake": fake.sum(0), "count": torch.tensor(len(fake))}
        return ValidationOutput(row=np.zeros((len(fake), 8, 8, 3), np.uint8), states=states)

    def validation_metrics(self, states: Mapping[str, Tensor]) -> dict[str, float]:
        return {"mean_gap": float((states["real"] - states["fake"]).norm() / states["count"])}

    def provenance(self) -> dict[str, str]:
        return {}

    def architecture_metadata(self) -> dict[str, Any]:
        return {"model": "stylegan"}


# --- e4e: an encoder that grows, against a discriminator of latent codes ------------------------------------
E4E = Phase(
    name="e4e", steps=20, batch=4, chunk=2, validate_every=20,
    optimizers={
        "ranger": Optimizer(kind="ranger", lr=0.01, betas=(0.95, 0.999), eps=1e-5),
        "d": Optimizer(lr=0.01),
    },
    updates={
        "latent_discriminator": Update(
            parts={"latent_discriminator": 1.0}, optimizer="d", losses={"latent_logistic": Loss(1.0)},
            own_forward=True,
        ),
        "encoder": Update(
            parts={"encoder": 1.0}, optimizer="ranger",
            losses={
                "reconstruction": Loss(1.0), "latent_gan": Loss(0.1, start=2, ramp=6), "delta": Loss(0.01),
            },
        ),
    },
    best=None,
)  # fmt: skip


class E4eTask(StatelessTask):
    """The encoder's deltas join one by one, every fourth step; until then they get no gradient. State: a pool
    of codes that the discriminator is shown again.
    """

    def __init__(self) -> None:
        encoder = {
            "base": nn.Linear(PIXELS, LATENT), "dropout": nn.Dropout(0.2),
            "deltas": nn.ModuleList(nn.Linear(PIXELS, LATENT) for _ in range(3)),
        }  # fmt: skip
        self.net = nn.ModuleDict({
            "encoder": nn.ModuleDict(encoder),
            "latent_discriminator": nn.Sequential(nn.Linear(LATENT, 8), nn.Softplus(), nn.Linear(8, 1)),
        })  # fmt: skip
        self.decoder = nn.Linear(LATENT, PIXELS).requires_grad_(False)  # as a released generator would be
        self.pool = torch.zeros(0, LATENT)

    def sample(self, rng: np.random.Generator, tables: Any, training: bool) -> dict[str, np.ndarray]:
        tables["clips"].pick_clip(rng)
        return {"image": rng.normal(size=PIXELS).astype(np.float32)}

    def encode(self, image: Tensor, stage: int) -> tuple[Tensor, Tensor]:
        """-> codes, and the sizes of the deltas that take part"""
        encoder: Any = self.net["encoder"]
        deltas = [delta(image) for delta in encoder["deltas"][:stage]]
        code = encoder["base"](encoder["dropout"](image)) + sum(deltas)
        return code, torch.stack([delta.square().mean() for delta in deltas] or [code.new_zeros(())]).sum()

    def losses(self, batch: dict[str, Tensor], step: TrainStep) -> Losses:
        with torch.set_grad_enabled(torch.is_grad_enabled() and step.update == ""):
            code, deltas = self.encode(batch["image"], min(3, (step.number - 1) // 4))
        discriminator = self.net["latent_discriminator"]

        def logistic() -> Tensor:
            step.record_for_state_update("codes", code)
            shown = torch.cat([self.pool, code])
            fake = shown[torch.randint(len(shown), (len(code),), generator=step.generator)]
            real = torch.randn(len(code), LATENT, generator=step.generator)
            return (F.softplus(discriminator(fake)) + F.softplus(-discriminator(real))).mean()

        return {
            "latent_logistic": logistic,
            "reconstruction": lambda: (self.decoder(code) - batch["image"]).square().mean(),
            "latent_gan": lambda: F.softplus(-discriminator(code)).mean(),
            "delta": lambda: deltas,
        }

    def update_state(self, step: int, update: str, records: Sequence[Mapping[str, Tensor]]) -> None:
        self.pool = torch.cat([self.pool, *(one["codes"] for one in records)])[-POOL:]

    def state(self) -> dict[str, Tensor]:
        return {"pool": self.pool}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self.pool = tensors["pool"]

    def validation_step(self, batch: dict[str, Tensor]) -> ValidationOutput:
        return ValidationOutput(row=np.zeros((len(batch["image"]), 8, 8, 3), np.uint8))

    def provenance(self) -> dict[str, str]:
        return {}

    def architecture_metadata(self) -> dict[str, Any]:
        return {"model": "e4e"}


def job(folder: Path, phase: Phase) -> TrainJobSpec:
    """A job of either, in a work folder of its own below `folder`."""
    tables = {"e4e": {"clips": SplitClips(Frames(), {}, (("a",), ("b",)))}, "stylegan": {}}  # pyright: ignore
    return TrainJobSpec(
        node=f"train.toy.{phase.name}", phase=phase,
        build=partial(StyleGanTask if phase.name == "stylegan" else E4eTask), nets=dict, features=None,
        train=tables[phase.name], held_out=None, seed=0, precision="fp32", scratch=str(folder / phase.name),
        log_every=3, checkpoint_every=5, threads=1,
    )  # fmt: skip
