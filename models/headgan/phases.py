"""HeadGAN's training phases as values, each number with its source. S = the paper's supplement, C = the
authors' code.

S tells the losses and no schedule, so that is C's: Adam at a constant rate, then a linear fall. C counts
epochs, six and four, over sequences whose frames it renders one by one, 6 to 48 of them: on VoxCeleb that
would be tens of millions of steps. Nothing is handed on from frame to frame, so here single frames are drawn,
and the budget is one of steps: 320,000, a quarter of them the fall.
"""

from __future__ import annotations

from models.api import Adversary, Optim, Phase

STEPS, FALL = 240_000, 80_000
GENERATOR = ("flow_network", "rendering_network")
DISCRIMINATORS = ("image_discriminator", "mouth_discriminator")


def _losses() -> dict[str, float | None]:
    return {
        "l1": 50.0, "perceptual": 10.0, "l1_warped": 50.0, "perceptual_warped": 10.0,  # S (6)
        "mask": None,  # C: 10, of a net with a mask head
    }  # fmt: skip


def _adversary(optim: Optim) -> Adversary:
    return Adversary(
        train=DISCRIMINATORS,
        optim=optim,
        losses={"discriminator": 1.0, "discriminator_mouth": 1.0},  # S; C halves the second
        fools={"gan": 1.0, "gan_mouth": 1.0, "feature_matching": 10.0, "feature_matching_mouth": 10.0},  # S
        every=4,  # C
    )


CONSTANT = Optim(lr=2e-4, betas=(0.5, 0.999))  # C, for both sides
FALLING = Optim(lr=2e-4, betas=(0.5, 0.999), fall=FALL)

ADVERSARIAL = Phase(
    name="adversarial",
    steps=STEPS,
    batch=6,  # C
    chunk=2,  # three workers can share it; it hardly shows: spectral norms move on once a chunk
    train=GENERATOR,
    optim=CONSTANT,
    losses=_losses(),
    adversary=_adversary(CONSTANT),
)

DECAY = Phase(
    name="decay",
    start_from="adversarial",
    carry=True,  # C trains on without a cut
    steps=FALL,  # C: four epochs of ten, of which the last has rate 0
    batch=6,
    chunk=2,
    train=GENERATOR,
    optim=FALLING,
    losses=_losses(),
    adversary=_adversary(FALLING),
)

PHASES: dict[str, Phase] = {phase.name: phase for phase in (ADVERSARIAL, DECAY)}
