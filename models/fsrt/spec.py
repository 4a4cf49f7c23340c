"""FSRT as the pipeline sees it."""

from __future__ import annotations

from models.api import Phase, ReleasedWeights
from models.fsrt.config import FsrtConfig
from models.fsrt.phases import DETECTOR_PARTS, PHASES, RENDERER_PARTS
from models.spec import FamilyFields, ModelSpec, TaskSpec

PHASE_PARTS = {
    "keypoints": DETECTOR_PARTS,
    "warmup": DETECTOR_PARTS + RENDERER_PARTS,
    "perceptual": DETECTOR_PARTS + RENDERER_PARTS,
    "adversarial": (*DETECTOR_PARTS, *RENDERER_PARTS, "discriminator"),
}
"""Of the net that each phase's task builds."""
TASKS = {
    "keypoints": TaskSpec(
        task="models.fsrt.detector_task:KeypointTask",
        settings=("net.detector", "augment", "seed", "precision"),
    ),
    "warmup": TaskSpec(
        task="models.fsrt.task:ReenactmentTask",
        settings=("net", "sampling", "augment", "seed", "precision"),
    ),
    "perceptual": TaskSpec(
        task="models.fsrt.image_task:WholeImageTask",
        settings=("net", "sampling", "augment", "images", "seed", "precision"),
    ),
    "adversarial": TaskSpec(
        task="models.fsrt.image_task:AdversarialTask",
        settings=("net", "sampling", "augment", "images", "discriminator", "seed", "precision"),
    ),
}
_READER = "models.fsrt.released:read_released"
RELEASED_WEIGHTS = {
    "fsrt_vox": ReleasedWeights(_READER, ("fsrt_vox", "fsrt_kp"), DETECTOR_PARTS + RENDERER_PARTS),
    "fsrt_vox_2src": ReleasedWeights(_READER, ("fsrt_vox_2src", "fsrt_kp"), DETECTOR_PARTS + RENDERER_PARTS),
    "fsrt_vox_fomm": ReleasedWeights(_READER, ("fsrt_vox", "fomm_vox"), DETECTOR_PARTS + RENDERER_PARTS),
    "fsrt_vox_2src_fomm": ReleasedWeights(
        _READER, ("fsrt_vox_2src", "fomm_vox"), DETECTOR_PARTS + RENDERER_PARTS
    ),
    "fsrt_kp": ReleasedWeights(_READER, ("fsrt_kp",), DETECTOR_PARTS),
    "fomm_vox": ReleasedWeights(_READER, ("fomm_vox",), DETECTOR_PARTS),
}
"""The last two bring the detector alone, which is what the paper begins with. A net's file holds no detector;
whether FSRT's own equals FOMM's is not known, so that taking FOMM's is a choice of its own.
"""


def phase_parts(config: FsrtConfig, phase: Phase) -> tuple[str, ...]:
    return PHASE_PARTS[phase.name]


def phase_inputs(config: FsrtConfig, phase: Phase) -> FamilyFields:
    """The detector learns from landmarks; the crops of the other phases are placed by them."""
    return {"clips": ("frames",), "keypoints": ("landmarks",)}


def phase_loss_nets(config: FsrtConfig, phase: Phase) -> tuple[str, ...]:
    """VGG19, where the phase weighs the perceptual loss."""
    if not phase.loss_weights.get("perceptual"):
        return ()
    return ("vgg19" if config.vgg19 == "imagenet" else "vgg19_random",)


SPEC = ModelSpec(
    name="fsrt",
    config=FsrtConfig,
    phases=PHASES,
    tasks=TASKS,
    parts=phase_parts,
    reads=phase_inputs,
    nets=phase_loss_nets,
    net_settings=("vgg19",),
    released=RELEASED_WEIGHTS,
    inference="models.fsrt.inference:FsrtReenactor",
    inference_nets=lambda config: (),
    driving_reads=lambda config: {"clips": ("frames",)},
)
