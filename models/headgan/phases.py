"""HeadGAN's training phases as values, each number with its source. S = the paper's supplement, C = the
authors' code.

S tells the losses and no schedule, so that is C's: Adam at a constant rate, then a linear fall. C counts
epochs, six and four, over sequences whose frames it renders one by one, 6 to 48 of them: on VoxCeleb that
would be tens of millions of steps. Nothing is handed on from frame to frame, so here single frames are drawn,
and the budget is one of steps: 320,000, a quarter of them the fall.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.api import Adversary, Optim, Phase, Released
from models.errors import InvalidSettings

if TYPE_CHECKING:
    from models.headgan.config import HeadGanConfig

STEPS, FALL = 240_000, 80_000
GENERATOR, JUDGES = ("flow_network", "rendering_network"), ("image_discriminator", "mouth_discriminator")


def _losses() -> dict[str, float | None]:
    return {
        "l1": 50.0, "perceptual": 10.0, "l1_warped": 50.0, "perceptual_warped": 10.0,  # S (6)
        "mask": None,  # C: 10, of a net with a mask head
    }  # fmt: skip


def _adversary(optim: Optim) -> Adversary:
    return Adversary(
        train=JUDGES,
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

FITTED = ("id_coeffs", "exp_coeffs", "scale", "rotation", "translation", "fit_valid")
READS: dict[str, tuple[str, ...]] = {
    "clips": ("frames", "clip"), "fit3dmm": FITTED, "speech": ("speech",),
}  # fmt: skip
"""Families that phases read as the defaults are, and their fields; `reads` says what a run's do."""
DRIVEN = READS | {"fit3dmm": (*FITTED, "id_frames")}
"""Those that the reenactor may read of a clip which drives it: the ones among them that phases read."""
_TASK = "models.headgan.task:HeadGanTask"
TASKS = {"adversarial": _TASK, "decay": _TASK}
"""What computes a phase's losses, built from its settings."""
_SETTINGS = (
    "net", "judges", "terms", "head", "hearing", "identity", "shading", "recompute", "seed", "precision",
)  # fmt: skip
SETTINGS = {"adversarial": _SETTINGS, "decay": _SETTINGS}
"""The parts of HeadGanConfig each phase depends on, besides its own values."""
NET_SETTINGS = ("vgg19",)
"""The parts of HeadGanConfig that `nets` reads besides."""

_READ = "models.headgan.released:read"
RELEASED: dict[str, Released] = {
    "headgan_vox": Released(_READ, ("headgan_vox",), GENERATOR),
    "headgan_vox_judges": Released(
        _READ, ("headgan_vox", "headgan_vox_d", "headgan_vox_dm"), (*GENERATOR, *JUDGES)
    ),
}
"""What `start_from: weights.<id>` can name: the generator alone, whose judges then begin anew, or with its
judges."""


def parts(section: HeadGanConfig) -> dict[str, tuple[str, ...]]:
    """The parts of the net of each phase, which is the same in all."""
    generator = GENERATOR if section.net.flow else ("frames_encoder", "rendering_network")
    judges = JUDGES if section.judges.mouth else JUDGES[:1]
    return dict.fromkeys(PHASES, (*generator, *judges))


def nets(section: HeadGanConfig, phase: Phase) -> tuple[str, ...]:
    """The head that is drawn, and the net that a phase's losses look through (models/perception)."""
    if not (phase.losses.get("perceptual") or phase.losses.get("perceptual_warped")):
        return (section.head,)
    return (section.head, "vgg19" if section.vgg19 == "imagenet" else "vgg19_random")


def reenacting(section: HeadGanConfig) -> tuple[str, ...]:
    """The perception nets that inference needs: the head that is drawn."""
    return (section.head,)


def reads(section: HeadGanConfig) -> dict[str, tuple[str, ...]]:
    """Families that every phase reads, and their fields."""
    fitted = (*FITTED, "id_frames") if section.identity == "frame" else FITTED
    if not section.net.audio:
        return {"clips": ("frames",), "fit3dmm": fitted}
    return {**READS, "fit3dmm": fitted}


def told(section: HeadGanConfig) -> tuple[str, ...]:
    """Sections of the run beside this one that a phase is told: how the sound that it hears was encoded."""
    return ("speech",) if section.net.audio else ()


def check(config: Any) -> None:
    """Raises InvalidSettings where a run's data do not fit the model's settings."""
    section = config.headgan
    if config.eval.sources != 1:
        raise InvalidSettings(
            f"eval.sources {config.eval.sources}: headgan is driven from one source; expected 1"
        )
    if section.head != config.fit3dmm.model:
        raise InvalidSettings(
            f"headgan.head {section.head} with fit3dmm.model {config.fit3dmm.model}: coefficients of one "
            "model mean nothing to another; set both alike"
        )
    if section.identity == "frame" and config.fit3dmm.identity != "frame":
        raise InvalidSettings(
            f"headgan.identity frame with fit3dmm.identity {config.fit3dmm.identity}: expected "
            "fit3dmm.identity frame, or headgan.identity clip_mean"
        )
    if section.net.audio not in (0, config.speech.size):
        raise InvalidSettings(
            f"headgan.net.audio {section.net.audio}: speech.encoder {config.speech.encoder} gives vectors of "
            f"{config.speech.size}; expected that, or 0 for a net that hears nothing, or another encoder "
            "(headgan gives 300)"
        )
