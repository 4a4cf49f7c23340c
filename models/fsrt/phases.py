"""FSRT's training phases as values, each number with its source. S = the paper's supplement, C = the authors'
code.
"""

from __future__ import annotations

from models.api import Optim, Phase

KEYPOINTS = Phase(
    # Ours: the paper freezes FOMM's detector. With no released weights at hand this phase distils one from
    # the data's own 68 landmarks; checkpoints and reports name it "distilled".
    name="keypoints",
    steps=20_000,
    batch=32,
    train=("kp_detector",),
    optim=Optim(lr=2e-4, warmup=500, decay=0.1, decay_steps=20_000),
    losses={"position": 1.0, "heatmap": 0.01},
)

WARMUP = Phase(
    name="warmup",
    start_from="keypoints",
    steps=200_000,  # S 7.2: a warm-up without perceptual and adversarial losses is essential
    batch=24,  # S 7.2: 8 in total was unstable
    chunk=8,  # 8 samples on each of 3 GPUs: covariance over 16 expression vectors
    train=("expression_encoder", "encoder", "decoder"),
    optim=Optim(
        lr=1e-4, warmup=2_500, decay=0.16, decay_steps=4_000_000
    ),  # C; the same clock runs through all phases
    losses={"pixel": 1.0, "invariance": 1.0, "variance": 0.2, "covariance": 1.0},  # C
)

READS = {"clips": ("frames",), "keypoints": ("landmarks",)}
"""Families every phase reads, and their fields."""
TASKS = {"keypoints": "models.fsrt.distil:KeypointTask", "warmup": "models.fsrt.task:ReenactTask"}
"""What computes a phase's losses, built from its settings."""
SETTINGS = {
    "keypoints": ("net.detector", "augment", "seed", "precision"),
    "warmup": ("net", "sampling", "augment", "seed", "precision"),
}
"""The parts of FsrtConfig each phase depends on, besides its own values."""

PHASES: dict[str, Phase] = {phase.name: phase for phase in (KEYPOINTS, WARMUP)}
