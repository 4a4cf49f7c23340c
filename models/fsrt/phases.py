"""FSRT's training phases as values, each number with its source. S = the paper's supplement, C = the authors'
code.
"""

from __future__ import annotations

from models.api import Loss, Optimizer, Phase, Schedule, Update

DETECTOR_PARTS, RENDERER_PARTS = ("kp_detector",), ("expression_encoder", "encoder", "decoder")
KEYPOINTS_PHASE = Phase(
    # Ours: the paper freezes FOMM's detector. With no released weights at hand this phase distils one from
    # the data's own 68 landmarks; checkpoints and reports name it "distilled".
    name="keypoints",
    steps=20_000,
    batch=48,
    chunk=16,  # three workers can share it
    optimizers={"g": Optimizer(lr=2e-4, schedule=Schedule(warmup=500, decay=0.1, decay_steps=20_000))},
    updates={
        "generator": Update(
            parts=dict.fromkeys(DETECTOR_PARTS, 1.0),
            losses={"position": Loss(1.0), "heatmap": Loss(0.01)},
        )
    },
    best=None,  # it renders nothing
)


HIGHEST_RESOLUTION = "views.vox_max"
"""S 7.2: frames "at the highest resolution possible so that the crop is ideally larger than 256 and no detail
is lost"."""
WARMUP_DECAY_OPTIMIZER = Optimizer(
    lr=1e-4, schedule=Schedule(warmup=2_500, decay=0.16, decay_steps=4_000_000, step_offset=None)
)
"""C: one schedule for all phases, the discriminator's Adam too."""

WARMUP_PHASE = Phase(
    name="warmup",
    init="keypoints",
    steps=200_000,  # S 7.2: a warm-up without perceptual and adversarial losses is essential
    batch=24,  # S 7.2: 8 in total was unstable
    chunk=8,  # 8 samples on each of 3 GPUs: covariance over 16 expression vectors
    frames_from=HIGHEST_RESOLUTION,
    optimizers={"g": WARMUP_DECAY_OPTIMIZER},
    updates={
        "generator": Update(
            parts=dict.fromkeys(RENDERER_PARTS, 1.0),
            losses={
                "pixel": Loss(1.0), "invariance": Loss(1.0), "variance": Loss(0.2), "covariance": Loss(1.0),
            },  # C
        )
    },
)  # fmt: skip

WHOLE_IMAGE_PHASE_LOSSES: dict[str, Loss | None] = {
    "pixel": Loss(1.0), "perceptual": Loss(0.01), "invariance": Loss(1.0), "variance": Loss(0.2),
    "covariance": Loss(1.0),
}  # C  # fmt: skip
"""The terms of both phases on whole images."""

PERCEPTUAL_PHASE = Phase(
    name="perceptual",
    init="warmup",
    resume_optimizers=True,  # C trains on without a cut: Adam's moments, and with them the schedule's steps
    steps=300_000,  # C: iterations 200,000 to 499,999
    batch=24,
    chunk=8,
    frames_from=HIGHEST_RESOLUTION,
    optimizers={"g": WARMUP_DECAY_OPTIMIZER},
    updates={"generator": Update(parts=dict.fromkeys(RENDERER_PARTS, 1.0), losses=WHOLE_IMAGE_PHASE_LOSSES)},
)

ADVERSARIAL_PHASE = Phase(
    name="adversarial",
    init="perceptual",
    resume_optimizers=True,
    # The end is open in C (a cap of 4,000,000 that was never reached; they stopped by validation scores and
    # by eye). Half a million steps end at iteration 1,000,000: about what 23 days on 3 A100 (S) can have
    # held at this cost a step. The schedule does not know the budget, so it can be raised later.
    steps=500_000,
    batch=24,
    chunk=8,
    frames_from=HIGHEST_RESOLUTION,
    optimizers={"g": WARMUP_DECAY_OPTIMIZER, "d": WARMUP_DECAY_OPTIMIZER},
    updates={
        "generator": Update(
            parts=dict.fromkeys(RENDERER_PARTS, 1.0),
            # C; S 7.2: the discriminator learns for 500 steps before the generator sees it
            losses={
                **WHOLE_IMAGE_PHASE_LOSSES, "gan": Loss(1e-3, start=500),
                "feature_matching": Loss(1e-2, start=500),
            },
        ),
        "discriminator": Update(
            parts={"discriminator": 1.0}, optimizer="d", losses={"discriminator": Loss(1e-3)}  # C
        ),
    },
)  # fmt: skip

PHASES: dict[str, Phase] = {
    phase.name: phase for phase in (KEYPOINTS_PHASE, WARMUP_PHASE, PERCEPTUAL_PHASE, ADVERSARIAL_PHASE)
}
