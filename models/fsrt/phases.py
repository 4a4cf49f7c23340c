"""FSRT's training phases as values, each number with its source. S = the paper's supplement, C = the authors'
code.
"""

from __future__ import annotations

from models.api import Adversary, Optim, Phase

DETECTOR, RENDERER = ("kp_detector",), ("expression_encoder", "encoder", "decoder")
KEYPOINTS = Phase(
    # Ours: the paper freezes FOMM's detector. With no released weights at hand this phase distils one from
    # the data's own 68 landmarks; checkpoints and reports name it "distilled".
    name="keypoints",
    steps=20_000,
    batch=48,
    chunk=16,  # three workers can share it
    train=DETECTOR,
    optim=Optim(lr=2e-4, warmup=500, decay=0.1, decay_steps=20_000),
    losses={"position": 1.0, "heatmap": 0.01},
)


CLOCK = Optim(lr=1e-4, warmup=2_500, decay=0.16, decay_steps=4_000_000, start=None)
"""C: one schedule for all phases, the discriminator's Adam too."""

WARMUP = Phase(
    name="warmup",
    start_from="keypoints",
    steps=200_000,  # S 7.2: a warm-up without perceptual and adversarial losses is essential
    batch=24,  # S 7.2: 8 in total was unstable
    chunk=8,  # 8 samples on each of 3 GPUs: covariance over 16 expression vectors
    train=RENDERER,
    optim=CLOCK,
    losses={"pixel": 1.0, "invariance": 1.0, "variance": 0.2, "covariance": 1.0},  # C
)

IMAGES: dict[str, float | None] = {
    "pixel": 1.0, "perceptual": 0.01, "invariance": 1.0, "variance": 0.2, "covariance": 1.0,
}  # C  # fmt: skip
"""Weights of both phases on whole images."""

PERCEPTUAL = Phase(
    name="perceptual",
    start_from="warmup",
    carry=True,  # C trains on without a cut: Adam's moments, and with them the learning rate's clock
    steps=300_000,  # C: iterations 200,000 to 499,999
    batch=24,
    chunk=8,
    train=RENDERER,
    optim=CLOCK,
    losses=IMAGES,
)

ADVERSARIAL = Phase(
    name="adversarial",
    start_from="perceptual",
    carry=True,
    # The end is open in C (a cap of 4,000,000 that was never reached; they stopped by validation scores and
    # by eye). Half a million steps end at iteration 1,000,000: about what 23 days on 3 A100 (S) can have
    # held at this cost a step. The schedule does not know the budget, so it can be raised later.
    steps=500_000,
    batch=24,
    chunk=8,
    train=RENDERER,
    optim=CLOCK,
    losses=IMAGES,
    adversary=Adversary(
        train=("discriminator",),
        optim=CLOCK,
        losses={"discriminator": 1e-3},  # C
        fools={"gan": 1e-3, "feature_matching": 1e-2},  # C
        alone=500,  # S 7.2: without it the judge's first, meaningless verdicts spoil the generator
    ),
)

PHASES: dict[str, Phase] = {phase.name: phase for phase in (KEYPOINTS, WARMUP, PERCEPTUAL, ADVERSARIAL)}
