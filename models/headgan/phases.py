"""HeadGAN's training phases as values, each number with its source. S = the paper's supplement, C = the
authors' code.

S tells the losses and no schedule, so that is C's: Adam at a constant rate, then a linear fall. C counts
epochs, six and four, over sequences whose frames it renders one by one, 6 to 48 of them: on VoxCeleb that
would be tens of millions of steps. Nothing is handed on from frame to frame, so here single frames are drawn,
and the budget is one of steps: 320,000, a quarter of them the fall.
"""

from __future__ import annotations

from models.api import Loss, Optimizer, Phase, Schedule, Update

STEPS, DECAY_STEPS = 240_000, 80_000
GENERATOR_PARTS = ("flow_network", "rendering_network")
DISCRIMINATOR_PARTS = ("image_discriminator", "mouth_discriminator")


def _updates() -> dict[str, Update | None]:
    generator: dict[str, Loss | None] = {
        "l1": Loss(50.0), "perceptual": Loss(10.0), "l1_warped": Loss(50.0), "perceptual_warped": Loss(10.0),
        "mask": None,  # C: 10, of a net with a mask head
        "gan": Loss(1.0), "gan_mouth": Loss(1.0),
        "feature_matching": Loss(10.0), "feature_matching_mouth": Loss(10.0),
    }  # S (6)  # fmt: skip
    return {
        "generator": Update(parts=dict.fromkeys(GENERATOR_PARTS, 1.0), losses=generator),
        "discriminator": Update(
            parts=dict.fromkeys(DISCRIMINATOR_PARTS, 1.0),
            optimizer="d",
            losses={
                "discriminator": Loss(1.0),
                "discriminator_mouth": Loss(1.0),
            },  # S; C halves the second
            every=4,  # C
        ),
    }


CONSTANT_OPTIMIZER = Optimizer(lr=2e-4, betas=(0.5, 0.999))  # C, for both sides
DECAYING_OPTIMIZER = Optimizer(lr=2e-4, betas=(0.5, 0.999), schedule=Schedule(linear_decay_steps=DECAY_STEPS))

ADVERSARIAL_PHASE = Phase(
    name="adversarial",
    steps=STEPS,
    batch=6,  # C
    chunk=2,  # three workers can share it; it hardly shows: spectral norms move on once a chunk
    optimizers={"g": CONSTANT_OPTIMIZER, "d": CONSTANT_OPTIMIZER},
    updates=_updates(),
)

DECAY_PHASE = Phase(
    name="decay",
    init="adversarial",
    resume_optimizers=True,  # C trains on without a cut
    steps=DECAY_STEPS,  # C: four epochs of ten, of which the last has rate 0
    batch=6,
    chunk=2,
    optimizers={"g": DECAYING_OPTIMIZER, "d": DECAYING_OPTIMIZER},
    updates=_updates(),
)

PHASES: dict[str, Phase] = {phase.name: phase for phase in (ADVERSARIAL_PHASE, DECAY_PHASE)}
