"""FSRT as the pipeline sees it."""

from __future__ import annotations

from typing import Literal

from models.api import Phase, ReleasedWeightsInit
from models.fsrt.config import FsrtConfig
from models.fsrt.phases import DETECTOR_PARTS, PHASES, RENDERER_PARTS
from models.spec import FamilyFields, ModelSpec, PreprocessingNet, TaskSpec

PHASE_NET_PARTS = {
    "keypoints": DETECTOR_PARTS,
    "warmup": DETECTOR_PARTS + RENDERER_PARTS,
    "perceptual": DETECTOR_PARTS + RENDERER_PARTS,
    "adversarial": (*DETECTOR_PARTS, *RENDERER_PARTS, "discriminator"),
}
"""Of the net that each phase's task builds."""
PACKAGES = ("opencv-python", "torch")
PHASE_TASKS = {
    "keypoints": TaskSpec(
        task="models.fsrt.detector_task:KeypointTask",
        settings=("net.detector", "augment", "seed", "precision"),
        packages=PACKAGES,
        figures=("keypoint_error_percent",),
        renders=False,
    ),
    "warmup": TaskSpec(
        task="models.fsrt.task:FsrtReenactmentTask",
        settings=("net", "sampling", "augment", "seed", "precision"),
        packages=PACKAGES,
        figures=(),
    ),
    "perceptual": TaskSpec(
        task="models.fsrt.image_task:WholeImageTask",
        settings=("net", "sampling", "augment", "images", "seed", "precision"),
        packages=PACKAGES,
        figures=(),
    ),
    "adversarial": TaskSpec(
        task="models.fsrt.image_task:AdversarialTask",
        settings=("net", "sampling", "augment", "images", "discriminator", "seed", "precision"),
        packages=PACKAGES,
        figures=(),
    ),
}
_READER = "models.fsrt.released:read_released_weights"
RELEASED_WEIGHTS_INITS = {
    "fsrt_vox": ReleasedWeightsInit(_READER, ("fsrt_vox", "fsrt_kp"), DETECTOR_PARTS + RENDERER_PARTS),
    "fsrt_vox_2src": ReleasedWeightsInit(
        _READER, ("fsrt_vox_2src", "fsrt_kp"), DETECTOR_PARTS + RENDERER_PARTS
    ),
    "fsrt_vox_fomm": ReleasedWeightsInit(_READER, ("fsrt_vox", "fomm_vox"), DETECTOR_PARTS + RENDERER_PARTS),
    "fsrt_vox_2src_fomm": ReleasedWeightsInit(
        _READER, ("fsrt_vox_2src", "fomm_vox"), DETECTOR_PARTS + RENDERER_PARTS
    ),
    "fsrt_kp": ReleasedWeightsInit(_READER, ("fsrt_kp",), DETECTOR_PARTS),
    "fomm_vox": ReleasedWeightsInit(_READER, ("fomm_vox",), DETECTOR_PARTS),
}
"""The last two bring the detector alone, which is what the paper begins with. A net's file holds no detector;
whether FSRT's own equals FOMM's is not known, so that taking FOMM's is a choice of its own.
"""


def phase_net_parts(config: FsrtConfig, phase: Phase) -> tuple[str, ...]:
    return PHASE_NET_PARTS[phase.name]


def phase_family_fields(config: FsrtConfig, phase: Phase) -> FamilyFields:
    """The detector learns from landmarks; the crops of the other phases are placed by them. Those may read
    the frames of a view, of which it must be known where the landmarks lie. The clips' records say how large
    the recordings are."""
    record = () if phase.name == "keypoints" else ("clip",)
    if phase.frames_from == "clips":
        return {"clips": ("frames", *record), "keypoints": ("landmarks",)}
    view = {phase.frames_from: ("frames", "affine", "frame_at"), "keypoints": ("landmarks",)}
    return {"clips": record, **view} if record else view


def phase_frame_sides(config: FsrtConfig, phase: Phase) -> dict[int, str]:
    """A picture needs its own side, a crop of half the frame twice that."""
    if phase.name == "keypoints":
        return {}
    side, changes = config.net.image_size, config.augment
    crops = changes.out_of_frame > 0 or changes.expression_view != "whole"
    whole = {side: "their pictures are enlarged"}
    return whole | ({2 * side: "crops of half a frame are enlarged"} if crops else {})


def phase_loss_nets(config: FsrtConfig, phase: Phase) -> tuple[str, ...]:
    """The perceptual loss's, where the phase weighs that loss."""
    return (config.perceptual_net,) if phase.loss_weights.get("perceptual") else ()


def phase_target_families(config: FsrtConfig, phase: Phase) -> tuple[Literal["keypoints"], ...]:
    """The detector's keypoints are distilled from landmarks."""
    return ("keypoints",) if phase.name == "keypoints" else ()


SPEC = ModelSpec(
    name="fsrt",
    config=FsrtConfig,
    phases=PHASES,
    tasks=PHASE_TASKS,
    parts=phase_net_parts,
    reads=phase_family_fields,
    frame_sides=phase_frame_sides,
    nets=phase_loss_nets,
    targets=phase_target_families,
    preprocessing_nets={"landmarks": PreprocessingNet(setting="keypoints.landmarker", published="fan2d")},
    net_settings=("perceptual_net",),
    released=RELEASED_WEIGHTS_INITS,
    inference="models.fsrt.inference:FsrtReenactor",
    inference_nets=lambda config: (),
    driving_reads=lambda config: {"clips": ("frames",)},
)
