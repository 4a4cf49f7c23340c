"""FSRT as the pipeline sees it."""

from __future__ import annotations

from models.api import Phase, Released
from models.fsrt.config import FsrtConfig
from models.fsrt.phases import DETECTOR, PHASES, RENDERER
from models.spec import ModelSpec, Reads, TaskSpec

PARTS = {
    "keypoints": DETECTOR,
    "warmup": DETECTOR + RENDERER,
    "perceptual": DETECTOR + RENDERER,
    "adversarial": (*DETECTOR, *RENDERER, "discriminator"),
}
"""Of the net that each phase's task builds."""
TASKS = {
    "keypoints": TaskSpec(
        task="models.fsrt.detector_task:KeypointTask",
        settings=("net.detector", "augment", "seed", "precision"),
    ),
    "warmup": TaskSpec(
        task="models.fsrt.task:ReenactTask",
        settings=("net", "sampling", "augment", "seed", "precision"),
    ),
    "perceptual": TaskSpec(
        task="models.fsrt.image_task:ImageTask",
        settings=("net", "sampling", "augment", "images", "seed", "precision"),
    ),
    "adversarial": TaskSpec(
        task="models.fsrt.image_task:AdversarialTask",
        settings=("net", "sampling", "augment", "images", "discriminator", "seed", "precision"),
    ),
}
_READER = "models.fsrt.released:read"
RELEASED = {
    "fsrt_vox": Released(_READER, ("fsrt_vox", "fsrt_kp"), DETECTOR + RENDERER),
    "fsrt_vox_2src": Released(_READER, ("fsrt_vox_2src", "fsrt_kp"), DETECTOR + RENDERER),
    "fsrt_vox_fomm": Released(_READER, ("fsrt_vox", "fomm_vox"), DETECTOR + RENDERER),
    "fsrt_vox_2src_fomm": Released(_READER, ("fsrt_vox_2src", "fomm_vox"), DETECTOR + RENDERER),
    "fsrt_kp": Released(_READER, ("fsrt_kp",), DETECTOR),
    "fomm_vox": Released(_READER, ("fomm_vox",), DETECTOR),
}
"""The last two bring the detector alone, which is what the paper begins with. A net's file holds no detector;
whether FSRT's own equals FOMM's is not known, so that taking FOMM's is a choice of its own.
"""


def parts(config: FsrtConfig, phase: Phase) -> tuple[str, ...]:
    return PARTS[phase.name]


def reads(config: FsrtConfig, phase: Phase) -> Reads:
    """The detector learns from landmarks; the crops of the other phases are placed by them."""
    return {"clips": ("frames",), "keypoints": ("landmarks",)}


def nets(config: FsrtConfig, phase: Phase) -> tuple[str, ...]:
    """VGG19, where the phase weighs the perceptual loss."""
    if not phase.weights.get("perceptual"):
        return ()
    return ("vgg19" if config.vgg19 == "imagenet" else "vgg19_random",)


SPEC = ModelSpec(
    name="fsrt",
    config=FsrtConfig,
    phases=PHASES,
    tasks=TASKS,
    parts=parts,
    reads=reads,
    nets=nets,
    net_settings=("vgg19",),
    released=RELEASED,
    inference="models.fsrt.inference:Reenactor",
    inference_nets=lambda config: (),
    driving_reads=lambda config: {"clips": ("frames",)},
)
